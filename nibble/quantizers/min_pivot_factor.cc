#include "nibble/quantizers/min_pivot_factor.h"

#include <algorithm>
#include <cmath>

#include "nibble/base/aligned_buffer.h"
#include "nibble/linalg/cholesky.h"
#include "nibble/linalg/gemm.h"

namespace nibble {
namespace {

// Columns that are brought up to date with all later ones in one product.
constexpr size_t kBlockColumns = 256;
// Steps inside a group between two updates of its remainder.
constexpr size_t kStepsPerUpdate = 64;

MatrixView<double> block(MatrixView<double> m, size_t row, size_t rows, size_t col, size_t cols) {
  return m.rows(row, rows).cols(col, cols);
}

// c -= a bᵀ
void subtract_product(MatrixView<double> a, MatrixView<double> b, MatrixView<double> c, ThreadPool& pool) {
  linalg::GemmOptions options;
  options.accumulate = true;
  options.negate = true;
  linalg::gemm({a, false}, {b, true}, c, options, pool);
}

// The factor of one group. Its matrix lies in the lower triangle of s, except for the diagonal, which is
// kept up to date at every step; columns of the factor are written to the upper triangle and s_pp.
class PivotedGroup {
 public:
  PivotedGroup(MatrixView<double> s, std::vector<uint32_t> inputs)
      : s_(s), inputs_(std::move(inputs)), source_(inputs_.size()), diagonal_(inputs_.size()) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      source_[i] = i;
      diagonal_[i] = s.row(i)[i];
    }
  }

  bool run(ThreadPool& pool) {
    size_t done = s_.rows();  // columns from here on have been taken out of the rest
    for (size_t p = s_.rows(); p-- > 0;) {
      swap(smallest(p), p);
      if (!(diagonal_[p] > 0) || !std::isfinite(diagonal_[p])) return false;
      eliminate(p, done);
      if (done - p == kStepsPerUpdate && p > 0) {
        const MatrixView<double> columns = block(s_, 0, p, p, done - p);
        linalg::GemmOptions options;
        options.accumulate = true;
        options.negate = true;
        options.lower_triangle = true;
        // The diagonal is part of the result but lives elsewhere: what is written there is not used.
        linalg::gemm({columns, false}, {columns, true}, block(s_, 0, p, 0, p), options, pool);
        done = p;
      }
    }
    return true;
  }

  const std::vector<size_t>& source() const { return source_; }  // where position p was
  const std::vector<uint32_t>& inputs() const { return inputs_; }

 private:
  size_t smallest(size_t p) const {
    size_t best = 0;
    for (size_t i = 1; i <= p; ++i) {
      if (diagonal_[i] < diagonal_[best] || (diagonal_[i] == diagonal_[best] && inputs_[i] < inputs_[best])) {
        best = i;
      }
    }
    return best;
  }

  void swap(size_t j, size_t p) {
    if (j == p) return;
    for (size_t t = 0; t < j; ++t) std::swap(s_.row(j)[t], s_.row(p)[t]);
    for (size_t t = j + 1; t < p; ++t) std::swap(s_.row(t)[j], s_.row(p)[t]);
    for (size_t t = p + 1; t < s_.cols(); ++t) std::swap(s_.row(j)[t], s_.row(p)[t]);
    std::swap(diagonal_[j], diagonal_[p]);
    std::swap(inputs_[j], inputs_[p]);
    std::swap(source_[j], source_[p]);
  }

  void eliminate(size_t p, size_t done) {
    const double root = std::sqrt(diagonal_[p]);
    s_.row(p)[p] = root;
    for (size_t i = 0; i < p; ++i) {
      double value = s_.row(p)[i];
      for (size_t t = p + 1; t < done; ++t) value -= s_.row(i)[t] * s_.row(p)[t];
      value /= root;
      s_.row(i)[p] = value;
      diagonal_[i] -= value * value;
    }
  }

  MatrixView<double> s_;
  std::vector<uint32_t> inputs_;
  std::vector<size_t> source_;
  std::vector<double> diagonal_;
};

class MinPivotFactor {
 public:
  MinPivotFactor(MatrixView<const float> gram, std::span<const double> diagonal, std::vector<uint32_t>& order,
                 MatrixView<double> r, ThreadPool& pool)
      : gram_(gram), diagonal_(diagonal), order_(order), r_(r), pool_(pool) {}

