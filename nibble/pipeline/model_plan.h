#ifndef NIBBLE_PIPELINE_MODEL_PLAN_H_
#define NIBBLE_PIPELINE_MODEL_PLAN_H_

// What it takes to run a model as it is and as each method would make it, and to quantize it so: before a
// weight is read.

#include <optional>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/pipeline/method.h"
#include "nibble/pipeline/plan.h"
#include "nibble/pipeline/run_plan.h"

namespace nibble {

struct ModelPlanOptions {
  std::vector<Method> methods = {};    // none: kPlannedMethods of a float model, a quantized one as it is
  std::optional<size_t> context = {};  // nothing: what the model was made for, 4096 at most
  size_t parallel = 1;
  size_t max_memory = 0;        // bytes; 0: available_memory
  size_t available_memory = 0;  // of the machine; 0: not known, everything fits
  bool huge_pages = true;
  KvCacheType kv_cache_type = KvCacheType::kF16;
};

struct PlanRow {
  std::string method;          // "float", "gptq:4:64", "gptq:4:64:best"
  size_t disk_bytes = 0;       // all tensors
  double bits_per_weight = 0;  // of the linear layers, all their tensors counted
  RunPlan run;
  std::optional<QuantizePlan> quantize = {};  // nothing: the model is stored so
  bool runs = true;                           // within the memory
  bool can_be_quantized = true;               // likewise, here
};

struct ModelPlan {
  std::string model;
  size_t context = 0;
  size_t parallel = 1;
  size_t memory = 0;             // what may be taken; 0: not known
  bool memory_is_limit = false;  // it was set by max_memory
  std::vector<PlanRow> rows;
  std::vector<std::string> left_out;  // methods that this model cannot have, each with the reason
};

// kInvalidArgument: a quantized model with other methods than "float", which is then called what it is; a
// context or a method that the model cannot have.
Expected<ModelPlan> plan_model(const ModelSource& source, const ModelPlanOptions& options,
                               const linalg::MachineSpeed& speed, ThreadPool& pool);

// kOutOfMemory where no row runs; the fix names what would.
Status check_any_runs(const ModelPlan& plan);

Json to_json(const QuantizePlan& plan);
Json to_json(const ModelPlan& plan);
std::string to_text(const ModelPlan& plan);  // a table of at most 80 columns

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_MODEL_PLAN_H_
