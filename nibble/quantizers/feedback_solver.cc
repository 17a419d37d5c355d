#include "nibble/quantizers/feedback_solver.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "nibble/base/check.h"
#include "nibble/quantizers/affine_weight.h"
#include "nibble/quantizers/all_finite.h"
#include "nibble/quantizers/lane_kernels.h"
#include "nibble/quantizers/row_block.h"
#include "nibble/quantizers/solver_layout.h"

namespace nibble {
namespace {

// Less than this of a shift is no shift (a float could hardly hold the factor).
constexpr double kLeastShift = 1e-30;

// Sums over the rows of a linear are over these, in order, whatever thread found which.
struct RowSums {
  explicit RowSums(size_t rows) : weight_norm(rows), shift_norm(rows), weight_square(rows), loss(rows) {}
  std::vector<double> weight_norm;    // w Hd wᵀ
  std::vector<double> shift_norm;     // (w' - w) Hd (w' - w)ᵀ, whole shift
  std::vector<double> weight_square;  // w wᵀ
  std::vector<double> loss;           // (w - q) H (w - q)ᵀ
};

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double v : values) total += v;
  return total;
}

// Wide blocks use registers best, but there must be enough of them to keep every thread busy.
size_t choose_lanes(size_t rows, size_t threads) {
  size_t best = kStrip;
  double best_time = 0;
  for (const auto& [lanes, cost] : {std::pair<size_t, double>{48, 1.0}, {32, 1.1}, {16, 1.5}}) {
    const size_t blocks = (rows + lanes - 1) / lanes;
    const double time = static_cast<double>((blocks + threads - 1) / threads * lanes) * cost;
    if (best_time == 0 || time < best_time) {
      best_time = time;
      best = lanes;
    }
  }
  return best;
}

class LinearSolver {
 public:
  LinearSolver(MatrixView<const float> weight, MatrixView<const float> shift, const SolverLayout& layout,
               const GptqSettings& settings, const SolverSteps& steps, CpuTarget target, ThreadPool& pool)
      : weight_(weight),
        shift_(shift),
        layout_(layout),
        settings_(settings),
        kernels_(lane_kernels(target)),
        pool_(pool),
        lanes_(choose_lanes(weight.rows(), pool.num_threads())),
        sums_(weight.rows()) {
    blocks_.reserve(pool.num_threads());
    for (size_t i = 0; i < pool.num_threads(); ++i) {
      blocks_.emplace_back(layout, settings, steps, kernels_, lanes_);
    }
    const size_t num_blocks = (weight.rows() + lanes_ - 1) / lanes_;
    if (has_shift()) solved_shift_ = AlignedBuffer(num_blocks * block_values() * sizeof(float));
  }

  SolvedWeight solve() {
    for_each_block([this](size_t b, RowBlock& block) { measure(b, block); });
    limit_shift();
    prepare_result();
    for_each_block([this](size_t b, RowBlock& block) { solve_block(b, block); });
    const double energy = sum(sums_.weight_norm) - layout_.damping * sum(sums_.weight_square);
    if (energy > 0) result_.loss = std::max(0.0, sum(sums_.loss)) / energy;
    return std::move(result_);
  }

 private:
  bool has_shift() const { return shift_.data() != nullptr; }
  size_t block_values() const { return layout_.size() * lanes_; }
  size_t rows_of(size_t b) const { return std::min(lanes_, weight_.rows() - b * lanes_); }
  float* solved_shift(size_t b) { return solved_shift_.as<float>() + b * block_values(); }

  template <class Fn>
  void for_each_block(Fn fn) {
    const size_t count = (weight_.rows() + lanes_ - 1) / lanes_;
    pool_.parallel_for(count, 1, [&](size_t begin, size_t end, size_t worker) {
      for (size_t b = begin; b < end; ++b) fn(b, blocks_[worker]);
    });
  }

  void measure(size_t b, RowBlock& block);
  void limit_shift();
  void prepare_result();
  void solve_block(size_t b, RowBlock& block);
  void measure_loss(size_t b, RowBlock& block);
  void write_block(size_t b, const RowBlock& block);

