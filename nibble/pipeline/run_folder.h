#ifndef NIBBLE_PIPELINE_RUN_FOLDER_H_
#define NIBBLE_PIPELINE_RUN_FOLDER_H_

// The output folder of a quantization while it is filled. A journal inside it (".nibble") keeps what is
// finished, so that a run that was killed goes on with the same command and ends with the same bytes:
//
//   .nibble/run.json                  what the run is: model, data, settings, version
//   .nibble/modules/NAME.safetensors  the tensors of one finished module, and its row of the log
//   .nibble/stream-LAYER/             the activations before block LAYER
//
// Every file appears whole or not at all (atomic_file.h). The journal is removed when the model stands.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/tensor.h"

namespace nibble {

inline constexpr std::string_view kManifestFile = "nibble_manifest.json";

struct JournalEntry {
  std::map<std::string, Tensor> tensors;  // full name -> tensor
  Json row;                               // of the log
};

// What differs between two descriptions of a run, one line each: "group_size: 128 was, 64 is asked for".
std::vector<std::string> differences(const Json& was, const Json& is);

// One thread at a time.
class RunFolder {
 public:
  // `run` describes the run completely: two runs with equal descriptions write the same bytes.
  // Creates the folder, or takes up the unfinished run that is in it. kInvalidArgument: something else is in
  // it, or a run with another description (the message shows what differs); `overwrite` starts anew there.
  // What an earlier, complete model in it consists of is left alone until the new one is written.
  static Expected<RunFolder> open(const std::filesystem::path& folder, const Json& run, bool overwrite);
  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  // Removes the folder again if this object made it and nothing is finished in it.
  ~RunFolder();

  // The model of this very run stands there already.
  bool finished() const { return finished_; }
  size_t num_entries() const { return entries_.size(); }

  bool has(const std::string& name) const { return entries_.contains(name); }
  Expected<JournalEntry> get(const std::string& name) const;
  Status put(const std::string& name, const JournalEntry& entry);
  // The tensors that an entry has, from its file's header: nothing is read.
  Expected<std::map<std::string, TensorInfo>> tensors_of(const std::string& name) const;
  std::vector<std::string> names() const;

  // The newest activations: the block that they stand before, and the folder to load them from.
  struct Snapshot {
    size_t layer = 0;
    std::filesystem::path folder;
  };
  std::optional<Snapshot> snapshot() const;
  // Lets `save` write into a folder for `layer`; older snapshots are removed once it is complete.
  template <class Save>
  Status put_snapshot(size_t layer, Save save) {
    NIBBLE_TRY(const std::filesystem::path folder, begin_snapshot());
    NIBBLE_RETURN_IF_ERROR(save(folder));
    return end_snapshot(folder, layer);
  }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path journal() const { return path_ / ".nibble"; }

  // The model stands: removes the journal.
  Status finish();

 private:
  explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path file_of(const std::string& name) const;
  Status start(const Json& run);
  Status take_up(const Json& run, const Json& was, bool overwrite);
  Expected<std::filesystem::path> begin_snapshot();
  Status end_snapshot(const std::filesystem::path& folder, size_t layer);

  std::filesystem::path path_;
  std::map<std::string, std::filesystem::path> entries_;
  bool created_ = false;
  bool finished_ = false;
};

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_RUN_FOLDER_H_
