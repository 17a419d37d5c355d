#include "nibble/base/cancel.h"

#include <atomic>
#include <csignal>

#include <unistd.h>

namespace nibble {
namespace {

std::atomic<bool> g_cancelled = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // it is touched in a signal handler

void on_signal(int signal) {
  if (g_cancelled.exchange(true)) _exit(128 + signal);
}

}  // namespace

void install_cancel_handler() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool cancel_requested() { return g_cancelled.load(std::memory_order_relaxed); }
void request_cancel() { g_cancelled = true; }
void reset_cancel() { g_cancelled = false; }

Status check_cancelled() {
  if (cancel_requested()) return fail(ErrorCode::kCancelled, "interrupted");
  return {};
}

}  // namespace nibble
