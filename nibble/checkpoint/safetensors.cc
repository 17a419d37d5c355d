#include "nibble/checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <tuple>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are used as they lie in the file");

constexpr size_t kLengthBytes = 8;

constexpr std::string_view kFetchAgain = "The download is incomplete: fetch the file again.";
constexpr std::string_view kDamaged = "The file is damaged or not a safetensors file: fetch it again.";

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// front: the file's beginning, which may be all of it.
Expected<size_t> read_header_length(std::span<const std::byte> front, size_t file_bytes) {
  if (front.size() < kLengthBytes || file_bytes < kLengthBytes) {
    return fail(ErrorCode::kDataLoss, "{} bytes, but the header length alone takes {}", front.size(),
                kLengthBytes)
        .with_fix(kFetchAgain);
  }
  if (as_text(front).starts_with("version https://git-lfs")) {
    return fail(ErrorCode::kDataLoss, "this is a Git LFS pointer, not the weights themselves")
        .with_fix("Run \"git lfs pull\" in the folder, or download the file.");
  }
  uint64_t length = 0;
  std::memcpy(&length, front.data(), sizeof(length));
  if (length > kMaxSafetensorsHeaderBytes) {
    return fail(ErrorCode::kDataLoss, "the header length is {}, but at most {} is allowed", length,
                kMaxSafetensorsHeaderBytes)
        .with_fix(kDamaged);
  }
  if (length > file_bytes - kLengthBytes) {
    return fail(ErrorCode::kDataLoss, "the header takes {} bytes, but the file has only {} after its length",
                length, file_bytes - kLengthBytes)
        .with_fix(kFetchAgain);
  }
  return static_cast<size_t>(length);
}

Expected<std::map<std::string, std::string>> read_metadata(const Json& json) {
  std::map<std::string, std::string> metadata;
  if (json.is_null()) return metadata;
  if (!json.is_object()) {
    return fail(ErrorCode::kDataLoss, "{} where an object of strings is expected", json_type_name(json));
  }
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      return fail(ErrorCode::kDataLoss, "\"{}\" is {}, but must be a string", key, json_type_name(value));
    }
    metadata.emplace(key, value.get_ref<const std::string&>());
  }
  return metadata;
}

// A list of sizes or offsets.
Expected<std::vector<size_t>> read_sizes(const Json& entry, const char* key) {
  const auto list = entry.find(key);
  if (list == entry.end()) return fail(ErrorCode::kDataLoss, "{} is missing", key);
  if (!list->is_array()) {
    return fail(ErrorCode::kDataLoss, "{} is {}, but must be a list", key, json_type_name(*list));
  }
  std::vector<size_t> sizes;
  for (const Json& item : *list) {
    if (!item.is_number_unsigned()) {
      return fail(ErrorCode::kDataLoss, "{} holds {}, but only whole numbers from 0 to 2^64 - 1 are allowed",
                  key, item.is_number() ? item.dump() : std::string(json_type_name(item)));
    }
    sizes.push_back(item.get<uint64_t>());
  }
  return sizes;
}

Expected<SafetensorsEntry> read_entry(const Json& json) {
  if (!json.is_object()) {
    return fail(ErrorCode::kDataLoss, "{} where an object is expected", json_type_name(json));
  }
  const auto dtype_json = json.find("dtype");
  if (dtype_json == json.end() || !dtype_json->is_string()) {
    return fail(ErrorCode::kDataLoss, "dtype is missing or not a string");
  }
  const auto& name = dtype_json->get_ref<const std::string&>();
  const auto dtype = dtype_from_name(name);
  if (!dtype) {
    return fail(ErrorCode::kUnsupported, "unknown dtype \"{}\"", name)
        .with_fix("The file is damaged, or written by a newer version of the format.");
  }
  NIBBLE_TRY(Shape shape, read_sizes(json, "shape"));
  NIBBLE_TRY(const std::vector<size_t> offsets, read_sizes(json, "data_offsets"));
  if (offsets.size() != 2) {
    return fail(ErrorCode::kDataLoss, "data_offsets has {} numbers, but must have 2", offsets.size());
  }

  SafetensorsEntry entry{{*dtype, std::move(shape)}, offsets[0], offsets[1]};
  if (entry.end < entry.begin) {
    return fail(ErrorCode::kDataLoss, "data_offsets [{}, {}] end before they begin", entry.begin, entry.end);
  }
  const auto bytes = num_bytes(entry.info);
  if (!bytes) {
    return fail(ErrorCode::kDataLoss, "the size of {} {} is no number of bytes below 2^64", name,
                shape_name(entry.info.shape));
  }
  if (*bytes != entry.end - entry.begin) {
    return fail(ErrorCode::kDataLoss, "{} bytes (data_offsets [{}, {}]), but {} {} needs {}",
                entry.end - entry.begin, entry.begin, entry.end, name, shape_name(entry.info.shape), *bytes);
  }
  return entry;
}

