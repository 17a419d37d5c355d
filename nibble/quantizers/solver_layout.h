#ifndef NIBBLE_QUANTIZERS_SOLVER_LAYOUT_H_
#define NIBBLE_QUANTIZERS_SOLVER_LAYOUT_H_

// What all output rows of one linear share while the feedback solver works on them: the columns in
// processing order, each group padded to whole panels, and the Hessian and its factor cut into
// panels. A padded column has no weight, no error and no influence.

#include <cstdint>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"
#include "nibble/quantizers/factored_hessian.h"
#include "nibble/quantizers/lane_kernels.h"

namespace nibble {

inline constexpr uint32_t kPadding = UINT32_MAX;

struct ColumnGroup {
  size_t begin = 0;  // columns, multiples of kPanel
  size_t end = 0;
  size_t id = 0;  // the group's number in the checkpoint
  size_t width() const { return end - begin; }
};

class PackedPanels {
 public:
  PackedPanels() = default;
  PackedPanels(size_t size, bool upper);
  Panels view() const { return {buffer_.as<float>(), size_, upper_}; }
  size_t num_panels() const { return size_ / kPanel; }
  float* panel(size_t p) { return buffer_.as<float>() + (view().panel(p) - view().data); }
  size_t panel_rows(size_t p) const { return upper_ ? kPanel * (p + 1) : size_; }

 private:
  AlignedBuffer buffer_;
  size_t size_ = 0;
  bool upper_ = false;
};

// A group on its own, for block descent: H_kk = R Rᵀ.
struct GroupFactor {
  PackedPanels factor;        // R, columns divided by their diagonal, zeros on it
  PackedPanels inverse;       // H_kk⁻¹
  std::vector<float> weight;  // R_jj^2
};

struct SolverLayout {
  std::vector<uint32_t> input_of;     // [size]: the input of a column, or kPadding
  std::vector<uint32_t> position_of;  // [size]: its position in FactoredHessian::order, or kPadding
  std::vector<bool> dead;             // [size]
  std::vector<ColumnGroup> groups;    // in processing order
  size_t max_width = 0;               // of a group
  double damping = 0.0;               // what was added to each diagonal element

  PackedPanels factor;          // R_ij / R_jj above the diagonal, zeros on it
  PackedPanels flipped_factor;  // the same of Rᵀ with rows and columns reversed; empty unless asked for
  std::vector<float> weight;    // R_jj^2; 0 for padding
  std::vector<float> inverse_pivot;        // 1 / R_jj
  PackedPanels hessian;                    // Hd
  std::vector<float> diagonal;             // of Hd
  std::vector<GroupFactor> group_factors;  // one per group, or empty

  size_t size() const { return input_of.size(); }
};

struct LayoutRequest {
  size_t group_size = 0;       // not 0
  bool desc_act = false;       // groups are runs of the order, not of the inputs
  bool solves = false;         // flipped_factor is wanted
  bool group_factors = false;  // they are wanted
};

Expected<SolverLayout> make_layout(const FactoredHessian& hessian, const LayoutRequest& request,
                                   ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_SOLVER_LAYOUT_H_
