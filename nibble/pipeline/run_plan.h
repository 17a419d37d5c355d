#ifndef NIBBLE_PIPELINE_RUN_PLAN_H_
#define NIBBLE_PIPELINE_RUN_PLAN_H_

// What running a model will take, from headers alone: memory at its peak, and speed from what the machine
// was measured to do. docs/plan.md has the formulas and how they compare with measured runs.

#include <cstddef>
#include <map>
#include <string>

#include "nibble/linalg/machine_speed.h"
#include "nibble/models/model_source.h"
#include "nibble/nn/kv_cache.h"
#include "nibble/nn/linear_size.h"
#include "nibble/pipeline/jobs.h"

namespace nibble {

struct RunSettings {
  size_t context = 4096;  // tokens that each sequence may reach: --ctx-size
  size_t parallel = 1;    // sequences at once
  size_t prefill_chunk = 512;
  size_t threads = 1;
  KvCacheType kv_cache_type = KvCacheType::kF16;
  bool huge_pages = true;  // transparent ones are there for large buffers
};

struct RunPlan {
  size_t weight_bytes = 0;  // of all weights as they stand in memory: weight_bytes of `nibble run --json`
  // Resident once the contexts are full:
  size_t program_bytes = 0;  // the program and the tokenizer
  size_t buffer_bytes = 0;   // weights in packed buffers, norms
  size_t mapped_bytes = 0;   // weights that stay a part of the mapped file
  size_t kv_bytes = 0;       // KV caches
  size_t scratch_bytes = 0;  // activations and logits
  size_t loading_bytes = 0;  // what loading holds in the end beside weights and program
  size_t peak_memory = 0;

  size_t bytes_per_token = 0;  // read for a token behind an empty context
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;       // behind an empty context, one sequence
  double decode_full_tokens_per_second = 0;  // behind a full one
};

// How every linear layer of a model will be stored, by module.
using StorageMap = std::map<std::string, LinearStorage, std::less<>>;

// As the checkpoint has them.
Expected<StorageMap> stored_linears(const ModelSource& source);
// As a quantization will make them.
StorageMap quantized_linears(const ModelSource& source, const Jobs& jobs);

RunPlan plan_run(const ModelSource& source, const StorageMap& storage, const RunSettings& settings,
                 const linalg::MachineSpeed& speed);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_RUN_PLAN_H_