  MatrixView<const float> weight_;
  MatrixView<const float> shift_;
  const SolverLayout& layout_;
  const GptqSettings& settings_;
  LaneKernels kernels_;
  ThreadPool& pool_;
  size_t lanes_;
  std::vector<RowBlock> blocks_;  // one per worker
  RowSums sums_;
  AlignedBuffer solved_shift_;  // D Hd⁻¹: [blocks, columns, lanes]
  double alpha_ = 0;            // how much of it is used
  SolvedWeight result_;
};

void LinearSolver::measure(size_t b, RowBlock& block) {
  float* const weight = block.target();
  load_lanes(weight_, b * lanes_, layout_, lanes_, weight);
  double norms[kMaxLanes];
  norm_lanes(layout_, kernels_, lanes_, weight, block.scratch(), norms);
  double squares[kMaxLanes] = {};
  for (size_t i = 0; i < block_values(); ++i) {
    squares[i % lanes_] += static_cast<double>(weight[i]) * static_cast<double>(weight[i]);
  }
  std::copy_n(norms, rows_of(b), sums_.weight_norm.data() + b * lanes_);
  std::copy_n(squares, rows_of(b), sums_.weight_square.data() + b * lanes_);
  if (!has_shift()) return;
  load_lanes(shift_, b * lanes_, layout_, lanes_, solved_shift(b));
  solve_lanes(layout_, kernels_, lanes_, solved_shift(b), block.scratch(), norms);
  std::copy_n(norms, rows_of(b), sums_.shift_norm.data() + b * lanes_);
}

// The shift amplifies noise of the moments along directions that the inputs hardly use.
void LinearSolver::limit_shift() {
  if (!has_shift()) return;
  const double limit = sum(sums_.weight_norm) / 4;
  const double size = sum(sums_.shift_norm);
  if (!std::isfinite(size)) return;
  alpha_ = 1;
  while (alpha_ * alpha_ * size > limit && alpha_ > 0) {
    alpha_ = alpha_ > kLeastShift ? alpha_ / 2 : 0;
  }
}

void LinearSolver::prepare_result() {
  QuantizedWeight& w = result_.weight;
  w = make_affine_weight(weight_.rows(), weight_.cols(), settings_.bits, settings_.group_size);
  if (!settings_.desc_act) return;
  w.g_idx.resize(weight_.cols());
  for (const ColumnGroup& group : layout_.groups) {
    for (size_t j = group.begin; j < group.end; ++j) {
      if (layout_.input_of[j] != kPadding) w.g_idx[layout_.input_of[j]] = static_cast<uint32_t>(group.id);
    }
  }
}

void LinearSolver::solve_block(size_t b, RowBlock& block) {
  load_lanes(weight_, b * lanes_, layout_, lanes_, block.target());
  if (alpha_ > 0) {
    const auto alpha = static_cast<float>(alpha_);
    const float* const shift = solved_shift(b);
    for (size_t i = 0; i < block_values(); ++i) block.target()[i] += alpha * shift[i];
  }
  block.solve();
  measure_loss(b, block);
  write_block(b, block);
}

// With e = w' - q and s = w' - w, where s Hd is the shift d:
// (w - q) Hd (w - q)ᵀ = e Hd eᵀ - 2 e dᵀ + s Hd sᵀ.
void LinearSolver::measure_loss(size_t b, RowBlock& block) {
  double losses[kMaxLanes];
  double squares[kMaxLanes] = {};
  double products[kMaxLanes] = {};
  std::copy_n(block.losses().data(), lanes_, losses);
  const auto alpha = static_cast<float>(alpha_);
  const float* const error = block.error();
  const float* const shift = alpha_ > 0 ? solved_shift(b) : nullptr;
  float* const d = block.scratch();
  if (shift != nullptr) load_lanes(shift_, b * lanes_, layout_, lanes_, d);
  for (size_t i = 0; i < block_values(); ++i) {
    const float change = shift == nullptr ? error[i] : error[i] - alpha * shift[i];  // w - q
    squares[i % lanes_] += static_cast<double>(change) * static_cast<double>(change);
    if (shift != nullptr) products[i % lanes_] += static_cast<double>(error[i]) * static_cast<double>(d[i]);
  }
  for (size_t lane = 0; lane < rows_of(b); ++lane) {
    const size_t row = b * lanes_ + lane;
    sums_.loss[row] = losses[lane] - 2 * alpha_ * products[lane] + alpha_ * alpha_ * sums_.shift_norm[row] -
                      layout_.damping * squares[lane];
  }
}

