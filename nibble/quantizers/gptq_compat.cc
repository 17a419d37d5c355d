#include "nibble/quantizers/gptq_compat.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/float16.h"
#include "nibble/linalg/cholesky.h"
#include "nibble/linalg/gemm.h"
#include "nibble/quantizers/affine_weight.h"
#include "nibble/quantizers/all_finite.h"
#include "nibble/quantizers/grid.h"
#include "nibble/quantizers/quadratic_forms.h"
#include "nibble/quantizers/round_to_nearest.h"

namespace nibble::kernels {
namespace {

constexpr size_t kBlock = 128;    // columns between two updates of the rest: part of the algorithm
constexpr size_t kTileRows = 16;  // rows that are solved side by side

// One block of columns of up to kTileRows rows, column after column.
struct CompatTile {
  float* weights;              // [columns, kTileRows] in, errors / U[i, i] out
  float* codes;                // [columns, kTileRows] out
  const float* const* scales;  // [columns], each [rows]
  const float* const* zeros;
  const float* factor;  // U of the block, [columns, columns]
  size_t factor_stride;
  size_t rows;
  size_t columns;
  float max_code;
};

}  // namespace
}  // namespace nibble::kernels

#define NIBBLE_TARGET_FILE "nibble/quantizers/gptq_compat-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::kernels {
namespace {

void solve_tile(const CompatTile& tile) { NIBBLE_CHOOSE(solve_tile, cpu_target())(tile); }

}  // namespace
}  // namespace nibble::kernels

namespace nibble {
namespace {

using kernels::CompatTile;
using kernels::kBlock;
using kernels::kTileRows;

constexpr int kFloorAttempts = 6;
constexpr int kDampings = 1000;  // tried at most with one diagonal, whatever the increment

float max_code_of(const GptqSettings& settings) { return static_cast<float>((1 << settings.bits) - 1); }

Status check(MatrixView<const float> weight, const GptqSettings& settings) {
  NIBBLE_RETURN_IF_ERROR(check_grid_settings(weight.rows(), weight.cols(), settings));
  if (!(settings.damp_percent >= 0.0 && settings.damp_percent < 1.0)) {
    return fail(ErrorCode::kInvalidArgument, "damp_percent is {}, but must be in [0, 1)",
                settings.damp_percent);
  }
  if (!(settings.damp_auto_increment >= 0.0)) {
    return fail(ErrorCode::kInvalidArgument, "damp_auto_increment is {}, but must not be negative",
                settings.damp_auto_increment);
  }
  return {};
}

void set_grid(QuantizedWeight& result, size_t group, size_t row, const Grid& grid) {
  result.scales[group * result.out_features + row] = grid.scale;
  result.zeros[group * result.out_features + row] = grid.zero;
}

// Grids of the natural groups of a weight.
void find_grids(MatrixView<const float> weight, const GptqSettings& settings, QuantizedWeight& result,
                ThreadPool& pool) {
  const GridOptions options = grid_options(settings);
  pool.parallel_for(weight.rows(), 4, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) {
      for (size_t k = 0; k < result.num_groups; ++k) {
        const size_t first = k * result.group_size;
        const size_t count = std::min(result.group_size, weight.cols() - first);
        set_grid(result, k, o, find_grid(weight.row_span(o).subspan(first, count), options));
      }
    }
  });
}

void round_scales(QuantizedWeight& result) {
  for (float& scale : result.scales) scale = fp16_to_float(float_to_fp16(scale));
}

// In which order columns are rounded.
struct Columns {
  std::vector<uint32_t> order;  // order[c]: the input that is rounded at step c
  std::vector<uint32_t> group;  // group[c]: whose grid it gets
  std::vector<uint32_t> dead;   // inputs that were always 0
  std::vector<float> diagonal;  // [inputs], of the Hessian, 1 for dead inputs
};

void sort_falling(std::span<uint32_t> inputs, const std::vector<float>& diagonal) {
  std::stable_sort(inputs.begin(), inputs.end(),
                   [&](uint32_t a, uint32_t b) { return diagonal[a] > diagonal[b]; });
}

