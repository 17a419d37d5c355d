#include "nibble/quantizers/factored_hessian.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "nibble/quantizers/all_finite.h"
#include "nibble/quantizers/min_pivot_factor.h"

namespace nibble {
namespace {

using Range = std::pair<size_t, size_t>;

// The diagonal with dead inputs mended, and its mean; nothing where it has none.
std::optional<double> read_diagonal(MatrixView<const float> gram, std::vector<double>& diagonal,
                                    std::vector<uint32_t>& dead) {
  double sum = 0;
  for (size_t i = 0; i < gram.rows(); ++i) {
    diagonal.push_back(static_cast<double>(gram.row(i)[i]));
    sum += diagonal.back();
    if (diagonal.back() == 0) dead.push_back(static_cast<uint32_t>(i));
  }
  const double mean = sum / static_cast<double>(gram.rows() - dead.size());
  if (!(mean > 0) || !std::isfinite(mean)) return std::nullopt;
  for (const uint32_t input : dead) diagonal[input] = mean;
  return mean;
}

std::vector<uint32_t> by_falling_diagonal(const std::vector<double>& diagonal) {
  std::vector<uint32_t> order(diagonal.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return diagonal[a] > diagonal[b]; });
  return order;
}

// The inputs group by group, groups by falling largest diagonal; the groups' positions.
std::vector<Range> arrange_groups(const std::vector<double>& diagonal, size_t group_size,
                                  std::vector<uint32_t>& order) {
  std::vector<double> largest;
  for (size_t begin = 0; begin < diagonal.size(); begin += group_size) {
    const size_t end = std::min(diagonal.size(), begin + group_size);
    largest.push_back(*std::max_element(diagonal.begin() + static_cast<ptrdiff_t>(begin),
                                        diagonal.begin() + static_cast<ptrdiff_t>(end)));
  }
  std::vector<Range> ranges;
  order.clear();
  for (const size_t group : by_falling_diagonal(largest)) {
    const size_t begin = order.size();
    const size_t end = std::min(diagonal.size(), (group + 1) * group_size);
    for (size_t i = group * group_size; i < end; ++i) order.push_back(static_cast<uint32_t>(i));
    ranges.emplace_back(begin, order.size());
  }
  return ranges;
}

// desc_act: the groups are runs of the inputs by falling diagonal.
std::vector<Range> runs_by_activation(const std::vector<double>& diagonal, size_t group_size,
                                      std::vector<uint32_t>& order) {
  order = by_falling_diagonal(diagonal);
  std::vector<Range> ranges;
  for (size_t begin = 0; begin < order.size(); begin += group_size) {
    ranges.emplace_back(begin, std::min(order.size(), begin + group_size));
  }
  return ranges;
}

void write_result(MatrixView<const float> gram, const std::vector<double>& diagonal, MatrixView<double> r,
                  ThreadPool& pool, FactoredHessian& out) {
  const size_t size = out.size;
  out.damped = AlignedBuffer(size * size * sizeof(float));
  out.factor = AlignedBuffer(size * size * sizeof(float));
  pool.parallel_for(size, 16, [&](size_t begin, size_t end, size_t) {
    for (size_t i = begin; i < end; ++i) {
      float* const damped = out.damped.as<float>() + i * size;
      float* const factor = out.factor.as<float>() + i * size;
      const float* const from = gram.row(out.order[i]);
      for (size_t j = 0; j < size; ++j) damped[j] = from[out.order[j]];
      damped[i] = static_cast<float>(diagonal[out.order[i]]);
      for (size_t j = i; j < size; ++j) factor[j] = static_cast<float>(r.row(i)[j]);
    }
  });
}

}  // namespace

double damping_for(size_t tokens, size_t in_features) {
  const double scarcity = static_cast<double>(in_features) / static_cast<double>(std::max<size_t>(tokens, 1));
  return std::clamp(2 * scarcity, 0.01, 0.2);
}

std::optional<FactoredHessian> factor_hessian(MatrixView<const float> gram, size_t group_size,
                                              ColumnOrder order, double damp, ThreadPool& pool) {
  const size_t size = gram.rows();
  if (size == 0 || gram.cols() != size || !all_finite(gram, pool)) return std::nullopt;
  FactoredHessian out;
  out.size = size;
  out.group_size = group_size == 0 ? size : group_size;
  std::vector<double> diagonal;
  const std::optional<double> mean = read_diagonal(gram, diagonal, out.dead);
  if (!mean) return std::nullopt;

  AlignedBuffer buffer(size * size * sizeof(double));
  const MatrixView<double> r(buffer.as<double>(), size, size);
  for (out.damp = damp; out.damp <= 1; out.damp = 2 * std::max(out.damp, 1e-4)) {
    std::vector<double> damped = diagonal;
    for (double& d : damped) d += out.damp * *mean;
    const std::vector<Range> groups = order == ColumnOrder::kMinPivot
                                          ? arrange_groups(diagonal, out.group_size, out.order)
                                          : runs_by_activation(diagonal, out.group_size, out.order);
    if (!min_pivot_factor(gram, damped, groups, out.order, r, pool)) continue;
    write_result(gram, damped, r, pool, out);
    return out;
  }
  return std::nullopt;
}

}  // namespace nibble
