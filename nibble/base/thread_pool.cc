#include "nibble/base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <sched.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "nibble/base/cgroup.h"

namespace nibble {
namespace {

// A sleeping thread needs about 100 us to wake on a virtual machine, a decode phase lasts less:
// workers spin for this long between jobs before they sleep.
constexpr auto kSpin = std::chrono::microseconds(2000);

using Clock = std::chrono::steady_clock;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // waits for some ten cycles; "yield" does nothing on most processors
#else
  std::this_thread::yield();
#endif
}

// Waits until `value` differs from `old`: spins first, then sleeps in the kernel.
template <class T>
void wait_for_change(const std::atomic<T>& value, T old, Clock::duration spin) {
  const auto deadline = Clock::now() + spin;
  for (unsigned i = 0;; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
    if (i % 64 == 63 && Clock::now() > deadline) break;
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

size_t available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  size_t threads = std::max(1u, std::thread::hardware_concurrency());
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) threads = static_cast<size_t>(CPU_COUNT(&set));
  const double limit = read_cgroup_limits().cpus.value_or(0);
  if (limit > 0) threads = std::min(threads, static_cast<size_t>(std::max(1.0, std::ceil(limit))));
  return std::max<size_t>(1, threads);
}

ThreadPool::ThreadPool(size_t num_threads) {
  if (num_threads == 0) num_threads = available_threads();
  // With more threads than processors, who spins keeps others from working.
  spin_ = num_threads <= available_threads() ? kSpin : Clock::duration::zero();
  workers_.reserve(num_threads - 1);
  for (size_t worker = 1; worker < num_threads; ++worker) {
    workers_.emplace_back([this, worker] { worker_loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(size_t count, size_t grain, void* fn, Call call) {
  if (count == 0) return;
  grain = std::max<size_t>(1, grain);
  if (workers_.empty() || count <= grain) {
    call(fn, 0, count, 0);
    return;
  }
  job_ = {fn, call, count, grain};
  next_.store(0, std::memory_order_relaxed);
  entered_.store(kOpen, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  work(0);
  entered_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (uint32_t inside; (inside = entered_.load(std::memory_order_acquire)) != 0;) {
    wait_for_change(entered_, inside, spin_);
  }
}

// False when the job is over: its caller may be setting up the next one.
bool ThreadPool::enter() {
  uint32_t inside = entered_.load(std::memory_order_acquire);
  while ((inside & kOpen) != 0) {
    if (entered_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void ThreadPool::leave() {
  if (entered_.fetch_sub(1, std::memory_order_acq_rel) == 1) entered_.notify_one();
}

// Pieces shrink as the work does: large ones first, since a hand-out costs time and memory is read best in
// long streams, small ones last, so that nobody waits long for the one that the system slowed down.
void ThreadPool::work(size_t worker) {
  const Job& job = job_;
  const size_t shares = 2 * num_threads();
  size_t begin = next_.load(std::memory_order_relaxed);
  for (;;) {
    if (begin >= job.count) return;
    const size_t share = (job.count - begin) / shares / job.grain * job.grain;
    const size_t end = std::min(begin + std::max(job.grain, share), job.count);
    if (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
    job.call(job.fn, begin, end, worker);
    begin = next_.load(std::memory_order_relaxed);
  }
}

void ThreadPool::worker_loop(size_t worker) {
  uint64_t seen = 0;
  for (;;) {
    wait_for_change(generation_, seen, spin_);
    seen = generation_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!enter()) continue;
    work(worker);
    leave();
  }
}

}  // namespace nibble
