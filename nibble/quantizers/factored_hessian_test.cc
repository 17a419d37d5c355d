#include "nibble/quantizers/factored_hessian.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/quantizers/test_matrices.h"

namespace nibble {
namespace {

TestMatrix correlated_gram(size_t in, unsigned seed) {
  return second_moments(correlated_inputs(2 * in, in, seed), 1.0 / static_cast<double>(2 * in));
}

size_t num_groups(size_t size, size_t group_size) { return (size + group_size - 1) / group_size; }

struct Sizes {
  size_t inputs;
  size_t group_size;  // 0: all
};
// A short group, one group, groups that are not whole panels, more than one block of columns, groups
// that need several updates inside.
const std::vector<Sizes> kSizes = {{64, 16}, {72, 16}, {40, 0}, {50, 10}, {300, 20}, {330, 100}, {200, 0}};

std::vector<double> damped_matrix(const TestMatrix& gram, double damp) {
  const size_t n = gram.rows;
  double mean = 0;
  for (size_t i = 0; i < n; ++i) mean += static_cast<double>(gram.at(i, i)) / static_cast<double>(n);
  std::vector<double> out(gram.values.begin(), gram.values.end());
  for (size_t i = 0; i < n; ++i) out[i * n + i] += damp * mean;
  return out;
}

// The order as defined: eliminate one column after the other from the whole matrix.
std::vector<uint32_t> plain_min_pivot_order(std::vector<double> s, const std::vector<size_t>& groups,
                                            size_t group_size) {
  const auto n = static_cast<size_t>(std::sqrt(static_cast<double>(s.size())));
  std::vector<bool> taken(n);
  std::vector<uint32_t> order(n);
  size_t position = n;
  for (size_t k = groups.size(); k-- > 0;) {
    const size_t begin = groups[k] * group_size;
    const size_t end = std::min(n, begin + group_size);
    for (size_t step = begin; step < end; ++step) {
      size_t best = n;
      for (size_t j = begin; j < end; ++j) {
        if (!taken[j] && (best == n || s[j * n + j] < s[best * n + best])) best = j;
      }
      taken[best] = true;
      order[--position] = static_cast<uint32_t>(best);
      const double pivot = s[best * n + best];
      std::vector<double> column(n);
      for (size_t i = 0; i < n; ++i) column[i] = s[i * n + best];
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) s[i * n + j] -= column[i] * column[j] / pivot;
      }
    }
  }
  return order;
}

TEST(FactorHessian, FactorTimesItsTransposeIsTheDampedMatrixInThatOrder) {
  ThreadPool pool(2);
  for (const auto& [size, group_size] : kSizes) {
    const TestMatrix gram = correlated_gram(size, 3);
    for (const ColumnOrder order : {ColumnOrder::kMinPivot, ColumnOrder::kActivation}) {
      const auto h = factor_hessian(gram.view(), group_size, order, 0.05, pool);
      ASSERT_TRUE(h.has_value());
      EXPECT_EQ(h->damp, 0.05);
      const std::vector<double> damped = damped_matrix(gram, 0.05);
      for (size_t i = 0; i < size; ++i) {
        for (size_t j = 0; j < size; ++j) {
          double product = 0;
          for (size_t k = 0; k < size; ++k) {
            product += double{h->factor_view().row(i)[k]} * double{h->factor_view().row(j)[k]};
          }
          const double expected = damped[h->order[i] * size + h->order[j]];
          const double scale = std::sqrt(damped[h->order[i] * (size + 1)] * damped[h->order[j] * (size + 1)]);
          ASSERT_NEAR(product, expected, 1e-5 * scale) << size << "/" << group_size << " " << i << "," << j;
          ASSERT_NEAR(h->damped_view().row(i)[j], expected, 1e-6 * scale);
          if (j < i) {
            ASSERT_EQ(h->factor_view().row(i)[j], 0.f);
          }
        }
      }
    }
  }
}

TEST(FactorHessian, MinPivotOrderIsTheOneOfPlainEliminationAndStaysInsideGroups) {
  ThreadPool pool(2);
  for (const auto& [size, requested] : kSizes) {
    const size_t group_size = requested == 0 ? size : requested;
    const TestMatrix gram = correlated_gram(size, 5);
    const auto h = factor_hessian(gram.view(), requested, ColumnOrder::kMinPivot, 0.01, pool);
    ASSERT_TRUE(h.has_value());
    std::vector<size_t> groups;
    std::vector<float> largest;
    for (size_t p = 0; p < size; ++p) {
      const size_t group = h->order[p] / group_size;
      if (groups.empty() || groups.back() != group) {
        groups.push_back(group);
        largest.push_back(0.f);
      }
      largest.back() = std::max(largest.back(), gram.at(h->order[p], h->order[p]));
    }
    EXPECT_EQ(groups.size(), num_groups(size, group_size));
    EXPECT_TRUE(std::is_sorted(largest.rbegin(), largest.rend()));
    EXPECT_EQ(h->order, plain_min_pivot_order(damped_matrix(gram, 0.01), groups, group_size))
        << size << "/" << group_size;
  }
}

