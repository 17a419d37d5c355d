#ifndef NIBBLE_PIPELINE_PLAN_H_
#define NIBBLE_PIPELINE_PLAN_H_

// What a quantization will take, said before it starts.

#include <filesystem>
#include <string>
#include <vector>

#include "nibble/models/model_source.h"
#include "nibble/pipeline/jobs.h"

namespace nibble {

struct QuantizePlan {
  size_t modules = 0;
  size_t weights = 0;             // elements of these modules
  size_t calibration_tokens = 0;  // 0: no calibration
  size_t output_bytes = 0;        // all tensors
  double bits_per_weight = 0.0;   // of the quantized modules, all their tensors counted
  size_t journal_bytes = 0;       // on disk beside the output while it runs
  size_t peak_memory = 0;         // resident bytes, mapped pages included
  double seconds = 0.0;
  bool spill = false;                  // activations go to a file
  size_t tokens_at_once = 2048;        // worked on together
  double operations = 0.0;             // floating-point operations of all phases
  double operations_per_second = 0.0;  // measured here
};

// calibration: lengths of the sequences; empty without calibration. operations_per_second: what
// linalg::measure_gemm() gave; 0: it is measured now.
Expected<QuantizePlan> make_plan(const ModelSource& source, const Jobs& jobs, const QuantizeOptions& options,
                                 const std::vector<size_t>& calibration, ThreadPool& pool,
                                 double operations_per_second = 0);

// kOutOfMemory where the memory or the disk does not suffice; the fix names the flag that would make it fit.
Status check_fits(const QuantizePlan& plan, const QuantizeOptions& options,
                  const std::filesystem::path& folder);

// "210 modules, 106 M weights -> 59 MB, 4.25 bits per weight; peak memory about 310 MB; about 70 s".
std::string to_text(const QuantizePlan& plan);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_PLAN_H_