// GPTQModel's group-aware order: inside each full group by falling diagonal, groups by their largest
// entry; a short last group stays where it is.
std::vector<uint32_t> group_aware_order(const std::vector<float>& diagonal, size_t group_size) {
  std::vector<uint32_t> inputs(diagonal.size());
  std::iota(inputs.begin(), inputs.end(), 0u);
  const size_t full = diagonal.size() / group_size;
  std::vector<uint32_t> firsts;  // the input with the largest entry of each group
  for (size_t k = 0; k < full; ++k) {
    sort_falling(std::span(inputs).subspan(k * group_size, group_size), diagonal);
    firsts.push_back(inputs[k * group_size]);
  }
  std::vector<uint32_t> groups(full);
  std::iota(groups.begin(), groups.end(), 0u);
  std::stable_sort(groups.begin(), groups.end(),
                   [&](uint32_t a, uint32_t b) { return diagonal[firsts[a]] > diagonal[firsts[b]]; });
  std::vector<uint32_t> order;
  order.reserve(inputs.size());
  for (const uint32_t k : groups) {
    const auto begin = inputs.begin() + static_cast<std::ptrdiff_t>(k * group_size);
    order.insert(order.end(), begin, begin + static_cast<std::ptrdiff_t>(group_size));
  }
  order.insert(order.end(), inputs.begin() + static_cast<std::ptrdiff_t>(full * group_size), inputs.end());
  return order;
}

Columns order_columns(MatrixView<const float> hessian, const GptqSettings& settings, size_t group_size) {
  Columns columns;
  const size_t n = hessian.rows();
  for (size_t i = 0; i < n; ++i) {
    const float entry = hessian.row(i)[i];
    if (entry == 0.f) columns.dead.push_back(static_cast<uint32_t>(i));
    columns.diagonal.push_back(entry == 0.f ? 1.f : entry);
  }
  if (!settings.desc_act && settings.act_group_aware && settings.group_size > 0) {
    columns.order = group_aware_order(columns.diagonal, settings.group_size);
  } else {
    columns.order.resize(n);
    std::iota(columns.order.begin(), columns.order.end(), 0u);
    if (settings.desc_act) sort_falling(columns.order, columns.diagonal);
  }
  // Only desc_act without static groups gives groups that are not runs of neighbours.
  const bool runs = settings.desc_act && !settings.static_groups;
  for (size_t c = 0; c < n; ++c) {
    columns.group.push_back(static_cast<uint32_t>((runs ? c : columns.order[c]) / group_size));
  }
  return columns;
}

struct InverseFactor {
  AlignedBuffer factor;  // U, float [n, n], upper triangular: the inverse of the damped Hessian is UᵀU
  double damp = 0.0;
};

class DampingLadder {
 public:
  DampingLadder(MatrixView<const float> hessian, const Columns& columns, const GptqSettings& settings,
                ThreadPool& pool)
      : hessian_(hessian), columns_(columns), settings_(settings), pool_(pool), size_(hessian.rows()) {}

  // GPTQModel's: more and more damping while it is below 1, then the same from higher and higher
  // diagonals. Nothing where all of it fails.
  std::optional<InverseFactor> factor() {
    double largest = 0.0;
    for (const float entry : columns_.diagonal) largest = std::max(largest, std::fabs(double{entry}));
    matrix_ = AlignedBuffer(size_ * size_ * sizeof(double));
    double floor = 1e-6 * largest;
    for (int attempt = 0; attempt <= kFloorAttempts; ++attempt) {
      std::vector<double> diagonal(columns_.diagonal.begin(), columns_.diagonal.end());
      if (attempt > 0) {
        for (double& entry : diagonal) entry = std::max(entry + floor, floor);
        floor *= 10.0;
      }
      double damp = settings_.damp_percent;
      for (int tries = 0; tries < kDampings && damp < 1.0; ++tries) {
        if (try_factor(diagonal, damp)) return invert(damp);
        if (settings_.damp_auto_increment == 0.0) break;
        damp += settings_.damp_auto_increment;
      }
    }
    return std::nullopt;
  }

 private:
  MatrixView<double> matrix() { return {matrix_.as<double>(), size_, size_}; }

  bool try_factor(const std::vector<double>& diagonal, double damp) {
    const double mean =
        std::accumulate(diagonal.begin(), diagonal.end(), 0.0) / static_cast<double>(diagonal.size());
    const MatrixView<double> a = matrix();
    pool_.parallel_for(size_, 8, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        const float* row = hessian_.row(columns_.order[r]);
        for (size_t c = r + 1; c < size_; ++c) a.row(r)[c] = double{row[columns_.order[c]]};
        a.row(r)[r] = diagonal[columns_.order[r]] + damp * mean;
      }
    });
    return !linalg::cholesky_upper(a, pool_);
  }

  InverseFactor invert(double damp) {
    linalg::invert_upper(matrix(), pool_);
    InverseFactor result{AlignedBuffer(size_ * size_ * sizeof(float)), damp};
    pool_.parallel_for(size_, 8, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        float* out = result.factor.as<float>() + r * size_;
        for (size_t c = r; c < size_; ++c) out[c] = static_cast<float>(matrix().row(r)[c]);
      }
    });
    return result;
  }

  MatrixView<const float> hessian_;
  const Columns& columns_;
  const GptqSettings& settings_;
  ThreadPool& pool_;
  size_t size_;
  AlignedBuffer matrix_;
};

