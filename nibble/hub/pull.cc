#include "nibble/hub/pull.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <set>
#include <system_error>
#include <thread>

#include "nibble/hub/download_bars.h"
#include "nibble/hub/fetch_blob.h"
#include "nibble/hub/file_choice.h"
#include "nibble/hub/hub_client.h"
#include "nibble/hub/repo_cache.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kGoesOn = "What has come is kept: the same command goes on from there.";

// The nearest folder that is there: the cache may not be, yet.
fs::path existing_folder(fs::path path) {
  std::error_code error;
  while (!path.empty() && path != path.parent_path() && !fs::exists(path, error)) path = path.parent_path();
  return path.empty() ? "." : path;
}

Status check_room(const fs::path& folder, uint64_t needed) {
  if (needed == 0) return {};
  std::error_code error;
  const fs::space_info space = fs::space(existing_folder(folder), error);
  if (error || space.available >= needed) return {};
  return fail(ErrorCode::kUnavailable, "{} are to be fetched, but the disk has only {} left",
              size_text(needed), size_text(space.available))
      .at(folder.string())
      .with_fix("Make room, or let HF_HUB_CACHE name a folder on a larger disk.");
}

// What the workers share.
class Download {
 public:
  Download(const PullPlan& plan, const PullOptions& options, const HubSettings& settings)
      : plan_(plan),
        settings_(settings),
        cache_(settings.cache, plan.repo),
        num_workers_(std::clamp<size_t>(options.max_workers, 1, std::max<size_t>(1, plan.files.size()))),
        bars_(num_workers_, plan.total_bytes, bytes_there(plan), options.show_progress) {}

  Expected<PullResult> run() {
    NIBBLE_RETURN_IF_ERROR(cache_.create());
    std::vector<std::thread> workers;
    for (size_t i = 1; i < num_workers_; ++i) workers.emplace_back([this, i] { work(i); });
    work(0);
    for (std::thread& worker : workers) worker.join();
    if (error_) return Failure(*std::move(error_));
    NIBBLE_RETURN_IF_ERROR(cache_.write_ref(plan_.revision, plan_.commit));
    return result_;
  }

 private:
  static uint64_t bytes_there(const PullPlan& plan) {
    uint64_t bytes = 0;
    for (const PlannedFile& planned : plan.files)
      bytes += planned.is_cached ? planned.file.size : planned.partial;
    return bytes;
  }

  void work(size_t worker) {
    const Status status = fetch_files(worker);
    if (status) return;
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = status.error();  // the others end with kCancelled because of it
    stop_ = true;
  }

  Status fetch_files(size_t worker) {
    NIBBLE_TRY(HubClient client, HubClient::create(settings_, RepoName{plan_.repo, plan_.revision}));
    client.set_stop(&stop_);
    while (!stop_) {
      const size_t i = next_++;
      if (i >= plan_.files.size()) return {};
      NIBBLE_RETURN_IF_ERROR(at(plan_.repo, fetch(client, plan_.files[i], worker)));
    }
    return {};
  }

  Status fetch(HubClient& client, const PlannedFile& planned, size_t worker) {
    const RemoteFile& file = planned.file;
    if (cache_.has_file(plan_.commit, file)) return {};
    if (!cache_.has_blob(file)) {
      bars_.begin(worker, file.path, file.size, planned.partial);
      FetchEvents events;
      events.on_bytes = [&](uint64_t there) { bars_.set(worker, there); };
      events.on_wait = [&](std::string_view why, std::chrono::milliseconds wait) {
        log_wait(fmt::format("{}: {}", file.path, why), wait);
        bars_.note(worker, fmt::format("waits: {}", why));
      };
      auto received = fetch_blob(client, plan_.commit, file, cache_, events);
      bars_.end(worker);
      if (!received) return Failure(std::move(received).error());
      const std::lock_guard lock(mutex_);
      result_.fetched_bytes += *received;
      result_.fetched_files += 1;
    }
    return cache_.link(plan_.commit, file);
  }

  const PullPlan& plan_;
  const HubSettings& settings_;
  const RepoCache cache_;
  const size_t num_workers_;
  DownloadBars bars_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;  // guards what follows
  PullResult result_;
  std::optional<Error> error_;
};

}  // namespace

Expected<PullPlan> plan_pull(std::string_view name, const PullOptions& options, const HubSettings& settings) {
  NIBBLE_TRY(const RemoteModel model, open_remote(name, settings));
  const std::string quant = parse_repo_name(name)->quant;
  NIBBLE_TRY(FileChoice choice,
             at(model.repo(), choose_files(model.files(), options.include, options.exclude, quant)));
  const RepoCache cache(settings.cache, model.repo());
  PullPlan plan{.repo = model.repo(),
                .revision = model.revision(),
                .commit = model.commit(),
                .snapshot = cache.snapshot(model.commit()),
                .files = {},
                .notes = std::move(choice.notes)};
  std::set<std::string> blobs;
  for (const RemoteFile& file : choice.files) {
    PlannedFile planned{.file = file,
                        .is_cached = cache.has_file(plan.commit, file) || cache.has_blob(file),
                        .partial = cache.partial_bytes(file)};
    plan.total_bytes += file.size;
    if (!planned.is_cached && blobs.insert(file.etag).second)
      plan.bytes_to_fetch += file.size - planned.partial;
    plan.files.push_back(std::move(planned));
  }
  return plan;
}

Expected<PullResult> run_pull(const PullPlan& plan, const PullOptions& options, const HubSettings& settings) {
  NIBBLE_RETURN_IF_ERROR(check_room(settings.cache, plan.bytes_to_fetch));
  auto result = Download(plan, options, settings).run();
  if (result) return result;
  Error error = std::move(result).error();
  if (error.code == ErrorCode::kCancelled || error.code == ErrorCode::kUnavailable) {
    return Failure(std::move(error).with_fix(kGoesOn));
  }
  return Failure(std::move(error));
}

}  // namespace nibble
