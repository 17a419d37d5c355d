#ifndef NIBBLE_EVALUATION_SPEED_RUNNER_H_
#define NIBBLE_EVALUATION_SPEED_RUNNER_H_

// Times workloads on a loaded model, with pseudo-random tokens, as llama-bench does.

#include <map>
#include <memory>
#include <vector>

#include "nibble/base/arena.h"
#include "nibble/base/thread_pool.h"
#include "nibble/evaluation/speed_workload.h"
#include "nibble/models/causal_lm.h"
#include "nibble/nn/kv_cache.h"

namespace nibble {

// What workloads cost, counted from the model's sizes; 0 where that cannot be said (a mixture of experts
// reads and multiplies what its router chooses).
struct WorkloadCost {
  // Decode, of one step of all sequences: every weight but the embedding once, and the keys and values of the
  // sequences at their mean length.
  double bytes_per_step = 0;
  // Prefill, of all linear layers; a multiplication and an addition are two. Attention is not counted.
  double operations = 0;
};

// One thread at a time. The model must outlive it.
class SpeedRunner {
 public:
  // workloads: all that run() will be asked for, so that those of one depth can share caches.
  SpeedRunner(const CausalLM& model, const std::vector<Workload>& workloads);

  // A short prompt and a decoded token, so that the first timing does not pay for first steps; and the caches
  // are filled up to each depth. kCancelled after Ctrl-C.
  Status prepare(ThreadPool& pool);

  // Seconds for the workload. kCancelled after Ctrl-C.
  Expected<double> run(const Workload& workload, ThreadPool& pool);

  WorkloadCost cost(const Workload& workload) const;

 private:
  // Sequences whose caches hold `depth` tokens between workloads.
  struct Sequences {
    size_t max_tokens = 0;  // room, and the length they are known to reach
    std::vector<std::unique_ptr<KvCache>> caches;
  };

  Status read(size_t count, KvCache& cache, size_t known_length, ThreadPool& pool);
  Status decode(size_t steps, Sequences& sequences, size_t batch, ThreadPool& pool);

  const CausalLM& model_;
  const double kv_bytes_per_token_;
  Arena arena_;
  std::vector<int32_t> tokens_;  // that every sequence consists of, from its start
  std::vector<float> logits_;
  std::map<size_t, Sequences> by_depth_;
};

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_SPEED_RUNNER_H_
