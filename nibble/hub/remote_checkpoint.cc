#include "nibble/hub/remote_checkpoint.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "nibble/base/cancel.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/checkpoint/shard_index.h"

namespace nibble {
namespace {

constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

// Enough for the header of most shards, so that one request does.
constexpr uint64_t kFirstBytes = 64 << 10;

class RemoteCheckpoint final : public Checkpoint {
 public:
  explicit RemoteCheckpoint(RemoteModel model) : model_(std::move(model)) {}

  Status add(const std::string& file) {
    const RemoteFile* const remote = model_.find(file);
    if (remote == nullptr) {
      return fail(ErrorCode::kDataLoss, "the index names {}, which the hub has not got", file)
          .at(model_.repo());
    }
    NIBBLE_TRY(SafetensorsHeader header, at(file, read_header(*remote)));
    for (const auto& [name, entry] : header.tensors) {
      const Place place = {file, header.data_start + entry.begin, entry.end - entry.begin};
      if (!places_.emplace(name, place).second) {
        return fail(ErrorCode::kDataLoss, "the tensor is in {} and in {}", places_.at(name).file, file)
            .at(name);
      }
      tensors_.emplace(name, entry.info);
    }
    metadata_.insert(header.metadata.begin(), header.metadata.end());
    file_bytes_ += remote->size;
    return {};
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    const auto found = places_.find(name);
    if (found == places_.end()) return fail(ErrorCode::kNotFound, "the checkpoint has no tensor {}", name);
    const Place& place = found->second;
    NIBBLE_TRY(std::vector<std::byte> bytes, model_.read_range(place.file, place.begin, place.length));
    const TensorInfo& info = tensors_.find(name)->second;
    return Tensor::of(info.dtype, info.shape, std::move(bytes));
  }

  std::string file_of(std::string_view name) const override {
    const auto found = places_.find(name);
    return found == places_.end() ? std::string() : found->second.file;
  }
  size_t file_bytes() const override { return file_bytes_; }

 private:
  struct Place {
    std::string file;
    uint64_t begin = 0;
    uint64_t length = 0;
  };

  Expected<SafetensorsHeader> read_header(const RemoteFile& file) const {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    NIBBLE_TRY(std::vector<std::byte> front,
               model_.read_range(file.path, 0, std::min(file.size, kFirstBytes)));
    NIBBLE_TRY(const size_t end, safetensors_data_start(front, file.size));
    if (end > front.size()) {
      NIBBLE_TRY(const auto rest, model_.read_range(file.path, front.size(), end - front.size()));
      front.insert(front.end(), rest.begin(), rest.end());
    }
    return parse_safetensors(front, file.size);
  }

  const RemoteModel model_;
  std::map<std::string, Place, std::less<>> places_;
  size_t file_bytes_ = 0;
};

// The files with weights.
Expected<std::set<std::string>> weight_files(const RemoteModel& model) {
  if (model.find(kSingle) != nullptr) return std::set<std::string>{std::string(kSingle)};
  std::vector<std::string> others;
  std::string index;
  for (const RemoteFile& file : model.files()) {
    if (file.path.find('/') != std::string::npos) continue;
    if (file.path.ends_with(".safetensors.index.json") && (index.empty() || file.path == kIndex)) {
      index = file.path;
    }
    if (file.path.ends_with(".safetensors")) others.push_back(file.path);
  }
  if (!index.empty()) {
    NIBBLE_TRY(const std::string text, model.read(index));
    NIBBLE_TRY(const auto map, at(index, parse_shard_index(text)));
    std::set<std::string> files;
    for (const auto& [tensor, file] : map) files.insert(file);
    return files;
  }
  if (others.size() == 1) return std::set<std::string>{others.front()};
  return fail(ErrorCode::kNotFound, "no {} and no {} among its {} files", kSingle, kIndex,
              model.files().size())
      .at(model.repo())
      .with_fix("Nibble reads safetensors: look for a repository that has them.");
}

}  // namespace

Expected<RemoteHeaders> read_remote_headers(RemoteModel model) {
  RemoteHeaders headers;
  headers.files.name = model.repo();
  for (const char* const name : {"config.json", "quantize_config.json", "quant_config.json"}) {
    if (model.find(name) == nullptr) continue;
    NIBBLE_TRY(headers.files.texts[name], model.read(name));
  }
  if (!headers.files.texts.contains("config.json")) {
    return fail(ErrorCode::kNotFound, "the repository has no config.json").at(model.repo());
  }
  if (const RemoteFile* const tokenizer = model.find("tokenizer.json"))
    headers.tokenizer_bytes = tokenizer->size;
  NIBBLE_TRY(const std::set<std::string> files, weight_files(model));
  const std::string repo = model.repo();
  const auto checkpoint = std::make_shared<RemoteCheckpoint>(std::move(model));
  for (const std::string& file : files) NIBBLE_RETURN_IF_ERROR(at(repo, checkpoint->add(file)));
  headers.checkpoint = checkpoint;
  return headers;
}

}  // namespace nibble
