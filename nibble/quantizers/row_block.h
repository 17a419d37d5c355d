#ifndef NIBBLE_QUANTIZERS_ROW_BLOCK_H_
#define NIBBLE_QUANTIZERS_ROW_BLOCK_H_

// The feedback solver for up to 48 output rows, which are the lanes of its vectors. Rows never meet:
// blocks run on different threads, and all that one touches but the shared panels stays in its cache.

#include <span>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/quantizers/lane_kernels.h"
#include "nibble/quantizers/simulated_grid.h"
#include "nibble/quantizers/solver_layout.h"

namespace nibble {

// Reads rows of `matrix` into lanes, [columns, lanes] in processing order; padding, dead inputs and
// rows past the end are 0.
void load_lanes(MatrixView<const float> matrix, size_t first_row, const SolverLayout& layout, size_t lanes,
                float* out);

// norms: [lanes], x Hd xᵀ. scratch: [widest group, lanes].
void norm_lanes(const SolverLayout& layout, const LaneKernels& kernels, size_t lanes, const float* x,
                float* scratch, double* norms);

// x := x Hd⁻¹; norms: [lanes], x Hd⁻¹ xᵀ. scratch: [columns, lanes].
void solve_lanes(const SolverLayout& layout, const LaneKernels& kernels, size_t lanes, float* x,
                 float* scratch, double* norms);

class RowBlock {
 public:
  RowBlock(const SolverLayout& layout, const GptqSettings& settings, const SolverSteps& steps,
           const LaneKernels& kernels, size_t lanes);

  float* target() { return target_.as<float>(); }  // [columns, lanes]: W', to be filled before solve()
  void solve();

  // Results of solve(). [columns, lanes] and [groups in processing order, lanes].
  const float* error() const { return error_.as<float>(); }  // W' - Q
  const float* code() const { return code_.as<float>(); }    // without the zero point
  const LaneGrids& grids(size_t group) const { return grids_[group]; }
  std::span<const double> losses() const { return losses_; }  // error Hd errorᵀ

  float* scratch() { return scratch_.as<float>(); }  // [columns, lanes], used by solve()

 private:
  float* target(size_t column) { return target_.as<float>() + column * lanes_; }
  float* error(size_t column) { return error_.as<float>() + column * lanes_; }
  float* code(size_t column) { return code_.as<float>() + column * lanes_; }
  // The scratch memory in up to four parts of [widest group, lanes].
  float* part(size_t i) { return scratch_.as<float>() + i * layout_.max_width * lanes_; }

  void feed_back();
  void refine_scales(size_t first_group, size_t count);
  void add_to_system(size_t first_group, size_t count, size_t k);
  void apply_scales(size_t group);
  void descend_codes();
  void descend_groups();
  void accept_group(size_t group, const LaneGrids& grids, const float* old_loss, const float* new_loss);

  const SolverLayout& layout_;
  const SolverSteps& steps_;
  const LaneKernels& kernels_;
  size_t lanes_;
  float max_code_;
  SimulatedGrid chooser_;
  AlignedBuffer target_, error_, code_;  // [columns, lanes]
  AlignedBuffer scratch_;
  AlignedBuffer gram_, gradient_;  // of the scales that are solved for together
  std::vector<float> scales_;
  std::vector<double> system_;
  std::vector<LaneGrids> grids_;
  std::vector<double> losses_;
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_ROW_BLOCK_H_
