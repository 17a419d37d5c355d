#include "nibble/checkpoint/checkpoint.h"

#include <algorithm>
#include <set>
#include <system_error>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/text.h"
#include "nibble/checkpoint/gguf_model.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/checkpoint/shard_index.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexSuffix = ".safetensors.index.json";
constexpr std::string_view kFileSuffix = ".safetensors";
constexpr std::string_view kIncomplete = "The download is incomplete: fetch the missing file.";

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  // Takes over the tensors of one more file. A name that is there already is an error.
  Status add(std::string name, SafetensorsFile file) {
    for (const auto& [tensor, entry] : file.header().tensors) {
      const auto [position, is_new] = file_by_tensor_.emplace(tensor, files_.size());
      if (!is_new) {
        return fail(ErrorCode::kDataLoss, "the tensor is in {} and in {}", files_[position->second].name,
                    name)
            .at(tensor)
            .with_fix("The folder mixes files of two models: fetch it again into an empty folder.");
      }
      tensors_.emplace(tensor, entry.info);
    }
    for (const auto& entry : file.header().metadata) metadata_.insert(entry);
    files_.push_back({std::move(name), std::move(file)});
    return {};
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    const auto found = file_by_tensor_.find(name);
    if (found == file_by_tensor_.end()) {
      return fail(ErrorCode::kNotFound, "the checkpoint has no tensor {}", name);
    }
    return files_[found->second].file.tensor(name);
  }

  void drop(std::string_view name) const override {
    if (const auto mapped = tensor(name)) drop_pages(mapped->bytes);
  }

  std::string file_of(std::string_view name) const override {
    const auto found = file_by_tensor_.find(name);
    return found == file_by_tensor_.end() ? std::string() : files_[found->second].name;
  }

  size_t file_bytes() const override {
    size_t bytes = 0;
    for (const File& file : files_) bytes += file.file.file_bytes();
    return bytes;
  }

 private:
  struct File {
    std::string name;
    SafetensorsFile file;
  };

  std::vector<File> files_;
  std::map<std::string, size_t, std::less<>> file_by_tensor_;  // index into files_
};

bool file_exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Every tensor of the index must be where the index says.
Status check_against_index(const std::map<std::string, std::string>& weight_map,
                           const Checkpoint& checkpoint) {
  std::vector<std::string> faults;
  for (const auto& [tensor, shard] : weight_map) {
    const std::string actual = checkpoint.file_of(tensor);
    if (actual == shard) continue;
    faults.push_back(actual.empty() ? fmt::format("{} (said to be in {}) is in no file", tensor, shard)
                                    : fmt::format("{} is in {}, not in {}", tensor, actual, shard));
  }
  if (faults.empty()) return {};
  return fail(ErrorCode::kDataLoss, "the index contradicts the files: {}", some_of(faults))
      .with_fix("Index and weight files are not of one model: fetch the folder again.");
}

Expected<std::shared_ptr<const Checkpoint>> open_sharded(const fs::path& index) {
  const fs::path folder = index.parent_path();
  NIBBLE_TRY(const std::string text, read_text_file(index));
  auto parsed = at(index.string(), parse_shard_index(text));
  if (!parsed) return Failure(std::move(parsed).error().with_fix("The index is damaged: fetch it again."));
  const std::map<std::string, std::string>& weight_map = *parsed;
  std::set<std::string> shards;
  for (const auto& entry : weight_map) shards.insert(entry.second);
  std::vector<std::string> missing;
  for (const std::string& shard : shards) {
    if (!file_exists(folder / shard)) missing.push_back(shard);
  }
  if (!missing.empty()) {
    return fail(ErrorCode::kDataLoss, "{} of {} weight files are missing: {}", missing.size(), shards.size(),
                some_of(missing))
        .at(index.string())
        .with_fix(kIncomplete);
  }

  auto checkpoint = std::make_shared<SafetensorsCheckpoint>();
  for (const std::string& shard : shards) {
    NIBBLE_TRY(SafetensorsFile file, SafetensorsFile::open(folder / shard));
    NIBBLE_RETURN_IF_ERROR(at(folder.string(), checkpoint->add(shard, std::move(file))));
  }
  NIBBLE_RETURN_IF_ERROR(at(index.string(), check_against_index(weight_map, *checkpoint)));
  return checkpoint;
}

