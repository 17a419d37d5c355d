#ifndef NIBBLE_HUB_REMOTE_MODEL_H_
#define NIBBLE_HUB_REMOTE_MODEL_H_

// A model that is on the hub and perhaps nowhere else: its files, and parts of them, without a download.
//
//   NIBBLE_TRY(const RemoteModel model, open_remote("org/name@main"));
//   NIBBLE_TRY(const std::string config, model.read("config.json"));
//   NIBBLE_TRY(const auto length, model.read_range("model.safetensors", 0, 8));

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/hub/hub_settings.h"

namespace nibble {

class HubClient;

struct RemoteFile {
  std::string path;   // "model.safetensors", "onnx/model.onnx": checked, it cannot lead out of a folder
  uint64_t size = 0;  // bytes
  std::string etag;   // name among the blobs: SHA-256 of a large file (LFS), git's SHA-1 of a small one
};

// One thread at a time.
class RemoteModel {
 public:
  RemoteModel(RemoteModel&&) noexcept;
  RemoteModel& operator=(RemoteModel&&) noexcept;
  ~RemoteModel();

  const std::string& repo() const { return repo_; }                // "org/name"
  const std::string& revision() const { return revision_; }        // as it was asked for: "main"
  const std::string& commit() const { return commit_; }            // 40 hexadecimal digits; never changes
  const std::vector<RemoteFile>& files() const { return files_; }  // sorted by path
  const RemoteFile* find(std::string_view path) const;             // null if there is no such file

  // A whole file, checked against its hash. kNotFound if there is no such file, kInvalidArgument if it
  // is larger than max_bytes.
  Expected<std::string> read(std::string_view path, uint64_t max_bytes = uint64_t{64} << 20) const;
  // `length` bytes from `offset` on; kInvalidArgument past the end of the file. Not checked: hashes are
  // of whole files.
  Expected<std::vector<std::byte>> read_range(std::string_view path, uint64_t offset, uint64_t length) const;

 private:
  friend Expected<RemoteModel> open_remote(std::string_view, const HubSettings&);
  RemoteModel(std::string repo, std::string revision, std::unique_ptr<HubClient> client);

  Expected<const RemoteFile*> require(std::string_view path) const;

  std::string repo_, revision_, commit_;
  std::vector<RemoteFile> files_;
  std::unique_ptr<HubClient> client_;
};

// "org/name", "org/name@revision", "hf://...". Asks the hub twice: for the commit and for the list.
// kInvalidArgument for what is no name, kNotFound for what is not there (or not for you: the hub does not
// tell), kUnavailable without network or with HF_HUB_OFFLINE, kDataLoss for an answer that cannot be.
Expected<RemoteModel> open_remote(std::string_view repo_and_revision, const HubSettings& settings);
Expected<RemoteModel> open_remote(std::string_view repo_and_revision);  // settings from the environment

}  // namespace nibble

#endif  // NIBBLE_HUB_REMOTE_MODEL_H_