  // Columns [begin, end), whole groups, from the matrix and the factor's columns behind them.
  void start_block(size_t begin, size_t end) {
    pool_.parallel_for(end, 16, [&](size_t first, size_t last, size_t) {
      for (size_t i = first; i < last; ++i) {
        const float* const from = gram_.row(order_[i]);
        for (size_t j = begin; j < end; ++j) {
          r_.row(i)[j] = i == j ? diagonal_[order_[i]] : static_cast<double>(from[order_[j]]);
        }
      }
    });
    const size_t behind = r_.cols() - end;
    if (behind == 0) return;
    subtract_product(block(r_, 0, end, end, behind), block(r_, begin, end - begin, end, behind),
                     block(r_, 0, end, begin, end - begin), pool_);
  }

  bool factor_group(size_t begin, size_t end, size_t block_begin) {
    const size_t width = end - begin;
    AlignedBuffer own(width * width * sizeof(double));
    const MatrixView<double> s(own.as<double>(), width, width);
    for (size_t i = 0; i < width; ++i) std::copy_n(r_.row(begin + i) + begin, i + 1, s.row(i));
    PivotedGroup factor(
        s, {order_.begin() + static_cast<ptrdiff_t>(begin), order_.begin() + static_cast<ptrdiff_t>(end)});
    if (!factor.run(pool_)) return false;
    std::copy(factor.inputs().begin(), factor.inputs().end(), order_.begin() + static_cast<ptrdiff_t>(begin));
    permute_rows(begin, end, factor.source());
    for (size_t i = 0; i < width; ++i) {
      std::fill_n(s.row(i), i, 0.0);
      std::copy_n(s.row(i), width, r_.row(begin + i) + begin);
    }
    if (begin == 0) return true;
    // Rows before the group: v Rᵀ = their columns, permuted.
    AlignedBuffer copy(begin * width * sizeof(double));
    const MatrixView<double> columns(copy.as<double>(), begin, width);
    pool_.parallel_for(begin, 16, [&](size_t first, size_t last, size_t) {
      for (size_t i = first; i < last; ++i) {
        for (size_t p = 0; p < width; ++p) columns.row(i)[p] = r_.row(i)[begin + factor.source()[p]];
      }
    });
    linalg::invert_upper(s, pool_);
    const MatrixView<double> solved = block(r_, 0, begin, begin, width);
    linalg::gemm({columns, false}, {s, true}, solved, {}, pool_);
    if (begin > block_begin) {
      subtract_product(solved, block(r_, block_begin, begin - block_begin, begin, width),
                       block(r_, 0, begin, block_begin, begin - block_begin), pool_);
    }
    return true;
  }

 private:
  // The group's rows in the columns that are done already.
  void permute_rows(size_t begin, size_t end, const std::vector<size_t>& source) {
    const size_t behind = r_.cols() - end;
    if (behind == 0) return;
    std::vector<double> copy((end - begin) * behind);
    for (size_t i = 0; i < end - begin; ++i) {
      std::copy_n(r_.row(begin + source[i]) + end, behind, copy.data() + i * behind);
    }
    for (size_t i = 0; i < end - begin; ++i) {
      std::copy_n(copy.data() + i * behind, behind, r_.row(begin + i) + end);
    }
  }

  MatrixView<const float> gram_;
  std::span<const double> diagonal_;
  std::vector<uint32_t>& order_;
  MatrixView<double> r_;
  ThreadPool& pool_;
};

}  // namespace

bool min_pivot_factor(MatrixView<const float> gram, std::span<const double> diagonal,
                      std::span<const std::pair<size_t, size_t>> groups, std::vector<uint32_t>& order,
                      MatrixView<double> r, ThreadPool& pool) {
  MinPivotFactor factor(gram, diagonal, order, r, pool);
  for (size_t last = groups.size(); last > 0;) {
    const size_t end = groups[last - 1].second;
    size_t first = last - 1;
    while (first > 0 && end - groups[first - 1].first <= kBlockColumns) --first;
    const size_t begin = groups[first].first;
    factor.start_block(begin, end);
    for (; last > first; --last) {
      if (!factor.factor_group(groups[last - 1].first, groups[last - 1].second, begin)) return false;
    }
  }
  return true;
}

}  // namespace nibble
