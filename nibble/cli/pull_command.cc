#include <memory>

#include "nibble/base/log.h"
#include "nibble/checkpoint/gguf_files.h"
#include "nibble/checkpoint/hub_cache.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/hub/download_bars.h"
#include "nibble/hub/pull.h"

namespace nibble::cli {
namespace {

constexpr int64_t kMaxWorkers = 32;

struct PullArguments {
  CommonOptions common;
  ModelOption model;
  PullOptions pull;
  std::optional<int64_t> max_workers;
  bool dry_run = false;
};

Json to_json(const PullPlan& plan) {
  Json files = Json::array();
  for (const PlannedFile& planned : plan.files) {
    files.push_back({{"path", planned.file.path},
                     {"size", planned.file.size},
                     {"etag", planned.file.etag},
                     {"cached", planned.is_cached}});
  }
  return {{"repo", plan.repo},
          {"revision", plan.revision},
          {"commit", plan.commit},
          {"path", plan.snapshot},
          {"total_bytes", plan.total_bytes},
          {"bytes_to_fetch", plan.bytes_to_fetch},
          {"files", files},
          {"notes", plan.notes}};
}

std::string to_text(const PullPlan& plan) {
  std::string text;
  for (const PlannedFile& planned : plan.files) {
    std::string state;
    if (planned.is_cached) {
      state = "  in the cache";
    } else if (planned.partial > 0) {
      state = fmt::format("  {} of it in the cache", size_text(planned.partial));
    }
    text += fmt::format("{:>10}  {}{}\n", size_text(planned.file.size), planned.file.path, state);
  }
  return text + fmt::format("{} to fetch into {}\n", size_text(plan.bytes_to_fetch), plan.snapshot.string());
}

Status print_offline(const PullArguments& options, const RepoName& name,
                     const std::filesystem::path& snapshot) {
  log_line(LogLevel::kNormal, "HF_HUB_OFFLINE is set: this is what the cache has; the hub was not asked");
  if (!options.common.json) return write_stdout(snapshot.string() + "\n");
  return write_json(
      {{"repo", name.repo}, {"revision", name.revision}, {"path", snapshot}, {"offline", true}});
}

Status run_pull(const PullArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_TRY(const HubSettings settings, hub_settings_from_environment());
  PullOptions pull = options.pull;
  pull.max_workers =
      static_cast<size_t>(options.max_workers.value_or(static_cast<int64_t>(pull.max_workers)));
  pull.show_progress = true;
  const auto name = parse_repo_name(options.model.model, options.model.revision);
  if (name && settings.offline && !options.dry_run) {
    const auto snapshot = find_snapshot(settings.cache / repo_folder_name(name->repo), *name);
    const bool has_quant = !missing_from_cache(options.model.model, options.model.revision);
    if (snapshot && has_quant) return print_offline(options, *name, *snapshot);
  }
  NIBBLE_TRY(const PullPlan plan, plan_pull(name ? to_string(*name) : options.model.model, pull, settings));
  for (const std::string& note : plan.notes) log_line(LogLevel::kNormal, note);
  if (options.dry_run) return options.common.json ? write_json(to_json(plan)) : write_stdout(to_text(plan));
  NIBBLE_TRY(const PullResult result, run_pull(plan, pull, settings));
  log_line(LogLevel::kNormal, result.fetched_files == 0
                                  ? fmt::format("{} files, all in the cache", plan.files.size())
                                  : fmt::format("{} files, {} of them fetched ({})", plan.files.size(),
                                                result.fetched_files, size_text(result.fetched_bytes)));
  for (const PlannedFile& planned : plan.files) {
    const auto part = parse_gguf_part_name(planned.file.path);
    if (!planned.file.path.ends_with(".gguf") || (part && part->number > 1)) continue;
    log_line(LogLevel::kNormal, "MODEL is the file: " + (plan.snapshot / planned.file.path).string());
  }
  if (!options.common.json) return write_stdout(plan.snapshot.string() + "\n");
  Json json = to_json(plan);
  json["fetched_bytes"] = result.fetched_bytes;
  json["fetched_files"] = result.fetched_files;
  json["warnings"] = warnings();
  return write_json(json);
}

Action define_pull(CLI::App& app) {
  const auto options = std::make_shared<PullArguments>();
  app.add_option("MODEL,-m,--model", options->model.model,
                 "A name in the hub: org/name, org/name@revision, org/name:Q4_K_M")
      ->type_name("MODEL");
  app.add_option("--revision", options->model.revision, "Branch, tag or commit of a name without @revision")
      ->type_name("NAME");
  app.add_option("--include", options->pull.include,
                 "Fetch these files instead of what a model needs; may be repeated")
      ->type_name("GLOB")
      ->allow_extra_args(false);
  app.add_option("--exclude", options->pull.exclude, "But not these; may be repeated")
      ->type_name("GLOB")
      ->allow_extra_args(false);
  add_integer(app, "--max-workers", options->max_workers, "Files at once (default 4)", 1, kMaxWorkers);
  app.add_flag("--dry-run", options->dry_run, "List what would be fetched, and stop");
  add_common_options(app, options->common, "Print the list of files as JSON");
  return [options] { return run_pull(*options); };
}

}  // namespace

const Command kPullCommand = {
    .name = "pull",
    .summary =
        "Fetch a model from the Hugging Face hub into the cache. A download that was interrupted goes on "
        "with "
        "the same command",
    .examples =
        "  nibble pull org/name\n"
        "  nibble pull org/name@v1.0 --dry-run\n"
        "  nibble pull org/name-GGUF:Q4_K_M          # one of its GGUF files\n"
        "  nibble pull org/name --include '*.json' --include '*.md'\n"
        "  HF_TOKEN=hf_... nibble pull org/gated-name",
    .define = define_pull,
};

}  // namespace nibble::cli
