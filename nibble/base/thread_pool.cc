#include "nibble/base/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include <sched.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "nibble/base/cgroup.h"
#include "nibble/base/numa.h"

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

size_t count_cpus(std::span<const NumaNode> nodes) {
  size_t count = 0;
  for (const NumaNode& node : nodes) count += node.cpus.size();
  return count;
}

}  // namespace

size_t available_threads(const std::vector<NumaNode>& nodes) {
  cpu_set_t set;
  CPU_ZERO(&set);
  size_t threads = std::max(1u, std::thread::hardware_concurrency());
  if (!nodes.empty()) {
    threads = count_cpus(nodes);
  } else if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    threads = static_cast<size_t>(CPU_COUNT(&set));
  }
  const double limit = read_cgroup_limits().cpus.value_or(0);
  if (limit > 0) threads = std::min(threads, static_cast<size_t>(std::max(1.0, std::ceil(limit))));
  return std::max<size_t>(1, threads);
}

ThreadPool::ThreadPool(size_t num_threads, const std::vector<NumaNode>& nodes) {
  const size_t available = available_threads(nodes);
  if (num_threads == 0) num_threads = available;
  // With more threads than processors, who spins keeps others from working.
  spin_ = num_threads <= available ? kSpin : Clock::duration::zero();
  num_nodes_ = std::clamp<size_t>(nodes.size(), 1, num_threads);
  nodes_ = std::make_unique<Node[]>(num_nodes_);
  nodes_[0].last = num_threads;
  if (num_nodes_ > 1) {
    const std::span used(nodes.data(), num_nodes_);
    for (size_t n = 0; n < num_nodes_; ++n) {
      // In proportion to the processors, and one for each at least.
      const size_t share = num_threads * count_cpus(used.first(n + 1)) / count_cpus(used);
      nodes_[n].first = n == 0 ? 0 : nodes_[n - 1].last;
      nodes_[n].last = std::clamp(share, nodes_[n].first + 1, num_threads - (num_nodes_ - 1 - n));
    }
  }
  workers_.reserve(num_threads - 1);
  for (size_t n = 0; n < num_nodes_; ++n) {
    for (size_t worker = std::max<size_t>(nodes_[n].first, 1); worker < nodes_[n].last; ++worker) {
      workers_.emplace_back([this, worker, place = nodes.empty() ? NumaNode() : nodes[n]] {
        // A system that refuses costs speed alone.
        if (!place.cpus.empty()) static_cast<void>(stay_on(place));
        worker_loop(worker);
      });
    }
  }
  if (!nodes.empty()) static_cast<void>(stay_on(nodes.front()));
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(std::span<const size_t> counts, size_t grain, void* fn, Call call) {
  const size_t count = std::reduce(counts.begin(), counts.end());
  if (count == 0) return;
  grain = std::max<size_t>(1, grain);
  if (workers_.empty() || count <= grain) {
    for (size_t part = 0; part < counts.size(); ++part) {
      if (counts[part] > 0) call(fn, part, 0, counts[part], 0);
    }
    return;
  }
  job_ = {fn, call, counts, grain};
  for (size_t n = 0; n < num_nodes_; ++n) nodes_[n].next.store(0, std::memory_order_relaxed);
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

// Where the share of the workers from first_worker on begins in a part of `count`: the same for all loops of
// one length, whatever they do.
size_t ThreadPool::share_begin(size_t count, size_t first_worker) const {
  if (first_worker == num_threads()) return count;
  return count * first_worker / num_threads() / job_.grain * job_.grain;
}

void ThreadPool::work(size_t worker) {
  size_t own = 0;
  while (worker >= nodes_[own].last) ++own;
  for (size_t n = 0; n < num_nodes_; ++n) work_on(nodes_[(own + n) % num_nodes_], worker);
}

// Pieces shrink as the work does: large ones first, since a hand-out costs time and memory is read best in
// long streams, small ones last, so that nobody waits long for the one that the system slowed down.
void ThreadPool::work_on(Node& node, size_t worker) {
  const Job& job = job_;
  size_t total = 0;
  for (const size_t count : job.counts)
    total += share_begin(count, node.last) - share_begin(count, node.first);
  const size_t shares = 2 * (node.last - node.first);
  size_t begin = node.next.load(std::memory_order_relaxed);
  while (begin < total) {
    const size_t share = (total - begin) / shares / job.grain * job.grain;
    const size_t end = std::min(begin + std::max(job.grain, share), total);
    if (!node.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
    size_t before = 0;  // of the node's indices, those of earlier parts
    for (size_t part = 0; part < job.counts.size(); ++part) {
      const size_t from = share_begin(job.counts[part], node.first);
      const size_t size = share_begin(job.counts[part], node.last) - from;
      const size_t low = std::max(begin, before);
      const size_t high = std::min(end, before + size);
      if (low < high) job.call(job.fn, part, from + low - before, from + high - before, worker);
      before += size;
    }
    begin = node.next.load(std::memory_order_relaxed);
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
