#include "nibble/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <system_error>
#include <utility>

#include "nibble/base/atomic_file.h"
#include "nibble/base/cancel.h"
#include "nibble/base/json.h"
#include "nibble/base/progress.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/checkpoint/utf8.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Within a file the reference writer sorts by falling rank in this list, then by name: what needs
// the largest alignment comes first, so that everything is aligned.
constexpr std::array kDTypesByAlignment = {
    DType::kBool,   DType::kF4,     DType::kF6E2M3, DType::kF6E3M2, DType::kU8,  DType::kI8,   DType::kF8E5M2,
    DType::kF8E4M3, DType::kF8E8M0, DType::kI16,    DType::kU16,    DType::kF16, DType::kBF16, DType::kI32,
    DType::kU32,    DType::kF32,    DType::kC64,    DType::kF64,    DType::kI64, DType::kU64};

size_t alignment_rank(DType dtype) {
  const auto* found = std::find(kDTypesByAlignment.begin(), kDTypesByAlignment.end(), dtype);
  return static_cast<size_t>(found - kDTypesByAlignment.begin());
}

using Shard = std::vector<const TensorSource*>;

// Names that cannot be written, sizes that do not exist.
Status check_sources(const std::vector<TensorSource>& tensors) {
  std::set<std::string_view> names;
  for (const TensorSource& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return fail(ErrorCode::kInvalidArgument, "two tensors have the name {}", tensor.name);
    }
    if (tensor.name == "__metadata__" || !is_utf8(tensor.name)) {
      return fail(ErrorCode::kInvalidArgument, "safetensors files cannot hold a tensor of this name")
          .at(tensor.name);
    }
    if (!num_bytes(tensor.info)) {
      return fail(ErrorCode::kInvalidArgument, "{} {} is no number of bytes below 2^64",
                  dtype_name(tensor.info.dtype), shape_name(tensor.info.shape))
          .at(tensor.name);
    }
  }
  return {};
}

std::string json_string(const std::string& text) { return dump_json(Json(text), -1); }

// 8 bytes of length and the JSON, padded to 8 bytes; `shard` is in the order of the file.
Expected<std::string> make_header(const Shard& shard, const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> entries;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata) {
      if (!is_utf8(key) || !is_utf8(value)) {
        return fail(ErrorCode::kInvalidArgument, "the metadata entry {} is not UTF-8", key);
      }
      pairs.push_back(json_string(key) + ":" + json_string(value));
    }
    entries.push_back(fmt::format("\"__metadata__\":{{{}}}", fmt::join(pairs, ",")));
  }
  size_t offset = 0;
  for (const TensorSource* tensor : shard) {
    const TensorInfo& info = tensor->info;
    size_t end = 0;
    if (__builtin_add_overflow(offset, num_bytes(info).value_or(0), &end)) {
      return fail(ErrorCode::kInvalidArgument, "the tensors have more than 2^64 bytes");
    }
    entries.push_back(fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                                  json_string(tensor->name), dtype_name(info.dtype),
                                  fmt::join(info.shape, ","), offset, end));
    offset = end;
  }
  std::string json = fmt::format("{{{}}}", fmt::join(entries, ","));
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > kMaxSafetensorsHeaderBytes) {
    return fail(ErrorCode::kInvalidArgument, "{} tensors need a header of {} bytes, but readers allow {}",
                shard.size(), json.size(), kMaxSafetensorsHeaderBytes)
        .with_fix("Write more, smaller files: lower the shard size.");
  }
  const uint64_t length = json.size();
  std::string header(sizeof(length), '\0');
  std::memcpy(header.data(), &length, sizeof(length));
  return header + json;
}

Status write_tensor(const TensorSource& source, size_t offset, AtomicFile& file) {
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  NIBBLE_TRY(const Tensor tensor, at(source.name, source.load()));
  if (tensor.info() != source.info || tensor.bytes.size() != num_bytes(source.info)) {
    return fail(ErrorCode::kInvalidArgument, "announced as {} {}, but {} {} of {} bytes came",
                dtype_name(source.info.dtype), shape_name(source.info.shape), dtype_name(tensor.dtype),
                shape_name(tensor.shape), tensor.bytes.size())
        .at(source.name);
  }
  NIBBLE_RETURN_IF_ERROR(file.write_at(offset, tensor.bytes));
  if (source.written) source.written();
  return {};
}

// Writes all bytes, but leaves it to the caller to commit the file. Tensors are loaded in the order given,
// which keeps together what is made together (the codes and the scales of a module), wherever they lie.
Expected<AtomicFile> write_shard(const fs::path& path, const Shard& shard,
                                 const std::map<std::string, std::string>& metadata, Progress& progress) {
  Shard in_file = shard;
  std::sort(in_file.begin(), in_file.end(), [](const TensorSource* a, const TensorSource* b) {
    const size_t rank_a = alignment_rank(a->info.dtype);
    const size_t rank_b = alignment_rank(b->info.dtype);
    return rank_a != rank_b ? rank_a > rank_b : a->name < b->name;
  });
  NIBBLE_TRY(const std::string header, make_header(in_file, metadata));
  std::map<const TensorSource*, size_t> offsets;
  size_t end = header.size();
  for (const TensorSource* tensor : in_file) {
    offsets[tensor] = end;
    end += num_bytes(tensor->info).value_or(0);
  }
  NIBBLE_TRY(AtomicFile file, AtomicFile::create(path));
  NIBBLE_RETURN_IF_ERROR(file.write(header));
  for (const TensorSource* tensor : shard) {
    NIBBLE_RETURN_IF_ERROR(write_tensor(*tensor, offsets.at(tensor), file));
    progress.advance();
  }
  return file;
}

