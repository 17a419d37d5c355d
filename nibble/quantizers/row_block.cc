#include "nibble/quantizers/row_block.h"

#include <algorithm>

#include "nibble/quantizers/scale_system.h"

namespace nibble {
namespace {

// Scales that are solved for together; more are taken in turns, which bounds the memory.
constexpr size_t kMaxScales = 256;
// Columns that coordinate descent visits between two products with the whole Hessian.
constexpr size_t kDescentColumns = 128;
constexpr size_t kSolveColumns = 128;

void add_losses(const float* from, size_t lanes, double* to) {
  for (size_t lane = 0; lane < lanes; ++lane) to[lane] += static_cast<double>(from[lane]);
}

// With R normalised to a unit diagonal: out_j = -(x_j + sum of out_i R_ij).
void solve_triangle(const Panels& matrix, const LaneKernels& kernels, size_t lanes, float* x, float* out) {
  for (size_t begin = 0; begin < matrix.rows; begin += kSolveColumns) {
    const size_t end = std::min(matrix.rows, begin + kSolveColumns);
    float* const initial = x + begin * lanes;
    kernels.accumulate(matrix, 0, begin, begin, end, out, lanes, initial);
    kernels.solve_negated({matrix, begin, end, lanes, initial}, out + begin * lanes);
  }
}

}  // namespace

void load_lanes(MatrixView<const float> matrix, size_t first_row, const SolverLayout& layout, size_t lanes,
                float* out) {
  std::fill_n(out, layout.size() * lanes, 0.f);
  const size_t rows = std::min(lanes, matrix.rows() - first_row);
  for (size_t j = 0; j < layout.size(); ++j) {
    if (layout.input_of[j] == kPadding || layout.dead[j]) continue;
    const float* const column = matrix.row(first_row) + layout.input_of[j];
    for (size_t lane = 0; lane < rows; ++lane) out[j * lanes + lane] = column[lane * matrix.stride()];
  }
}

void norm_lanes(const SolverLayout& layout, const LaneKernels& kernels, size_t lanes, const float* x,
                float* scratch, double* norms) {
  const Panels factor = layout.factor.view();
  std::fill_n(norms, lanes, 0.0);
  for (const ColumnGroup& group : layout.groups) {
    const float* const own = x + group.begin * lanes;
    std::copy_n(own, group.width() * lanes, scratch);
    kernels.accumulate(factor, 0, group.begin, group.begin, group.end, x, lanes, scratch);
    float norm[kMaxLanes] = {};
    kernels.weighted_norm({factor, group.begin, group.end, lanes, scratch}, own,
                          layout.weight.data() + group.begin, norm);
    add_losses(norm, lanes, norms);
  }
}

void solve_lanes(const SolverLayout& layout, const LaneKernels& kernels, size_t lanes, float* x,
                 float* scratch, double* norms) {
  const size_t size = layout.size();
  // y Rᵀ = x from the last column to the first, in a matrix whose columns are reversed.
  for (size_t j = 0; j < size; ++j) {
    const float* const from = x + j * lanes;
    float* const to = scratch + (size - 1 - j) * lanes;
    for (size_t lane = 0; lane < lanes; ++lane) to[lane] = from[lane] * layout.inverse_pivot[j];
  }
  solve_triangle(layout.flipped_factor.view(), kernels, lanes, scratch, x);
  // w R = y; x Hd⁻¹ xᵀ = y yᵀ.
  std::fill_n(norms, lanes, 0.0);
  for (size_t j = 0; j < size; ++j) {
    const float* const from = x + (size - 1 - j) * lanes;
    float* const to = scratch + j * lanes;
    for (size_t lane = 0; lane < lanes; ++lane) {
      norms[lane] += static_cast<double>(from[lane]) * static_cast<double>(from[lane]);
      to[lane] = -from[lane] * layout.inverse_pivot[j];
    }
  }
  solve_triangle(layout.factor.view(), kernels, lanes, scratch, x);
  for (size_t i = 0; i < size * lanes; ++i) x[i] = -x[i];
}

RowBlock::RowBlock(const SolverLayout& layout, const GptqSettings& settings, const SolverSteps& steps,
                   const LaneKernels& kernels, size_t lanes)
    : layout_(layout),
      steps_(steps),
      kernels_(kernels),
      lanes_(lanes),
      max_code_(static_cast<float>((1 << settings.bits) - 1)),
      chooser_(settings, steps, kernels, layout.max_width, lanes),
      target_(layout.size() * lanes * sizeof(float)),
      error_(layout.size() * lanes * sizeof(float)),
      code_(layout.size() * lanes * sizeof(float)),
      scratch_(std::max(layout.size(), 4 * layout.max_width) * lanes * sizeof(float)),
      grids_(layout.groups.size()),
      losses_(lanes) {
  const size_t scales = std::min(kMaxScales, layout.groups.size());
  if (steps.refine_rounds > 0) gram_ = AlignedBuffer(scales * scales * lanes * sizeof(float));
  gradient_ = AlignedBuffer(scales * lanes * sizeof(float));
  scales_.resize(scales * lanes);
}

void RowBlock::solve() {
  std::fill(losses_.begin(), losses_.end(), 0.0);
  feed_back();
  const size_t groups = layout_.groups.size();
  for (size_t round = 0; round < steps_.refine_rounds; ++round) {
    for (size_t first = 0; first < groups; first += kMaxScales) {
      refine_scales(first, std::min(kMaxScales, groups - first));
    }
    descend_codes();
  }
  if (layout_.group_factors.empty()) return;
  for (size_t sweep = 0; sweep < steps_.group_sweeps; ++sweep) {
    descend_groups();
    descend_codes();
  }
}

void RowBlock::feed_back() {
  const Panels factor = layout_.factor.view();
  float* const start = part(0);
  for (size_t k = 0; k < layout_.groups.size(); ++k) {
    const ColumnGroup& group = layout_.groups[k];
    std::copy_n(target(group.begin), group.width() * lanes_, start);
    kernels_.accumulate(factor, 0, group.begin, group.begin, group.end, error(0), lanes_, start);
    const GroupProblem problem{{factor, group.begin, group.end, lanes_, start},
                               target(group.begin),
                               layout_.weight.data() + group.begin};
    chooser_.choose(problem, false, grids_[k]);
    float loss[kMaxLanes];
    chooser_.round(problem, grids_[k], error(group.begin), code(group.begin), loss);
    add_losses(loss, lanes_, losses_.data());
  }
}

// Row k of the system: its gradient, and its products with the groups before it.
void RowBlock::add_to_system(size_t first_group, size_t count, size_t k) {
  const Panels hessian = layout_.hessian.view();
  const ColumnGroup& group = layout_.groups[first_group + k];
  const size_t values = group.width() * lanes_;
  float* const product = part(0);
  std::fill_n(product, values, 0.f);
  kernels_.accumulate(hessian, 0, layout_.size(), group.begin, group.end, error(0), lanes_, product);
  kernels_.dot(product, code(group.begin), group.width(), lanes_, gradient_.as<float>() + k * lanes_);
  for (size_t l = 0; l <= k; ++l) {
    const ColumnGroup& other = layout_.groups[first_group + l];
    std::fill_n(product, values, 0.f);
    kernels_.accumulate(hessian, other.begin, other.end, group.begin, group.end, code(0), lanes_, product);
    kernels_.dot(product, code(group.begin), group.width(), lanes_,
                 gram_.as<float>() + (k * count + l) * lanes_);
  }
}

void RowBlock::refine_scales(size_t first_group, size_t count) {
  for (size_t k = 0; k < count; ++k) {
    add_to_system(first_group, count, k);
    std::copy_n(grids_[first_group + k].scale, lanes_, scales_.data() + k * lanes_);
  }
  double changes[kMaxLanes];
  improve_scales({count, lanes_, gram_.as<float>(), gradient_.as<float>()}, scales_.data(), changes, system_);
  for (size_t k = 0; k < count; ++k) {
    LaneGrids& grids = grids_[first_group + k];
    for (size_t lane = 0; lane < lanes_; ++lane) {
      grids.set(lane, scales_[k * lanes_ + lane], grids.zero[lane], max_code_);
    }
    apply_scales(first_group + k);
  }
  for (size_t lane = 0; lane < lanes_; ++lane) losses_[lane] += changes[lane];
}

void RowBlock::apply_scales(size_t group) {
  const float* const scale = grids_[group].scale;
  for (size_t j = layout_.groups[group].begin; j < layout_.groups[group].end; ++j) {
    const float* const to_reach = target(j);
    const float* const codes = code(j);
    float* const out = error(j);
    for (size_t lane = 0; lane < lanes_; ++lane) out[lane] = to_reach[lane] - scale[lane] * codes[lane];
  }
}

void RowBlock::descend_codes() {
  const Panels hessian = layout_.hessian.view();
  float* const product = part(0);
  for (size_t k = 0; k < layout_.groups.size(); ++k) {
    const ColumnGroup& group = layout_.groups[k];
    for (size_t begin = group.begin; begin < group.end; begin += kDescentColumns) {
      const size_t end = std::min(group.end, begin + kDescentColumns);
      std::fill_n(product, (end - begin) * lanes_, 0.f);
      kernels_.accumulate(hessian, 0, layout_.size(), begin, end, error(0), lanes_, product);
      float change[kMaxLanes];
      Descent descent;
      descent.sweep = {hessian, begin, end, lanes_, product};
      descent.target = target(begin);
      descent.grid = grids_[k].view();
      descent.diagonal = layout_.diagonal.data() + begin;
      descent.error = error(begin);
      descent.code = code(begin);
      descent.moved = part(1);
      descent.change = change;
      kernels_.descend(descent);
      add_losses(change, lanes_, losses_.data());
    }
  }
}

// One group at a time is chosen anew for the best values that the others leave it.
void RowBlock::descend_groups() {
  const Panels hessian = layout_.hessian.view();
  float* const product = part(0);
  float* const wanted = part(1);  // what to add to the present values; then the values
  for (size_t k = 0; k < layout_.groups.size(); ++k) {
    const ColumnGroup& group = layout_.groups[k];
    const GroupFactor& own = layout_.group_factors[k];
    if (own.weight.empty()) continue;
    const size_t width = group.width();
    std::fill_n(product, width * lanes_, 0.f);
    kernels_.accumulate(hessian, 0, layout_.size(), group.begin, group.end, error(0), lanes_, product);
    std::fill_n(wanted, width * lanes_, 0.f);
    kernels_.accumulate(own.inverse.view(), 0, width, 0, width, product, lanes_, wanted);
    float old_loss[kMaxLanes] = {};
    kernels_.weighted_norm({own.factor.view(), 0, width, lanes_, wanted}, wanted, own.weight.data(),
                           old_loss);
    for (size_t j = 0; j < width; ++j) {
      for (size_t lane = 0; lane < lanes_; ++lane) {
        wanted[j * lanes_ + lane] += grids_[k].scale[lane] * code(group.begin)[j * lanes_ + lane];
      }
    }
    const GroupProblem problem{{own.factor.view(), 0, width, lanes_, wanted}, wanted, own.weight.data()};
    LaneGrids grids = grids_[k];
    chooser_.choose(problem, true, grids);
    float new_loss[kMaxLanes];
    chooser_.round(problem, grids, part(2), part(3), new_loss);
    accept_group(k, grids, old_loss, new_loss);
  }
}

void RowBlock::accept_group(size_t group, const LaneGrids& grids, const float* old_loss,
                            const float* new_loss) {
  const float* const new_codes = part(3);
  const size_t begin = layout_.groups[group].begin;
  const size_t width = layout_.groups[group].width();
  for (size_t lane = 0; lane < lanes_; ++lane) {
    if (!(new_loss[lane] < old_loss[lane])) continue;
    losses_[lane] += static_cast<double>(new_loss[lane]) - static_cast<double>(old_loss[lane]);
    grids_[group].set(lane, grids.scale[lane], grids.zero[lane], max_code_);
    for (size_t j = 0; j < width; ++j) code(begin)[j * lanes_ + lane] = new_codes[j * lanes_ + lane];
  }
  apply_scales(group);
}

}  // namespace nibble