TEST(FactorHessian, ActivationGroupsAreRunsByFallingDiagonal) {
  ThreadPool pool(1);
  constexpr size_t kGroup = 16;
  const TestMatrix gram = correlated_gram(60, 7);
  const auto h = factor_hessian(gram.view(), kGroup, ColumnOrder::kActivation, 0.01, pool);
  ASSERT_TRUE(h.has_value());
  const auto diagonal = [&](size_t p) { return gram.at(h->order[p], h->order[p]); };
  bool sorted = true;
  for (size_t p = 0; p < 60; ++p) {
    for (size_t q = (p / kGroup + 1) * kGroup; q < 60; ++q) EXPECT_GE(diagonal(p), diagonal(q));
    sorted = sorted && (p % kGroup == 0 || diagonal(p - 1) >= diagonal(p));
  }
  EXPECT_FALSE(sorted) << "inside a run the conditional variance decides";
}

TEST(FactorHessian, GivesTheSameBitsForAnyNumberOfThreads) {
  const TestMatrix gram = correlated_gram(330, 11);
  ThreadPool one(1);
  const auto expected = factor_hessian(gram.view(), 100, ColumnOrder::kMinPivot, 0.01, one);
  ASSERT_TRUE(expected.has_value());
  for (const size_t threads : {size_t{2}, size_t{3}}) {
    ThreadPool pool(threads);
    const auto h = factor_hessian(gram.view(), 100, ColumnOrder::kMinPivot, 0.01, pool);
    ASSERT_TRUE(h.has_value());
    EXPECT_EQ(h->order, expected->order);
    const size_t bytes = expected->factor.size();
    EXPECT_TRUE(std::equal(h->factor.data(), h->factor.data() + bytes, expected->factor.data()));
  }
}

TEST(FactorHessian, DeadInputsGetTheMeanOfTheOthersAndNoInfluence) {
  ThreadPool pool(1);
  TestMatrix gram = correlated_gram(32, 13);
  double mean = 0;
  for (size_t i = 0; i < 32; ++i) {
    if (i == 3 || i == 20) {
      for (size_t j = 0; j < 32; ++j) gram.at(i, j) = gram.at(j, i) = 0.f;
    } else {
      mean += static_cast<double>(gram.at(i, i)) / 30;
    }
  }
  const auto h = factor_hessian(gram.view(), 8, ColumnOrder::kMinPivot, 0.05, pool);
  ASSERT_TRUE(h.has_value());
  EXPECT_EQ(h->dead, (std::vector<uint32_t>{3, 20}));
  for (size_t p = 0; p < 32; ++p) {
    if (h->order[p] != 3 && h->order[p] != 20) continue;
    EXPECT_NEAR(h->damped_view().row(p)[p], 1.05 * mean, 1e-5 * mean);
    for (size_t j = p + 1; j < 32; ++j) EXPECT_EQ(h->factor_view().row(p)[j], 0.f);
  }
}

TEST(FactorHessian, RaisesTheDampingWhereTheMatrixIsSingular) {
  ThreadPool pool(1);
  // 8 samples of 32 inputs: rank 8, and rounding to float makes pivots of either sign.
  const TestMatrix gram = second_moments(correlated_inputs(8, 32, 17), 1.0);
  for (const ColumnOrder order : {ColumnOrder::kMinPivot, ColumnOrder::kActivation}) {
    const auto h = factor_hessian(gram.view(), 8, order, 0.0, pool);
    ASSERT_TRUE(h.has_value());
    EXPECT_GE(h->damp, 2e-4);
    EXPECT_LE(h->damp, 1e-2);
  }
}

TEST(FactorHessian, GivesNothingForAMatrixWithoutMeaning) {
  ThreadPool pool(1);
  TestMatrix zeros(16, 16);
  EXPECT_FALSE(factor_hessian(zeros.view(), 8, ColumnOrder::kMinPivot, 0.05, pool));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    TestMatrix gram = correlated_gram(16, 19);
    gram.at(3, 7) = gram.at(7, 3) = bad;
    EXPECT_FALSE(factor_hessian(gram.view(), 8, ColumnOrder::kMinPivot, 0.05, pool));
    EXPECT_FALSE(factor_hessian(gram.view(), 8, ColumnOrder::kActivation, 0.05, pool));
  }
  TestMatrix indefinite = correlated_gram(16, 19);
  for (float& v : indefinite.values) v = v == 0.f ? 0.f : 1.f;
  indefinite.at(0, 1) = indefinite.at(1, 0) = 100.f;
  EXPECT_FALSE(factor_hessian(indefinite.view(), 8, ColumnOrder::kMinPivot, 0.05, pool));
}

TEST(FactoredHessian, FewTokensAreDampedMore) {
  EXPECT_DOUBLE_EQ(damping_for(65536, 512), 2.0 * 512 / 65536);
  EXPECT_DOUBLE_EQ(damping_for(1'000'000, 512), 0.01);
  EXPECT_DOUBLE_EQ(damping_for(512, 4096), 0.2);
  EXPECT_DOUBLE_EQ(damping_for(0, 4096), 0.2);
}

}  // namespace
}  // namespace nibble