// Greedy, as huggingface_hub does it: a tensor larger than the limit gets a file of its own, and
// the file that was being filled goes on after it.
std::vector<Shard> split_into_shards(const std::vector<TensorSource>& tensors, size_t max_shard_size) {
  std::vector<Shard> shards;
  Shard current;
  size_t current_bytes = 0;
  for (const TensorSource& tensor : tensors) {
    const size_t bytes = num_bytes(tensor.info).value_or(0);
    if (bytes > max_shard_size) {
      shards.push_back({&tensor});
      continue;
    }
    if (bytes > max_shard_size - current_bytes) {
      shards.push_back(std::exchange(current, {}));
      current_bytes = 0;
    }
    current.push_back(&tensor);
    current_bytes += bytes;
  }
  if (!current.empty() || shards.empty()) shards.push_back(std::move(current));
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  return count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

std::string make_index(const std::vector<Shard>& shards) {
  size_t total_size = 0;
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const TensorSource* tensor : shards[i]) {
      total_size += num_bytes(tensor->info).value_or(0);
      weight_map.emplace(tensor->name, shard_name(i, shards.size()));
    }
  }
  Json index;
  index["metadata"]["total_size"] = total_size;
  index["weight_map"] = weight_map;
  return dump_json(index, 2) + "\n";
}

// model.safetensors, its index, or a shard of it.
bool is_model_file(std::string_view name) {
  if (name == "model.safetensors" || name == "model.safetensors.index.json") return true;
  return name.starts_with("model-") && name.ends_with(".safetensors") &&
         name.find("-of-") != std::string_view::npos;
}

// Files of an earlier, differently sharded model; readers would take them for a part of this one.
Status remove_stale_files(const fs::path& folder, const std::set<std::string>& written) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (is_model_file(name) && !written.contains(name)) stale.push_back(entry->path());
  }
  for (const fs::path& path : stale) {
    if (!error) fs::remove(path, error);
  }
  if (!error) return {};
  return fail(ErrorCode::kUnavailable, "old weight files could not be removed: {}", error.message())
      .at(folder.string())
      .with_fix("Remove them by hand: the new weights are complete.");
}

Status remove_descriptions(const fs::path& folder) {
  std::vector<std::string_view> names(kQuantizeConfigFiles.begin(), kQuantizeConfigFiles.end());
  names.emplace_back("config.json");
  for (const std::string_view name : names) {
    NIBBLE_RETURN_IF_ERROR(remove_file(folder / name));
  }
  return {};
}

}  // namespace

Status write_checkpoint(const fs::path& folder, const std::vector<TensorSource>& tensors,
                        const CheckpointWriterOptions& options) {
  NIBBLE_RETURN_IF_ERROR(check_sources(tensors));
  NIBBLE_RETURN_IF_ERROR(create_folder(folder));
  const std::vector<Shard> shards = split_into_shards(tensors, options.max_shard_size);

  // All files are written before the first appears under its name: an error, a full disk or Ctrl-C
  // leaves the folder as it was.
  Progress progress("writing weights", tensors.size(), "tensors");
  std::vector<AtomicFile> files;
  std::set<std::string> written;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    NIBBLE_TRY(AtomicFile file, write_shard(folder / name, shards[i], options.metadata, progress));
    files.push_back(std::move(file));
    written.insert(name);
  }
  NIBBLE_RETURN_IF_ERROR(remove_descriptions(folder));
  for (AtomicFile& file : files) NIBBLE_RETURN_IF_ERROR(file.commit());
  if (shards.size() > 1) {
    NIBBLE_RETURN_IF_ERROR(write_file(folder / "model.safetensors.index.json", make_index(shards)));
    written.insert("model.safetensors.index.json");
  }
  return remove_stale_files(folder, written);
}

Status write_safetensors(const fs::path& path, const std::vector<TensorSource>& tensors,
                         const std::map<std::string, std::string>& metadata) {
  NIBBLE_RETURN_IF_ERROR(check_sources(tensors));
  Shard all;
  for (const TensorSource& tensor : tensors) all.push_back(&tensor);
  Progress progress("writing " + path.filename().string(), tensors.size(), "tensors");
  NIBBLE_TRY(AtomicFile file, write_shard(path, all, metadata, progress));
  return file.commit();
}

Status write_safetensors(const fs::path& path, const std::map<std::string, Tensor>& tensors,
                         const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSource> sources;
  for (const auto& entry : tensors) {
    const Tensor& tensor = entry.second;
    sources.push_back({entry.first, tensor.info(), [&tensor]() -> Expected<Tensor> { return tensor; }});
  }
  return write_safetensors(path, sources, metadata);
}

}  // namespace nibble
