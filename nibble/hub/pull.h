#ifndef NIBBLE_HUB_PULL_H_
#define NIBBLE_HUB_PULL_H_

// From the hub into the cache: first a plan, which costs two requests, then the download.
//
//   NIBBLE_TRY(const PullPlan plan, plan_pull("org/name", options, settings));
//   NIBBLE_TRY(const PullResult result, run_pull(plan, options, settings));
//   find_model("org/name") finds it from now on.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/hub/hub_settings.h"
#include "nibble/hub/remote_model.h"

namespace nibble {

struct PullOptions {
  std::vector<std::string> include;  // file_choice.h; empty: what a model needs
  std::vector<std::string> exclude;
  size_t max_workers = 4;  // files at once
  bool show_progress = false;
};

struct PlannedFile {
  RemoteFile file;
  bool is_cached = false;  // the snapshot has it, or the blob is there and only the link is missing
  uint64_t partial = 0;    // bytes that an earlier download left
};

struct PullPlan {
  std::string repo, revision, commit;
  std::filesystem::path snapshot;  // where the files will be: CACHE/models--org--name/snapshots/COMMIT
  std::vector<PlannedFile> files;
  std::vector<std::string> notes;  // what was left out, and why
  uint64_t total_bytes = 0;
  uint64_t bytes_to_fetch = 0;  // each blob once
};

// `name`: "org/name@revision:QUANT" (RepoName). Errors of open_remote() and choose_files().
Expected<PullPlan> plan_pull(std::string_view name, const PullOptions& options, const HubSettings& settings);

struct PullResult {
  uint64_t fetched_bytes = 0;  // over the network
  size_t fetched_files = 0;
};

// kUnavailable if the disk has not got the room. After an error, or Ctrl-C (kCancelled), what has come
// is kept, and the same call goes on; refs/REVISION names the commit only once all of it is there.
Expected<PullResult> run_pull(const PullPlan& plan, const PullOptions& options, const HubSettings& settings);

}  // namespace nibble

#endif  // NIBBLE_HUB_PULL_H_
