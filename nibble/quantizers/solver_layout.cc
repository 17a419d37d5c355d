#include "nibble/quantizers/solver_layout.h"

#include <algorithm>
#include <cmath>

#include "nibble/linalg/cholesky.h"

namespace nibble {

PackedPanels::PackedPanels(size_t size, bool upper) : size_(size), upper_(upper) {
  const size_t panels = size / kPanel;
  const size_t rows = upper ? kPanel * panels * (panels + 1) / 2 : panels * size;
  buffer_ = AlignedBuffer(rows * kPanel * sizeof(float));
}

namespace {

// The columns and groups; fails where the order leaves a group before it is done.
Status arrange_columns(const FactoredHessian& hessian, const LayoutRequest& request, SolverLayout& layout) {
  const size_t size = hessian.size;
  const auto group_at = [&](size_t p) {
    return (request.desc_act ? p : hessian.order[p]) / request.group_size;
  };
  std::vector<bool> seen((size + request.group_size - 1) / request.group_size);
  for (size_t p = 0; p < size;) {
    ColumnGroup group;
    group.id = group_at(p);
    if (seen[group.id]) {
      return fail(ErrorCode::kInvalidArgument, "the Hessian's order mixes groups of {} inputs",
                  request.group_size);
    }
    seen[group.id] = true;
    group.begin = layout.size();
    for (; p < size && group_at(p) == group.id; ++p) {
      layout.input_of.push_back(hessian.order[p]);
      layout.position_of.push_back(static_cast<uint32_t>(p));
    }
    const size_t padded = (layout.size() + kPanel - 1) / kPanel * kPanel;
    layout.input_of.resize(padded, kPadding);
    layout.position_of.resize(padded, kPadding);
    group.end = padded;
    layout.groups.push_back(group);
    layout.max_width = std::max(layout.max_width, group.width());
  }
  return {};
}

void read_diagonals(const FactoredHessian& hessian, SolverLayout& layout) {
  std::vector<bool> dead_input(hessian.size);
  for (const uint32_t input : hessian.dead) dead_input[input] = true;
  const size_t size = layout.size();
  layout.dead.assign(size, false);
  layout.weight.assign(size, 0.f);
  layout.inverse_pivot.assign(size, 1.f);
  layout.diagonal.assign(size, 1.f);
  double sum = 0;
  for (size_t j = 0; j < size; ++j) {
    const size_t p = layout.position_of[j];
    if (p == kPadding) continue;
    const float pivot = hessian.factor_view().row(p)[p];
    layout.dead[j] = dead_input[layout.input_of[j]];
    layout.weight[j] = pivot * pivot;
    layout.inverse_pivot[j] = 1.f / pivot;
    layout.diagonal[j] = hessian.damped_view().row(p)[p];
    if (!layout.dead[j]) sum += static_cast<double>(layout.diagonal[j]);
  }
  const auto live = static_cast<double>(std::max<size_t>(1, hessian.size - hessian.dead.size()));
  layout.damping = hessian.damp / (1 + hessian.damp) * sum / live;
}

// panels[i][j] = value(i, j); value is called for padding too.
template <class Value>
void fill_panels(PackedPanels& panels, ThreadPool& pool, Value value) {
  pool.parallel_for(panels.num_panels(), 1, [&](size_t begin, size_t end, size_t) {
    for (size_t p = begin; p < end; ++p) {
      float* const out = panels.panel(p);
      for (size_t i = 0; i < panels.panel_rows(p); ++i) {
        for (size_t c = 0; c < kPanel; ++c) out[i * kPanel + c] = value(i, p * kPanel + c);
      }
    }
  });
}

void pack_matrices(const FactoredHessian& hessian, bool solves, SolverLayout& layout, ThreadPool& pool) {
  const auto& at = layout.position_of;
  const MatrixView<const float> damped = hessian.damped_view();
  const MatrixView<const float> factor = hessian.factor_view();
  layout.hessian = PackedPanels(layout.size(), false);
  fill_panels(layout.hessian, pool, [&](size_t i, size_t j) {
    if (at[i] == kPadding || at[j] == kPadding) return i == j ? 1.f : 0.f;
    return damped.row(at[i])[at[j]];
  });
  layout.factor = PackedPanels(layout.size(), true);
  fill_panels(layout.factor, pool, [&](size_t i, size_t j) {
    if (i >= j || at[i] == kPadding || at[j] == kPadding) return 0.f;
    return factor.row(at[i])[at[j]] * layout.inverse_pivot[j];
  });
  if (!solves) return;
  layout.flipped_factor = PackedPanels(layout.size(), true);
  const size_t last = layout.size() - 1;
  fill_panels(layout.flipped_factor, pool, [&](size_t i, size_t j) {
    const size_t row = last - j;
    const size_t column = last - i;
    if (row >= column || at[row] == kPadding || at[column] == kPadding) return 0.f;
    return factor.row(at[row])[at[column]] * layout.inverse_pivot[row];
  });
}

// False where rounding has made the block indefinite: it is left out of block descent then.
bool factor_group(const SolverLayout& layout, const ColumnGroup& group, ThreadPool& pool, GroupFactor& out) {
  const size_t width = group.width();
  AlignedBuffer buffer(2 * width * width * sizeof(double));
  MatrixView<double> r(buffer.as<double>(), width, width);
  MatrixView<double> inverse(buffer.as<double>() + width * width, width, width);
  const Panels hessian = layout.hessian.view();
  for (size_t i = 0; i < width; ++i) {
    for (size_t j = i; j < width; ++j) {
      const size_t column = group.begin + j;
      r.row(i)[j] = hessian.panel(column / kPanel)[(group.begin + i) * kPanel + column % kPanel];
    }
    inverse.row(i)[i] = 1;
  }
  if (linalg::cholesky_upper(r, pool)) return false;
  linalg::solve_rows(r, inverse, pool);
  out.weight.resize(width);
  for (size_t j = 0; j < width; ++j) {
    const bool padding = layout.input_of[group.begin + j] == kPadding;
    out.weight[j] = padding ? 0.f : static_cast<float>(r.row(j)[j] * r.row(j)[j]);
  }
  out.factor = PackedPanels(width, true);
  fill_panels(out.factor, pool, [&](size_t i, size_t j) {
    return i >= j ? 0.f : static_cast<float>(r.row(i)[j] / r.row(j)[j]);
  });
  out.inverse = PackedPanels(width, false);
  fill_panels(out.inverse, pool, [&](size_t i, size_t j) { return static_cast<float>(inverse.row(i)[j]); });
  return true;
}

}  // namespace

Expected<SolverLayout> make_layout(const FactoredHessian& hessian, const LayoutRequest& request,
                                   ThreadPool& pool) {
  SolverLayout layout;
  NIBBLE_RETURN_IF_ERROR(arrange_columns(hessian, request, layout));
  read_diagonals(hessian, layout);
  pack_matrices(hessian, request.solves, layout, pool);
  if (request.group_factors) {
    layout.group_factors.resize(layout.groups.size());
    for (size_t k = 0; k < layout.groups.size(); ++k) {
      GroupFactor factor;
      if (factor_group(layout, layout.groups[k], pool, factor)) layout.group_factors[k] = std::move(factor);
    }
  }
  return layout;
}

}  // namespace nibble
