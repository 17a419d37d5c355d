#include "nibble/base/cancel.h"

#include <atomic>
#include <csignal>

#include <unistd.h>

namespace nibble {
namespace {

std::atomic<int> g_signal = 0;                         // that came first; 0: none
static_assert(std::atomic<int>::is_always_lock_free);  // it is touched in a signal handler

void on_signal(int signal) {
  if (g_signal.exchange(signal) != 0) _exit(128 + signal);
}

}  // namespace

void install_cancel_handler() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool cancel_requested() { return g_signal.load(std::memory_order_relaxed) != 0; }
bool termination_requested() { return g_signal.load(std::memory_order_relaxed) == SIGTERM; }
void request_cancel() { g_signal = SIGINT; }
void reset_cancel() { g_signal = 0; }

Status check_cancelled() {
  if (cancel_requested()) return fail(ErrorCode::kCancelled, "interrupted");
  return {};
}

}  // namespace nibble
