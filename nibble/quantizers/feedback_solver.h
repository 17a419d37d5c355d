#ifndef NIBBLE_QUANTIZERS_FEEDBACK_SOLVER_H_
#define NIBBLE_QUANTIZERS_FEEDBACK_SOLVER_H_

// Rounds a weight to an affine grid with less damage than GPTQ, in the same format: error feedback
// from one Cholesky factor, grids chosen by simulated feedback, exact least-squares scales, coordinate
// descent on the codes, and a shifted target that repairs what earlier layers broke. docs/quantizers.md
// has the equations and what each step gives.

#include "nibble/base/cpu_target.h"
#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"
#include "nibble/quantizers/factored_hessian.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

// The steps, so that each can be measured alone; solver_steps() has the choices of an Effort.
struct SolverSteps {
  size_t grid_candidates = 24;  // scales per group that are scored cheaply (K)
  size_t grid_simulations = 6;  // of them, those whose feedback is simulated (M); 1: the cheap score decides
  size_t refine_rounds = 2;     // least-squares scales, then a sweep of coordinate descent
  size_t group_sweeps = 0;      // block descent over groups after that, each followed by a sweep
};
SolverSteps solver_steps(Effort effort);  // not kCompat

// weight: [out_features, in_features] in the natural order of inputs. shift: D of the target
// W' = W + D Hd⁻¹, [out_features, in_features], natural order, or empty (data() == nullptr). The shift
// is halved until its size is at most a quarter of the weight's, in the metric of Hd.
// The same bytes for any number of threads. The hessian's order must keep groups together, or, with
// desc_act, be the one that the groups are runs of. The reported loss is that of scale * (code - zero)
// before its rounding to float16. kInvalidArgument where shapes differ or the weight is not finite.
Expected<SolvedWeight> solve_with_feedback(MatrixView<const float> weight, MatrixView<const float> shift,
                                           const FactoredHessian& hessian, const GptqSettings& settings,
                                           const SolverSteps& steps, ThreadPool& pool,
                                           CpuTarget target = cpu_target());

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_FEEDBACK_SOLVER_H_
