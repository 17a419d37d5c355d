#include "nibble/hub/retry.h"

#include <algorithm>
#include <thread>

#include "nibble/base/cancel.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

// In slices, so that Ctrl-C need not wait.
Status wait(std::chrono::milliseconds duration, const std::atomic<bool>* stop) {
  const auto end = Clock::now() + duration;
  while (true) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    if (stop != nullptr && *stop) return fail(ErrorCode::kCancelled, "interrupted");
    const auto now = Clock::now();
    if (now >= end) return {};
    std::this_thread::sleep_for(std::min<Clock::duration>(end - now, std::chrono::milliseconds(50)));
  }
}

}  // namespace

Status with_retries(const HubTiming& timing, const OnWait& on_wait, const std::atomic<bool>* stop,
                    const std::function<Expected<Attempt>()>& attempt) {
  int tries = 0;
  std::chrono::milliseconds pause = timing.first_wait;
  while (true) {
    NIBBLE_TRY(const Attempt result, attempt());
    if (result.trouble.empty()) return {};
    if (result.made_progress) {
      tries = 0;
      pause = timing.first_wait;
    }
    if (++tries >= timing.attempts) {
      return fail(ErrorCode::kUnavailable, "{} ({} tries)", result.trouble, tries)
          .with_fix("Try again later; what has come is kept.");
    }
    const auto next = std::max(pause, result.wait_at_least);
    if (next > timing.longest_wait) {
      return fail(ErrorCode::kUnavailable, "{}; the server asks to wait for {} s", result.trouble,
                  std::chrono::duration_cast<std::chrono::seconds>(next).count())
          .with_fix("Try again after that time; what has come is kept.");
    }
    if (on_wait) on_wait(result.trouble, next);
    NIBBLE_RETURN_IF_ERROR(wait(next, stop));
    pause = std::min(2 * pause, timing.longest_wait);
  }
}

}  // namespace nibble
