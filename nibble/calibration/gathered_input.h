#ifndef NIBBLE_CALIBRATION_GATHERED_INPUT_H_
#define NIBBLE_CALIBRATION_GATHERED_INPUT_H_

// Statistics of one input while they grow. Formulas: docs/quantizers.md. Inside calibration/ only.

#include <string>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/calibration/block_walk.h"
#include "nibble/calibration/linear_stack.h"

namespace nibble {

struct WalkState;  // walk_state.h

// What the sums of the mismatch are.
enum class MismatchKind {
  kInputs,  // M [in, in]: of (x_float - x) xᵀ
  kShift,   // D [out, in], the shift of the outputs: of d xᵀ
  kTarget,  // D + alpha W G [out, in]: of (d + alpha W x) xᵀ
};

struct GatheredInput {
  // mismatch_rows: in for M, out for D, 0 for neither.
  GatheredInput(size_t width, size_t mismatch_rows)
      : gram(width * width * sizeof(float)),
        mismatch_sums(mismatch_rows * width * sizeof(float)),
        magnitudes(width),
        in(width),
        rows(mismatch_rows) {}

  MatrixView<float> gram_view() { return {gram.as<float>(), in, in}; }
  MatrixView<float> mismatch_view() { return {mismatch_sums.as<float>(), rows, in}; }

  AlignedBuffer gram;  // [in, in]: sum of x xᵀ, its lower triangle until it is finished
  AlignedBuffer mismatch_sums;
  std::vector<double> magnitudes;  // sum of |x|
  std::vector<float> mean_abs;     // once it is finished
  size_t in;
  size_t rows;  // of the mismatch
  MismatchKind mismatch = MismatchKind::kInputs;
  size_t tokens = 0;
};

// Adds tokens. x: [tokens, in].
void add_gram(GatheredInput& seen, MatrixView<const float> x, linalg::Arithmetic arithmetic,
              ThreadPool& pool);
// difference: [tokens, rows of the mismatch].
void add_mismatch(GatheredInput& seen, MatrixView<const float> difference, MatrixView<const float> x,
                  linalg::Arithmetic arithmetic, ThreadPool& pool);

// From sums to means. kDataLoss where an input was not finite; `reader` is a module that reads it.
Expected<InputStatistics> finish(GatheredInput& seen, const std::string& reader, ThreadPool& pool);

// Hands the linears over to be quantized; `seen` is null for those that are known. Fills stack.quantized.
Status quantize_stack(WalkState& state, LinearStack& stack, GatheredInput* seen, const WalkSteps& steps);
bool is_known(const WalkSteps& steps, const LinearStack& stack);

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_GATHERED_INPUT_H_