// The weight with its columns in the order of rounding, dead ones cleared.
AlignedBuffer ordered_weight(MatrixView<const float> weight, const Columns& columns, ThreadPool& pool) {
  const size_t n = weight.cols();
  AlignedBuffer buffer(weight.rows() * n * sizeof(float));
  std::vector<bool> is_dead(n);
  for (const uint32_t i : columns.dead) is_dead[i] = true;
  pool.parallel_for(weight.rows(), 8, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) {
      float* out = buffer.as<float>() + o * n;
      for (size_t c = 0; c < n; ++c) {
        const uint32_t i = columns.order[c];
        out[c] = is_dead[i] ? 0.f : weight.row(o)[i];
      }
    }
  });
  return buffer;
}

class CompatSolver {
 public:
  CompatSolver(MatrixView<const float> weight, const Columns& columns, const InverseFactor& factor,
               const GptqSettings& settings, QuantizedWeight& result, ThreadPool& pool)
      : columns_(columns),
        factor_(factor.factor.as<float>(), weight.cols(), weight.cols()),
        settings_(settings),
        grid_options_(grid_options(settings)),
        result_(result),
        pool_(pool),
        weight_buffer_(ordered_weight(weight, columns, pool)),
        weight_(weight_buffer_.as<float>(), weight.rows(), weight.cols()),
        error_buffer_(weight.rows() * kBlock * sizeof(float)),
        losses_(weight.rows()) {}

  // False where the losses are not finite. Grids that do not depend on the order are in the result.
  bool solve() {
    std::vector<Scratch> scratch(pool_.num_threads());
    const size_t tiles = (weight_.rows() + kTileRows - 1) / kTileRows;
    for (size_t first = 0; first < weight_.cols(); first += kBlock) {
      const size_t count = std::min(kBlock, weight_.cols() - first);
      pool_.parallel_for(tiles, 1, [&](size_t begin, size_t end, size_t worker) {
        for (size_t t = begin; t < end; ++t) solve_tile(t * kTileRows, first, count, scratch[worker]);
      });
      const size_t rest = weight_.cols() - first - count;
      if (rest == 0) break;
      linalg::gemm({errors(count)}, {factor_.rows(first, count).cols(first + count, rest)},
                   weight_.cols(first + count, rest), {.accumulate = true, .negate = true}, pool_);
    }
    return std::isfinite(std::accumulate(losses_.begin(), losses_.end(), 0.0));
  }

 private:
  struct Scratch {
    alignas(64) float weights[kBlock * kTileRows];
    alignas(64) float codes[kBlock * kTileRows];
    const float* scales[kBlock];
    const float* zeros[kBlock];
  };

  MatrixView<float> errors(size_t count) {
    return {error_buffer_.as<float>(), weight_.rows(), count, kBlock};
  }

  bool finds_grids() const { return settings_.group_size > 0 && !settings_.static_groups; }

  // Of the groups that begin in this block, from weights that lack this block's own updates.
  void find_grids(size_t row, size_t rows, size_t first, size_t count) {
    const size_t group_size = result_.group_size;
    for (size_t c = (first + group_size - 1) / group_size * group_size; c < first + count; c += group_size) {
      const size_t width = std::min(group_size, weight_.cols() - c);
      for (size_t o = row; o < row + rows; ++o) {
        set_grid(result_, columns_.group[c], o,
                 find_grid(weight_.row_span(o).subspan(c, width), grid_options_));
      }
    }
  }

  void solve_tile(size_t row, size_t first, size_t count, Scratch& scratch) {
    const size_t rows = std::min(kTileRows, weight_.rows() - row);
    if (finds_grids()) find_grids(row, rows, first, count);
    for (size_t i = 0; i < count; ++i) {
      const size_t grid = columns_.group[first + i] * result_.out_features + row;
      scratch.scales[i] = result_.scales.data() + grid;
      scratch.zeros[i] = result_.zeros.data() + grid;
      for (size_t r = 0; r < rows; ++r) {
        scratch.weights[i * kTileRows + r] = weight_.row(row + r)[first + i];
      }
    }
    kernels::solve_tile({.weights = scratch.weights,
                         .codes = scratch.codes,
                         .scales = scratch.scales,
                         .zeros = scratch.zeros,
                         .factor = factor_.row(first) + first,
                         .factor_stride = factor_.stride(),
                         .rows = rows,
                         .columns = count,
                         .max_code = max_code_of(settings_)});
    for (size_t r = 0; r < rows; ++r) {
      uint8_t* codes = result_.codes.data() + (row + r) * result_.in_features;
      float* error = errors(count).row(row + r);
      for (size_t i = 0; i < count; ++i) {
        error[i] = scratch.weights[i * kTileRows + r];
        losses_[row + r] += double{error[i]} * double{error[i]};
        codes[columns_.order[first + i]] = static_cast<uint8_t>(scratch.codes[i * kTileRows + r]);
      }
    }
  }

