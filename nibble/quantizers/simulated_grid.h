#ifndef NIBBLE_QUANTIZERS_SIMULATED_GRID_H_
#define NIBBLE_QUANTIZERS_SIMULATED_GRID_H_

// The scale and zero point of one group for each lane of a row block. Candidates are scored cheaply,
// by rounding without feedback; of the best few the error feedback inside the group is carried out,
// and what that loses decides.

#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/quantizers/feedback_solver.h"
#include "nibble/quantizers/lane_kernels.h"

namespace nibble {

// The grids in use, one per lane, in the forms that the kernels read.
struct LaneGrids {
  float scale[kMaxLanes] = {};
  float zero[kMaxLanes] = {};
  float inverse[kMaxLanes] = {};
  float low[kMaxLanes] = {};
  float high[kMaxLanes] = {};

  void set(size_t lane, float lane_scale, float lane_zero, float max_code);
  LaneGrid view() const { return {scale, inverse, low, high}; }
};

// The nearest float16 that can be a scale: finite and not 0.
float usable_scale(float scale);

struct GroupProblem {
  Sweep sweep;                    // over the group; starts with the feedback of earlier groups
  const float* target = nullptr;  // [width, lanes]
  const float* weight = nullptr;  // [width]: R_jj^2
};

class SimulatedGrid {
 public:
  SimulatedGrid(const GptqSettings& settings, const SolverSteps& steps, const LaneKernels& kernels,
                size_t max_width, size_t lanes);

  // Sets `grids` to the best ones. Those that it holds compete too where `with_current`.
  void choose(const GroupProblem& problem, bool with_current, LaneGrids& grids);
  // Rounds with the feedback inside the group; loss: [lanes].
  void round(const GroupProblem& problem, const LaneGrids& grids, float* error, float* code,
             float* loss) const;

 private:
  void propose(const GroupProblem& problem);
  void propose_symmetric(const float* t, size_t width, size_t lane);
  void propose_asymmetric(const float* t, size_t width, size_t lane);
  void propose_zeros(size_t candidate, size_t lane, float center);
  void skip_repeated_zeros();
  void shortlist();
  void simulate(const GroupProblem& problem, const LaneGrids& trial);

  float* scales() { return proposals_.as<float>(); }                       // [num_scales_, lanes]
  float* zeros() { return scales() + num_scales_ * lanes_; }               // [num_scales_, num_zeros_, lanes]
  float* scores() { return zeros() + num_scales_ * num_zeros_ * lanes_; }  // likewise

  const LaneKernels& kernels_;
  size_t lanes_;
  bool sym_;
  float max_code_;
  float least_zero_;
  size_t num_factors_;  // scales of one sign
  size_t num_scales_;
  size_t num_zeros_;  // zero points that are tried with each scale
  size_t num_simulated_;
  AlignedBuffer proposals_;
  std::vector<uint32_t> kept_;  // [lanes, num_simulated_]: indices into zeros(), best first
  AlignedBuffer trial_;         // errors and codes of a simulation
  LaneGrids best_;
  float best_loss_[kMaxLanes] = {};
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_SIMULATED_GRID_H_
