#ifndef NIBBLE_BASE_THREAD_POOL_H_
#define NIBBLE_BASE_THREAD_POOL_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace nibble {

// A fixed set of threads that share loops. Created once, passed by reference. The calling thread
// takes part as worker 0, so a pool of one has no threads of its own. Loops do not nest, and one
// thread at a time may start them.
class ThreadPool {
 public:
  // 0: as many as this process may use (affinity mask and cgroup limit).
  explicit ThreadPool(size_t num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t num_threads() const { return workers_.size() + 1; }

  // Calls fn(begin, end, worker) for disjoint ranges that cover [0, count); returns when all are
  // done. Ranges are multiples of `grain` long (but the last) and are handed out as workers ask
  // for them, large ones first, so a slow core does less. Which worker gets which range changes from run to
  // run: results may depend on the ranges' content only. worker < num_threads(), for scratch memory.
  template <class Fn>
  void parallel_for(size_t count, size_t grain, Fn&& fn) {
    run(count, grain, const_cast<std::remove_const_t<std::remove_reference_t<Fn>>*>(&fn),
        [](void* f, size_t begin, size_t end, size_t worker) {
          (*static_cast<std::remove_reference_t<Fn>*>(f))(begin, end, worker);
        });
  }

 private:
  using Call = void (*)(void* fn, size_t begin, size_t end, size_t worker);
  struct Job {
    void* fn = nullptr;
    Call call = nullptr;
    size_t count = 0;
    size_t grain = 1;
  };

  void run(size_t count, size_t grain, void* fn, Call call);
  bool enter();
  void leave();
  void work(size_t worker);
  void worker_loop(size_t worker);

  std::chrono::steady_clock::duration spin_{};  // how long to spin before sleeping
  Job job_;
  alignas(64) std::atomic<size_t> next_ = 0;          // first index nobody has taken
  alignas(64) std::atomic<uint64_t> generation_ = 0;  // counts jobs
  // Whether workers may enter the job (kOpen), and how many are in it. The caller waits for those
  // alone: one whose processor was taken away and that never came misses nothing.
  static constexpr uint32_t kOpen = 1u << 31;
  alignas(64) std::atomic<uint32_t> entered_ = 0;
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> workers_;
};

// How many threads this process may usefully run.
size_t available_threads();

}  // namespace nibble

#endif  // NIBBLE_BASE_THREAD_POOL_H_