  const Columns& columns_;
  MatrixView<const float> factor_;
  const GptqSettings& settings_;
  GridOptions grid_options_;
  QuantizedWeight& result_;
  ThreadPool& pool_;
  AlignedBuffer weight_buffer_;
  MatrixView<float> weight_;
  AlignedBuffer error_buffer_;
  std::vector<double> losses_;
};

// tr(E H Eᵀ) / tr(W H Wᵀ)
double relative_loss(MatrixView<const float> weight, MatrixView<const float> hessian,
                     const QuantizedWeight& result, ThreadPool& pool) {
  AlignedBuffer buffer(weight.rows() * weight.cols() * sizeof(float));
  const MatrixView<float> error(buffer.as<float>(), weight.rows(), weight.cols());
  pool.parallel_for(weight.rows(), 4, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) {
      dequantize_rows(result, o, o + 1, error.row(o));
      for (size_t i = 0; i < weight.cols(); ++i) error.row(o)[i] = weight.row(o)[i] - error.row(o)[i];
    }
  });
  std::vector<double> sums(weight.rows());
  quadratic_forms(weight, hessian, sums, pool);
  const double whole = std::accumulate(sums.begin(), sums.end(), 0.0);
  if (whole == 0.0) return 0.0;
  quadratic_forms(error, hessian, sums, pool);
  return std::accumulate(sums.begin(), sums.end(), 0.0) / whole;
}

// With feedback, or nothing where it cannot be had.
std::optional<SolvedWeight> solve(MatrixView<const float> weight, MatrixView<const float> hessian,
                                  const GptqSettings& settings, ThreadPool& pool) {
  if (!all_finite(hessian, pool)) return std::nullopt;
  SolvedWeight solved{
      .weight = make_affine_weight(weight.rows(), weight.cols(), settings.bits, settings.group_size)};
  QuantizedWeight& result = solved.weight;
  const Columns columns = order_columns(hessian, settings, result.group_size);
  // No token came here (an expert that was never chosen): the original would clear the weight.
  if (columns.dead.size() == weight.cols()) return std::nullopt;

  const std::optional<InverseFactor> factor = DampingLadder(hessian, columns, settings, pool).factor();
  if (!factor) return std::nullopt;
  solved.damp = factor->damp;
  if (settings.group_size == 0) {
    find_grids(weight, settings, result, pool);  // dead columns included
  } else if (settings.static_groups) {
    Columns natural{
        .order = std::vector<uint32_t>(weight.cols()), .group = {}, .dead = columns.dead, .diagonal = {}};
    std::iota(natural.order.begin(), natural.order.end(), 0u);
    const AlignedBuffer cleared = ordered_weight(weight, natural, pool);
    find_grids({cleared.as<float>(), weight.rows(), weight.cols()}, settings, result, pool);
  }
  if (!CompatSolver(weight, columns, *factor, settings, result, pool).solve()) return std::nullopt;

  if (settings.desc_act && !settings.static_groups && result.num_groups > 1) {
    result.g_idx.resize(weight.cols());
    for (size_t c = 0; c < weight.cols(); ++c) result.g_idx[columns.order[c]] = columns.group[c];
  }
  round_scales(result);
  return solved;
}

void clear_natural_g_idx(QuantizedWeight& result) {
  for (size_t i = 0; i < result.g_idx.size(); ++i) {
    if (result.g_idx[i] != i / result.group_size) return;
  }
  result.g_idx.clear();
}

}  // namespace

Expected<SolvedWeight> quantize_gptq_compat(MatrixView<const float> weight, MatrixView<const float> hessian,
                                            const GptqSettings& settings, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check(weight, settings));
  if (hessian.rows() != weight.cols() || hessian.cols() != weight.cols()) {
    return fail(ErrorCode::kInvalidArgument, "a Hessian [{}, {}] for a weight with {} inputs", hessian.rows(),
                hessian.cols(), weight.cols());
  }
  std::optional<SolvedWeight> solved = solve(weight, hessian, settings, pool);
  if (!solved) {
    NIBBLE_TRY(solved, round_to_nearest(weight, settings, pool));
  }
  clear_natural_g_idx(solved->weight);
  solved->loss = relative_loss(weight, hessian, solved->weight, pool);
  return std::move(*solved);
}

}  // namespace nibble
