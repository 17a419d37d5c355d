#include "nibble/pipeline/walk_driver.h"

#include <algorithm>
#include <chrono>

#include "nibble/base/log.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool quantizes_head(const Run& run) {
  return std::any_of(run.source.slots.begin(), run.source.slots.end(), [&](const ModuleSlot& slot) {
    return slot.role == ModuleRole::kHead && run.jobs.find(slot.name) != nullptr;
  });
}

bool everything_is_finished(const Run& run) {
  return std::all_of(run.jobs.modules.begin(), run.jobs.modules.end(),
                     [&](const auto& job) { return run.folder.has(job.first); });
}

}  // namespace

WalkOptions walk_options(const Run& run) {
  WalkOptions options;
  const bool f32 = run.options.compute == ComputeMode::kF32;
  options.arithmetic = f32 ? linalg::Arithmetic::kF32 : linalg::fastest_arithmetic();
  options.activations = f32 ? DType::kF32 : DType::kBF16;
  options.tokens_at_once = run.result.plan.tokens_at_once;
  if (run.result.plan.spill) options.spill = run.folder.journal();
  return options;
}

Status drive_walk(Run& run, const CalibrationData& data, const WalkOptions& options,
                  const std::function<Status(BlockWalk&, size_t layer)>& step) {
  if (everything_is_finished(run)) return {};
  BlockWalk walk(run.source, data, options, run.pool);
  size_t layer = 0;
  NIBBLE_RETURN_IF_ERROR(walk.start());
  if (const auto snapshot = run.folder.snapshot()) {
    NIBBLE_RETURN_IF_ERROR(walk.load(snapshot->folder));
    layer = snapshot->layer;
  }
  const size_t layers = run.source.config.num_hidden_layers;
  bool time_was_told = false;
  Clock::time_point saved = Clock::now();
  for (; layer < layers; ++layer) {
    const size_t finished_before = run.folder.num_entries();
    const Clock::time_point start = Clock::now();
    NIBBLE_RETURN_IF_ERROR(step(walk, layer));
    if (run.options.show_progress && !time_was_told && run.folder.num_entries() > finished_before) {
      time_was_told = true;
      const double seconds = seconds_since(start);
      log_line(LogLevel::kNormal,
               fmt::format("block {} of {} took {:.1f} s: about {:.0f} s to go", layer + 1, layers, seconds,
                           seconds * static_cast<double>(layers - layer - 1)));
    }
    if (layer + 1 < layers && seconds_since(saved) >= run.options.snapshot_seconds) {
      NIBBLE_RETURN_IF_ERROR(run.folder.put_snapshot(
          layer + 1, [&](const std::filesystem::path& folder) { return walk.save(folder); }));
      saved = Clock::now();
    }
  }
  return quantizes_head(run) ? step(walk, layers) : Status{};
}

}  // namespace nibble