Expected<std::shared_ptr<const Checkpoint>> open_single(const fs::path& path) {
  NIBBLE_TRY(SafetensorsFile file, SafetensorsFile::open(path));
  auto checkpoint = std::make_shared<SafetensorsCheckpoint>();
  NIBBLE_RETURN_IF_ERROR(checkpoint->add(path.filename().string(), std::move(file)));
  return checkpoint;
}

// "model-00001-of-00003.safetensors" and the like.
bool is_shard(std::string_view file) {
  constexpr std::string_view kPattern = "-00000-of-00000.safetensors";  // 0: any digit
  if (file.size() <= kPattern.size()) return false;
  file.remove_prefix(file.size() - kPattern.size());
  return std::equal(file.begin(), file.end(), kPattern.begin(), [](char c, char pattern) {
    return pattern == '0' ? c >= '0' && c <= '9' : c == pattern;
  });
}

// Weights under another name than model: gptq_model-4bit-128g.safetensors or its index.
std::vector<std::string> other_candidates(const std::vector<std::string>& files) {
  std::vector<std::string> candidates;
  for (const std::string& file : files) {
    const bool is_weights = file.ends_with(kFileSuffix) && !is_shard(file);
    if (file.starts_with("adapter_model.") || (!is_weights && !file.ends_with(kIndexSuffix))) continue;
    candidates.push_back(file);
  }
  return candidates;
}

std::vector<std::string> with_suffix(const std::vector<std::string>& files, std::string_view suffix) {
  std::vector<std::string> found;
  for (const std::string& file : files) {
    if (file.ends_with(suffix)) found.push_back(file);
  }
  return found;
}

// Says why there is nothing to open, and what would help.
Failure no_weights(const ModelFiles& files, const std::vector<std::string>& names) {
  if (const auto shards = with_suffix(names, kFileSuffix);
      std::any_of(shards.begin(), shards.end(), [](const std::string& name) { return is_shard(name); })) {
    return fail(ErrorCode::kDataLoss, "there are shards ({}), but no model.safetensors.index.json",
                some_of(shards))
        .at(files.folder.string())
        .with_fix(kIncomplete);
  }
  std::vector<std::string> pickles;
  for (const std::string_view suffix : {".bin", ".pt", ".pth", ".ckpt"}) {
    for (std::string& name : with_suffix(names, suffix)) pickles.push_back(std::move(name));
  }
  if (!pickles.empty()) {
    return fail(ErrorCode::kUnsupported,
                "the weights are pickle files ({}), which may run code when they are read", some_of(pickles))
        .at(files.folder.string())
        .with_fix(
            "Convert them with Transformers: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT, safe_serialization=True)");
  }
  if (const auto ggufs = with_suffix(names, ".gguf"); !ggufs.empty()) {
    return fail(ErrorCode::kNotFound, "no .safetensors weights, but {}", some_of(ggufs))
        .at(files.folder.string())
        .with_fix(fmt::format("Name the file itself: {}", (files.folder / ggufs.front()).string()));
  }
  return fail(ErrorCode::kNotFound, "no weights: neither model.safetensors nor model.safetensors.index.json")
      .at(files.folder.string())
      .with_fix("Check the folder, or finish its download.");
}

}  // namespace

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Expected<std::shared_ptr<const Checkpoint>> open_checkpoint(const ModelFiles& files) {
  if (!files.gguf.empty()) return open_gguf_checkpoint(files.gguf);

  const fs::path single = files.folder / "model.safetensors";
  if (file_exists(single)) return open_single(single);
  const fs::path index = files.folder / "model.safetensors.index.json";
  if (file_exists(index)) return open_sharded(index);

  const std::vector<std::string> names = files.list();
  const std::vector<std::string> candidates = other_candidates(names);
  if (candidates.empty()) return no_weights(files, names);
  if (candidates.size() > 1) {
    return fail(ErrorCode::kInvalidArgument, "several files could be the weights: {}", some_of(candidates))
        .at(files.folder.string())
        .with_fix("Keep one of them in the folder, or rename it to model.safetensors.");
  }
  log_verbose("{}: the weights are in {}", files.folder.string(), candidates.front());
  const fs::path path = files.folder / candidates.front();
  return candidates.front().ends_with(kIndexSuffix) ? open_sharded(path) : open_single(path);
}

}  // namespace nibble
