#ifndef NIBBLE_PIPELINE_CONVERT_PROOF_H_
#define NIBBLE_PIPELINE_CONVERT_PROOF_H_

// That a converted file holds what it was made of: both are decoded, module by module, and compared bit by
// bit.

#include <filesystem>
#include <span>

#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/pipeline/convert_plan.h"

namespace nibble {

struct Proof {
  size_t modules = 0;  // exact: codes, order, scales, zero points and every weight are the same
  size_t tensors = 0;  // that were copied: the same bytes
};

// written: the result's tensors. kDataLoss for the first difference from the plan: a damaged disk, or a bug.
Expected<Proof> prove_conversion(const ModelSource& source, const Checkpoint& written,
                                 const ConversionPlan& plan, ThreadPool& pool, bool show_progress);

// The same of tensors that are written as they are loaded: each is loaded again. Returns how many there are.
Expected<size_t> prove_tensors(std::span<const TensorSource> tensors, const std::filesystem::path& folder);

// Whether both stand for the same weights, by the formulas of their formats: every float has the same bits.
bool same_weights(const QuantizedWeight& a, const QuantizedWeight& b, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_CONVERT_PROOF_H_
