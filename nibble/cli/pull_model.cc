#include "nibble/cli/pull_model.h"

#include <cstdio>

#include <unistd.h>

#include "nibble/base/log.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/cli/input.h"
#include "nibble/hub/download_bars.h"
#include "nibble/hub/pull.h"

namespace nibble::cli {

Status offer_pull(const ModelOption& option, const CommonOptions& common) {
  const bool can_ask = stdin_is_terminal() && ::isatty(STDERR_FILENO) == 1 && !common.quiet && !common.json;
  if (!can_ask || is_hub_offline()) return {};
  const auto missing = missing_from_cache(option.model, option.revision);
  if (!missing) return {};
  const std::string model = to_string(*missing);
  fmt::print(stderr, "{} is not in the cache. Pull it now? [y/N] ", model);
  NIBBLE_TRY(LineReader stdin_lines, LineReader::open("-"));
  std::string answer;
  NIBBLE_TRY(const bool answered, stdin_lines.next(answer));
  if (!answered || (answer != "y" && answer != "Y" && answer != "yes")) return {};
  const PullOptions options{.include = {}, .exclude = {}, .show_progress = true};
  NIBBLE_TRY(const HubSettings settings, hub_settings_from_environment());
  NIBBLE_TRY(const PullPlan plan, plan_pull(model, options, settings));
  for (const std::string& note : plan.notes) log_line(LogLevel::kNormal, note);
  NIBBLE_TRY(const PullResult result, run_pull(plan, options, settings));
  log_line(LogLevel::kNormal, fmt::format("fetched {}", size_text(result.fetched_bytes)));
  return {};
}

}  // namespace nibble::cli
