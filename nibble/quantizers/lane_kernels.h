#ifndef NIBBLE_QUANTIZERS_LANE_KERNELS_H_
#define NIBBLE_QUANTIZERS_LANE_KERNELS_H_

// The inner loops of the feedback solver. A block of 16, 32 or 48 output rows lies transposed in
// memory, [columns, lanes]: one column of all its rows is one to three vectors, and whatever a row
// does, rounding included, is the same instruction in each lane. Sums run over columns in ascending
// order, so that neither the number of lanes nor the size of a strip shows in the result.

#include <cstddef>

#include "nibble/base/cpu_target.h"

namespace nibble {

inline constexpr size_t kPanel = 8;   // columns of a shared matrix that are multiplied at once
inline constexpr size_t kStrip = 16;  // lanes come in multiples of this
inline constexpr size_t kMaxLanes = 48;

// A matrix in panels of kPanel columns, each [rows, kPanel]; of an upper triangular one, panel p has
// only its first kPanel * (p + 1) rows.
struct Panels {
  const float* data = nullptr;
  size_t rows = 0;
  bool upper = false;

  const float* panel(size_t p) const { return data + kPanel * (upper ? kPanel * p * (p + 1) / 2 : p * rows); }
};

// One grid per lane: weight = scale * code, with the zero point already taken from the code.
struct LaneGrid {
  const float* scale = nullptr;
  const float* inverse = nullptr;
  const float* low = nullptr;   // the smallest code, -zero
  const float* high = nullptr;  // the largest
};

// A walk over the columns [begin, end), multiples of kPanel. Column j starts from initial_j plus the sum
// over the columns i of the walk before it of fed_i * matrix_ij. All [end - begin, lanes].
struct Sweep {
  Panels matrix;
  size_t begin = 0;
  size_t end = 0;
  size_t lanes = 0;
  const float* initial = nullptr;
};

// t_j rounds to code_j; error_j = target_j - scale * code_j is fed back. loss: [lanes], the sum of
// weight_j (t_j - scale * code_j)^2.
struct Feedback {
  Sweep sweep;
  const float* target = nullptr;
  LaneGrid grid;
  const float* weight = nullptr;  // [end - begin]
  float* error = nullptr;
  float* code = nullptr;
  float* loss = nullptr;
};

// initial = error H: each code moves to the best one for the codes of all other columns. matrix: H.
// change: [lanes], what the loss error H errorᵀ gains (never positive but for rounding).
struct Descent {
  Sweep sweep;
  const float* target = nullptr;
  LaneGrid grid;
  const float* diagonal = nullptr;  // [end - begin] of H
  float* error = nullptr;
  float* code = nullptr;
  float* moved = nullptr;  // scratch
  float* change = nullptr;
};

struct LaneKernels {
  // t_j += sum over i in [from, to) of x_i matrix_ij, for columns j in [begin, end). x: [to, lanes];
  // t: [end - begin, lanes].
  void (*accumulate)(const Panels& matrix, size_t from, size_t to, size_t begin, size_t end, const float* x,
                     size_t lanes, float* t);
  void (*feed_back)(const Feedback& feedback);
  void (*descend)(const Descent& descent);
  // solved_j = -(initial_j + sum of solved_i matrix_ij)
  void (*solve_negated)(const Sweep& sweep, float* solved);
  // norm += sum of weight_j (initial_j + sum of x_i matrix_ij)^2; initial may be more than x.
  void (*weighted_norm)(const Sweep& sweep, const float* x, const float* weight, float* norm);
  // sums: [lanes], of a_j b_j over `count` columns.
  void (*dot)(const float* a, const float* b, size_t count, size_t lanes, float* sums);
  // scores[(c * zeros + z) * lanes]: sum over columns of weight_j (t_j - nearest grid point)^2, for scale
  // c and its zero z. scales: [candidates, lanes]; zero_points: [candidates, zeros, lanes].
  void (*score_grids)(const float* t, const float* weight, size_t count, size_t lanes, const float* scales,
                      const float* zero_points, size_t candidates, size_t zeros, float max_code,
                      float* scores);
};

LaneKernels lane_kernels(CpuTarget target);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_LANE_KERNELS_H_