// The tensors must fill the data part exactly: no overlap, no hidden bytes, nothing cut off.
Status check_tiling(const SafetensorsHeader& header, size_t data_bytes) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> ordered;
  for (const auto& tensor : header.tensors) ordered.push_back(&tensor);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::tie(a->second.begin, a->second.end) < std::tie(b->second.begin, b->second.end);
  });

  size_t expected = 0;
  const std::string* before = nullptr;
  for (const auto* tensor : ordered) {
    const auto& [name, entry] = *tensor;
    if (entry.begin != expected) {
      const std::string place = before == nullptr ? "at the start of the data" : "behind " + *before;
      return fail(ErrorCode::kDataLoss, "starts at byte {} of the data, but {} is expected: {} {}",
                  entry.begin, expected, entry.begin > expected ? "there is a hole" : "it overlaps", place)
          .at(name)
          .with_fix(kDamaged);
    }
    if (entry.end > data_bytes) {
      return fail(ErrorCode::kDataLoss, "ends at byte {} of the data, but the file has only {}", entry.end,
                  data_bytes)
          .at(name)
          .with_fix(kFetchAgain);
    }
    expected = entry.end;
    before = &name;
  }
  if (expected != data_bytes) {
    return fail(ErrorCode::kDataLoss, "{} bytes follow the last tensor", data_bytes - expected)
        .with_fix(kDamaged);
  }
  return {};
}

}  // namespace

Expected<size_t> safetensors_data_start(std::span<const std::byte> front, size_t file_bytes) {
  NIBBLE_TRY(const size_t length, read_header_length(front, file_bytes));
  return kLengthBytes + length;
}

Expected<SafetensorsHeader> parse_safetensors(std::span<const std::byte> front, size_t file_bytes) {
  NIBBLE_TRY(const size_t length, read_header_length(front, file_bytes));
  if (length > front.size() - kLengthBytes) {
    return fail(ErrorCode::kDataLoss, "{} bytes are known, but the header takes {}", front.size(),
                kLengthBytes + length)
        .with_fix(kFetchAgain);
  }
  auto json = at("header", parse_json(as_text(front.subspan(kLengthBytes, length))));
  if (!json) return Failure(std::move(json).error().with_fix(kDamaged));
  if (!json->is_object()) {
    return fail(ErrorCode::kDataLoss, "{} where an object is expected", json_type_name(*json))
        .at("header")
        .with_fix(kDamaged);
  }

  SafetensorsHeader header;
  header.data_start = kLengthBytes + length;
  for (const auto& [name, value] : json->items()) {
    if (name == "__metadata__") {
      auto metadata = at(name, read_metadata(value));
      if (!metadata) return Failure(std::move(metadata).error().with_fix(kDamaged));
      header.metadata = std::move(*metadata);
      continue;
    }
    auto entry = at(name, read_entry(value));
    if (!entry) return Failure(std::move(entry).error().with_fix(kDamaged));
    header.tensors.emplace(name, std::move(*entry));
  }
  NIBBLE_RETURN_IF_ERROR(check_tiling(header, file_bytes - header.data_start));
  return header;
}

Expected<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  NIBBLE_TRY(auto file, MappedFile::open(path));
  NIBBLE_TRY(auto header, at(path.string(), parse_safetensors(file->bytes(), file->bytes().size())));
  return SafetensorsFile(std::move(file), std::move(header));
}

Expected<Tensor> SafetensorsFile::tensor(std::string_view name) const {
  const auto found = header_.tensors.find(name);
  if (found == header_.tensors.end()) {
    return fail(ErrorCode::kNotFound, "there is no tensor {}", name).at(file_->path().string());
  }
  NIBBLE_RETURN_IF_ERROR(file_->check_size());
  const SafetensorsEntry& entry = found->second;
  return Tensor{entry.info.dtype, entry.info.shape,
                file_->bytes().subspan(header_.data_start + entry.begin, entry.end - entry.begin), file_};
}

}  // namespace nibble
