#ifndef NIBBLE_BASE_THREAD_POOL_H_
#define NIBBLE_BASE_THREAD_POOL_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <type_traits>
#include <vector>

#include "nibble/base/machine.h"

namespace nibble {

// A fixed set of threads that share loops. Created once, passed by reference. The calling thread
// takes part as worker 0, so a pool of one has no threads of its own. Loops do not nest, and one
// thread at a time may start them.
class ThreadPool {
 public:
  // num_threads 0: as many as this process may use (affinity mask and cgroup limit).
  // nodes: the workers are shared out among them by their processors and stay there, the caller as well;
  // every loop is split in the same way, so that a node's memory is read by whom it was first touched by.
  // Empty: the system places them.
  explicit ThreadPool(size_t num_threads = 0, const std::vector<NumaNode>& nodes = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t num_threads() const { return workers_.size() + 1; }

  // Calls fn(begin, end, worker) for disjoint ranges that cover [0, count); returns when all are
  // done. Ranges are multiples of `grain` long (but the last) and are handed out as workers ask
  // for them, large ones first, so a slow core does less. Which worker gets which range changes from run to
  // run: results may depend on the ranges' content only. worker < num_threads(), for scratch memory.
  // With several nodes, a range is handed to another node's worker when that has done its own.
  template <class Fn>
  void parallel_for(size_t count, size_t grain, Fn&& fn) {
    parallel_for_parts({&count, 1}, grain,
                       [&](size_t, size_t begin, size_t end, size_t worker) { fn(begin, end, worker); });
  }

  // Several loops as one: fn(part, begin, end, worker) for ranges that cover [0, counts[part]) of each part.
  template <class Fn>
  void parallel_for_parts(std::span<const size_t> counts, size_t grain, Fn&& fn) {
    run(counts, grain, const_cast<std::remove_const_t<std::remove_reference_t<Fn>>*>(&fn),
        [](void* f, size_t part, size_t begin, size_t end, size_t worker) {
          (*static_cast<std::remove_reference_t<Fn>*>(f))(part, begin, end, worker);
        });
  }

 private:
  using Call = void (*)(void* fn, size_t part, size_t begin, size_t end, size_t worker);
  struct Job {
    void* fn = nullptr;
    Call call = nullptr;
    std::span<const size_t> counts;
    size_t grain = 1;
  };
  // Workers [first, last), and the first index of their share of the job that nobody has taken; the
  // node's shares of the parts follow one another.
  struct alignas(64) Node {
    size_t first = 0;
    size_t last = 0;
    std::atomic<size_t> next = 0;
  };

  void run(std::span<const size_t> counts, size_t grain, void* fn, Call call);
  bool enter();
  void leave();
  void work(size_t worker);
  void work_on(Node& node, size_t worker);
  size_t share_begin(size_t count, size_t first_worker) const;
  void worker_loop(size_t worker);

  std::chrono::steady_clock::duration spin_{};  // how long to spin before sleeping
  Job job_;
  size_t num_nodes_ = 1;
  std::unique_ptr<Node[]> nodes_;
  alignas(64) std::atomic<uint64_t> generation_ = 0;  // counts jobs
  // Whether workers may enter the job (kOpen), and how many are in it. The caller waits for those
  // alone: one whose processor was taken away and that never came misses nothing.
  static constexpr uint32_t kOpen = 1u << 31;
  alignas(64) std::atomic<uint32_t> entered_ = 0;
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> workers_;
};

// How many threads this process may usefully run, on these nodes if there are any.
size_t available_threads(const std::vector<NumaNode>& nodes = {});

}  // namespace nibble

#endif  // NIBBLE_BASE_THREAD_POOL_H_