void LinearSolver::write_block(size_t b, const RowBlock& block) {
  QuantizedWeight& w = result_.weight;
  for (size_t k = 0; k < layout_.groups.size(); ++k) {
    const ColumnGroup& group = layout_.groups[k];
    const LaneGrids& grids = block.grids(k);
    const size_t at = group.id * w.out_features + b * lanes_;
    std::copy_n(grids.scale, rows_of(b), w.scales.data() + at);
    std::copy_n(grids.zero, rows_of(b), w.zeros.data() + at);
    for (size_t j = group.begin; j < group.end; ++j) {
      if (layout_.input_of[j] == kPadding) continue;
      const float* const codes = block.code() + j * lanes_;
      uint8_t* const out = w.codes.data() + b * lanes_ * w.in_features + layout_.input_of[j];
      for (size_t lane = 0; lane < rows_of(b); ++lane) {
        out[lane * w.in_features] = static_cast<uint8_t>(codes[lane] + grids.zero[lane]);
      }
    }
  }
}

Status check_arguments(MatrixView<const float> weight, MatrixView<const float> shift,
                       const FactoredHessian& hessian, const GptqSettings& settings, ThreadPool& pool) {
  if (settings.bits < 2 || settings.bits > 8) {
    return fail(ErrorCode::kInvalidArgument, "{} bits, but codes have 2 to 8", settings.bits);
  }
  if (weight.rows() == 0 || weight.cols() == 0 || weight.cols() != hessian.size) {
    return fail(ErrorCode::kInvalidArgument, "a weight [{}, {}] with second moments of {} inputs",
                weight.rows(), weight.cols(), hessian.size);
  }
  const bool has_shift = shift.data() != nullptr;
  if (has_shift && (shift.rows() != weight.rows() || shift.cols() != weight.cols())) {
    return fail(ErrorCode::kInvalidArgument, "a shift [{}, {}] of a weight [{}, {}]", shift.rows(),
                shift.cols(), weight.rows(), weight.cols());
  }
  if (!all_finite(weight, pool)) {
    return fail(ErrorCode::kInvalidArgument, "the weight has values that are NaN or infinite");
  }
  return {};
}

}  // namespace

SolverSteps solver_steps(Effort effort) {
  NIBBLE_CHECK(effort != Effort::kCompat);
  if (effort == Effort::kBest) return {24, 12, 2, 2};
  return {24, 6, 2, 0};
}

Expected<SolvedWeight> solve_with_feedback(MatrixView<const float> weight, MatrixView<const float> shift,
                                           const FactoredHessian& hessian, const GptqSettings& settings,
                                           const SolverSteps& steps, ThreadPool& pool, CpuTarget target) {
  NIBBLE_RETURN_IF_ERROR(check_arguments(weight, shift, hessian, settings, pool));
  LayoutRequest request;
  request.group_size = settings.group_size == 0 ? weight.cols() : settings.group_size;
  request.desc_act = settings.desc_act;
  request.solves = shift.data() != nullptr;
  // With one group there are no others to leave it better values.
  request.group_factors = steps.group_sweeps > 0 && request.group_size < weight.cols();
  NIBBLE_TRY(const SolverLayout layout, make_layout(hessian, request, pool));
  LinearSolver solver(weight, shift, layout, settings, steps, target, pool);
  SolvedWeight solved = solver.solve();
  solved.damp = hessian.damp;
  return solved;
}

}  // namespace nibble
