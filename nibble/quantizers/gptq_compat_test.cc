#include "nibble/quantizers/gptq_compat.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "nibble/base/sha256.h"
#include "nibble/quantization/formats/encode.h"
#include "nibble/quantizers/round_to_nearest.h"
#include "nibble/quantizers/test_matrices.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

using Doubles = std::vector<double>;

std::vector<float> values_of(const QuantizedWeight& weight) {
  std::vector<float> values(weight.out_features * weight.in_features);
  dequantize_rows(weight, 0, weight.out_features, values.data());
  return values;
}

std::string sha_of_codes(const SolvedWeight& solved) {
  return sha256(std::as_bytes(std::span(solved.weight.codes)));
}

// The algorithm once more, in double where it may be, and as plainly as it is written down.
class Reference {
 public:
  Reference(const TestMatrix& weight, const TestMatrix& hessian, const GptqSettings& settings)
      : rows_(weight.rows),
        n_(weight.cols),
        group_(settings.group_size == 0 ? n_ : settings.group_size),
        settings_(settings),
        w_(weight.values.begin(), weight.values.end()),
        h_(hessian.values.begin(), hessian.values.end()) {}

  std::vector<uint8_t> codes() {
    whole_rows_ = grids(0, n_, w_);
    clear_dead();
    for (size_t k = 0; k * group_ < n_; ++k) static_.push_back(grids(k * group_, group_, w_));
    find_order();
    const Doubles natural = w_;
    for (size_t o = 0; o < rows_; ++o) {
      for (size_t c = 0; c < n_; ++c) w_[o * n_ + c] = natural[o * n_ + order_[c]];
    }
    factor();
    for (size_t first = 0; first < n_; first += 128) block(first, std::min(n_, first + 128));
    return codes_;
  }

  const std::vector<size_t>& order() const { return order_; }

 private:
  // In float32, like the division by the scale: the lowest weight of a symmetric group lies in the middle
  // of two codes, and the rounding of the scale decides.
  struct RowGrid {
    float scale;
    float zero;
  };

  std::vector<RowGrid> grids(size_t begin, size_t count, const Doubles& w) const {
    std::vector<RowGrid> result;
    const float max_code = std::exp2f(static_cast<float>(settings_.bits)) - 1;
    for (size_t o = 0; o < rows_; ++o) {
      float lo = 0;
      float hi = 0;
      for (size_t i = begin; i < std::min(n_, begin + count); ++i) {
        lo = std::min(lo, static_cast<float>(w[o * n_ + i]));
        hi = std::max(hi, static_cast<float>(w[o * n_ + i]));
      }
      if (settings_.sym) hi = std::max(-lo, hi);
      if (settings_.sym && lo < 0) lo = -hi;
      if (lo == 0 && hi == 0) {
        lo = -1;
        hi = 1;
      }
      const float scale = (hi - lo) / max_code;
      result.push_back({scale, settings_.sym ? (max_code + 1) / 2 : std::nearbyint(-lo / scale)});
    }
    return result;
  }

  void clear_dead() {
    for (size_t i = 0; i < n_; ++i) {
      if (h_[i * n_ + i] != 0) continue;
      h_[i * n_ + i] = 1;
      for (size_t o = 0; o < rows_; ++o) w_[o * n_ + i] = 0;
    }
  }

  void sort(size_t begin, size_t end) {
    std::stable_sort(order_.begin() + static_cast<std::ptrdiff_t>(begin),
                     order_.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](size_t a, size_t b) { return h_[a * n_ + a] > h_[b * n_ + b]; });
  }

  void find_order() {
    order_.resize(n_);
    std::iota(order_.begin(), order_.end(), size_t{0});
    if (settings_.desc_act) {
      sort(0, n_);
    } else if (settings_.act_group_aware && settings_.group_size > 0) {
      const size_t full = n_ / group_;
      for (size_t k = 0; k < full; ++k) sort(k * group_, (k + 1) * group_);
      std::vector<size_t> groups(full);
      std::iota(groups.begin(), groups.end(), size_t{0});
      std::stable_sort(groups.begin(), groups.end(), [&](size_t a, size_t b) {
        return h_[order_[a * group_] * (n_ + 1)] > h_[order_[b * group_] * (n_ + 1)];
      });
      const std::vector<size_t> local = order_;
      for (size_t c = 0; c < full * group_; ++c) order_[c] = local[groups[c / group_] * group_ + c % group_];
    }
  }

  // U with UᵀU = H⁻¹, by Gauss-Jordan and Cholesky.
  void factor() {
    double mean = 0;
    for (size_t i = 0; i < n_; ++i) mean += h_[i * n_ + i] / static_cast<double>(n_);
    Doubles a(n_ * n_);
    Doubles inverse(n_ * n_);
    for (size_t i = 0; i < n_; ++i) {
      for (size_t j = 0; j < n_; ++j) a[i * n_ + j] = h_[order_[i] * n_ + order_[j]];
      a[i * n_ + i] += settings_.damp_percent * mean;
      inverse[i * n_ + i] = 1;
    }
    for (size_t p = 0; p < n_; ++p) {
      const double pivot = a[p * n_ + p];
      for (size_t j = 0; j < n_; ++j) {
        a[p * n_ + j] /= pivot;
        inverse[p * n_ + j] /= pivot;
      }
      for (size_t i = 0; i < n_; ++i) {
        const double f = i == p ? 0 : a[i * n_ + p];
        if (f == 0) continue;
        for (size_t j = 0; j < n_; ++j) {
          a[i * n_ + j] -= f * a[p * n_ + j];
          inverse[i * n_ + j] -= f * inverse[p * n_ + j];
        }
      }
    }
    u_.assign(n_ * n_, 0);
    for (size_t j = 0; j < n_; ++j) {
      for (size_t i = j; i < n_; ++i) {
        double sum = inverse[i * n_ + j];
        for (size_t k = 0; k < j; ++k) sum -= u_[k * n_ + i] * u_[k * n_ + j];
        u_[j * n_ + i] = i == j ? std::sqrt(sum) : sum / u_[j * n_ + j];
      }
    }
  }

  void block(size_t first, size_t last) {
    codes_.resize(rows_ * n_);
    Doubles w1 = w_;
    Doubles errors(rows_ * n_);
    for (size_t c = first; c < last; ++c) {
      if (settings_.group_size == 0) {
        grid_ = whole_rows_;
      } else if (settings_.static_groups) {
        grid_ = static_[order_[c] / group_];
      } else if (c % group_ == 0) {
        grid_ = grids(c, group_, w_);
      }
      for (size_t o = 0; o < rows_; ++o) {
        const double w = w1[o * n_ + c];
        const auto [scale, zero] = grid_[o];
        const float code = std::clamp(std::nearbyint(static_cast<float>(w) / scale) + zero, 0.f,
                                      std::exp2f(static_cast<float>(settings_.bits)) - 1);
        codes_[o * n_ + order_[c]] = static_cast<uint8_t>(code);
        const double e = (w - double{scale} * double{code - zero}) / u_[c * n_ + c];
        errors[o * n_ + c] = e;
        for (size_t j = c; j < last; ++j) w1[o * n_ + j] -= e * u_[c * n_ + j];
      }
    }
    for (size_t o = 0; o < rows_; ++o) {
      for (size_t c = first; c < last; ++c) {
        for (size_t j = last; j < n_; ++j) w_[o * n_ + j] -= errors[o * n_ + c] * u_[c * n_ + j];
      }
    }
  }

  size_t rows_;
  size_t n_;
  size_t group_;
  GptqSettings settings_;
  Doubles w_;
  Doubles h_;
  Doubles u_;
  std::vector<size_t> order_;
  std::vector<RowGrid> whole_rows_;
  std::vector<std::vector<RowGrid>> static_;
  std::vector<RowGrid> grid_;
  std::vector<uint8_t> codes_;
};

void expect_agree(const TestMatrix& weight, const TestMatrix& hessian, const GptqSettings& settings) {
  ThreadPool pool(2);
  const SolvedWeight solved =
      solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), settings, pool));
  EXPECT_FALSE(solved.rounded_to_nearest);
  const std::vector<uint8_t> expected = Reference(weight, hessian, settings).codes();
  size_t different = 0;
  for (size_t k = 0; k < expected.size(); ++k) different += expected[k] != solved.weight.codes[k];
  EXPECT_EQ(different, 0u);
}

// The layer of the vectors that the original code computed: input 5 is loud, 9 is dead.
class OriginalVectors : public testing::Test {
 protected:
  OriginalVectors() : weight_(formula_weight(8, 32)), hessian_(make_hessian()) {}

  static TestMatrix make_hessian() {
    TestMatrix x = formula_inputs(64, 32);
    x.scale_column(5, 4.f);
    x.scale_column(20, 2.f);
    x.scale_column(9, 0.f);
    return second_moments(x, 2.0);
  }

  SolvedWeight solve(GptqSettings settings) {
    settings.damp_percent = 0.01;
    settings.act_group_aware = false;
    return solved_or_fail(quantize_gptq_compat(weight_.view(), hessian_.view(), settings, pool_));
  }

  static std::vector<uint32_t> words(const SolvedWeight& solved, size_t count) {
    std::vector<uint32_t> result(count);
    for (size_t o = 0; o < count; ++o) {
      for (size_t i = 0; i < 8; ++i) {
        result[o] |= uint32_t{solved.weight.codes[o * solved.weight.in_features + i]} << (4 * i);
      }
    }
    return result;
  }

  static std::vector<uint16_t> halves(const SolvedWeight& solved, size_t group) {
    std::vector<uint16_t> result;
    for (size_t o = 0; o < 8; ++o) result.push_back(float_to_fp16(solved.weight.scales[group * 8 + o]));
    return result;
  }

  ThreadPool pool_{2};
  TestMatrix weight_;
  TestMatrix hessian_;
};

TEST_F(OriginalVectors, FourBitsSymmetricWholeRows) {
  const SolvedWeight solved = solve({.bits = 4, .group_size = 0, .sym = true});
  EXPECT_EQ(sha_of_codes(solved), "c68081886fff690127c7fc975af101b62c3e0d2692de3d811ef03b9aa8f9fc0c");
  EXPECT_THAT(words(solved, 8), ElementsAre(0xe72c8420u, 0x3b5fa742u, 0x7f82d964u, 0xa2b61c96u, 0xf6f93fb8u,
                                            0x2a2c61dau, 0x6d6e94fcu, 0xa192c72eu));
  EXPECT_THAT(halves(solved, 0), ElementsAre(0x3033, 0x301a, 0x3004, 0x301c, 0x2f84, 0x2fc9, 0x3033, 0x3011));
  EXPECT_THAT(solved.weight.zeros, testing::Each(8.f));
}

TEST_F(OriginalVectors, FourBitsAsymmetricGroups) {
  const SolvedWeight solved = solve({.bits = 4, .group_size = 16, .sym = false});
  EXPECT_EQ(sha_of_codes(solved), "cd00aa13ec59e2f0aeae486dedb4d58570fa8cee1fddd8cc84ea262cab3ade1d");
  EXPECT_THAT(words(solved, 8), ElementsAre(0xe71c8420u, 0x1a3fa631u, 0x5f70d952u, 0xa3b50c96u, 0xf6f93fb8u,
                                            0x1a1d50fbu, 0x4c3d71ebu, 0xa091c61fu));
  EXPECT_THAT(solved.weight.zeros, ElementsAre(8, 7, 7, 8, 8, 8, 6, 8, 6, 8, 9, 7, 7, 7, 8, 6));
  EXPECT_THAT(halves(solved, 0), ElementsAre(0x3022, 0x2f42, 0x2eb1, 0x3012, 0x2f5a, 0x2e6b, 0x2f20, 0x2f06));
  EXPECT_THAT(halves(solved, 1), ElementsAre(0x2ef1, 0x2ff7, 0x2f06, 0x2f91, 0x2f1c, 0x2f91, 0x2fcb, 0x2ed3));
  EXPECT_THAT(solved.weight.g_idx, testing::IsEmpty());
}

TEST_F(OriginalVectors, ActivationOrder) {
  const SolvedWeight solved = solve({.bits = 4, .group_size = 16, .sym = true, .desc_act = true});
  EXPECT_EQ(sha_of_codes(solved), "adfa721465781c13c2a74888d7619b13bd71993681a564b2a0dacc5dcf4659c3");
  EXPECT_THAT(words(solved, 8), ElementsAre(0xe71c7421u, 0x2b4fb742u, 0x6f82d963u, 0xa2b60c96u, 0xf6f92fb8u,
                                            0x292c61eau, 0x6d6e94fdu, 0xa192c61eu));
  std::string g_idx;
  for (const uint32_t k : solved.weight.g_idx) g_idx += std::to_string(k);
  EXPECT_EQ(g_idx, "11000000011010111010001111101100");
}

TEST_F(OriginalVectors, ActivationOrderWithStaticGroups) {
  const SolvedWeight solved =
      solve({.bits = 4, .group_size = 16, .sym = true, .desc_act = true, .static_groups = true});
  EXPECT_EQ(sha_of_codes(solved), "8e7c77c6647dd4596b570c86d0b26bdc203b2132bd95737c8a492f4afbb71196");
  EXPECT_THAT(words(solved, 8), ElementsAre(0xe82b7421u, 0x2b5fb742u, 0x6f82d964u, 0xa2b61c86u, 0xe6f93fb8u,
                                            0x2a2c61ebu, 0x6d6e93fdu, 0xa191c62fu));
  EXPECT_THAT(solved.weight.g_idx, testing::IsEmpty()) << "the groups are natural";
}

TEST_F(OriginalVectors, ThreeAndTwoBits) {
  EXPECT_EQ(sha_of_codes(solve({.bits = 3, .group_size = 32, .sym = false})),
            "567ed1eaecbd096e62bda0e9bb4f9e6fb998e96953dc1f650bd12282fa0da00f");
  EXPECT_EQ(sha_of_codes(solve({.bits = 2, .group_size = 16, .sym = true})),
            "f0ab849839df660711230fa33646620d7caa95be5703335b69248d33421c8480");
}

TEST_F(OriginalVectors, OrdersOfTheReferenceAreTheOriginals) {
  Reference activation(weight_, hessian_, {.group_size = 16, .desc_act = true});
  activation.codes();
  EXPECT_THAT(activation.order(), ElementsAre(5, 20, 27, 11, 13, 19, 4, 3, 31, 17, 6, 30, 7, 21, 8, 2, 18, 22,
                                              10, 14, 15, 16, 28, 0, 1, 29, 23, 26, 24, 12, 25, 9));
  TestMatrix x = formula_inputs(64, 32);
  x.scale_column(5, 4.f);
  x.scale_column(20, 2.f);
  x.scale_column(9, 0.f);
  Reference group_aware(weight_, second_moments(x, 1.0), {.group_size = 8});
  group_aware.codes();
  EXPECT_THAT(group_aware.order(), ElementsAre(5, 4, 3, 6, 7, 2, 0, 1, 20, 19, 17, 21, 18, 22, 16, 23, 27, 31,
                                               30, 28, 29, 26, 24, 25, 11, 13, 8, 10, 14, 15, 12, 9));
}

TEST_F(OriginalVectors, DeadInputBecomesZero) {
  for (const bool desc_act : {false, true}) {
    const SolvedWeight solved = solve({.bits = 4, .group_size = 16, .desc_act = desc_act});
    const std::vector<float> values = values_of(solved.weight);
    for (size_t o = 0; o < 8; ++o) EXPECT_EQ(values[o * 32 + 9], 0.f);
  }
}

TEST_F(OriginalVectors, SurviveTheLayoutOnDisk) {
  TestMatrix weight = formula_weight(32, 32);
  const SolvedWeight solved = solved_or_fail(
      quantize_gptq_compat(weight.view(), hessian_.view(), {.group_size = 16, .desc_act = true}, pool_));
  EXPECT_TRUE(encode_affine(solved.weight, AffineLayout::kGptq).has_value());
}

struct SolverCase {
  std::string name;
  GptqSettings settings;
  size_t in_features = 256;
};

std::string name_of_case(const testing::TestParamInfo<SolverCase>& tested) { return tested.param.name; }

class GptqCompatCases : public testing::TestWithParam<SolverCase> {};
INSTANTIATE_TEST_SUITE_P(
    All, GptqCompatCases,
    testing::Values(
        SolverCase{"StaleGridsInsideABlock", {.group_size = 32, .act_group_aware = false}},
        SolverCase{"GroupAcrossBlocks", {.group_size = 256, .act_group_aware = false}, 384},
        SolverCase{"GroupThatStartsInsideABlock", {.group_size = 96, .sym = false, .act_group_aware = false}},
        SolverCase{"ShortLastGroup", {.group_size = 48, .act_group_aware = false}, 200},
        SolverCase{"WholeRows", {.group_size = 0, .sym = false}},
        SolverCase{"GroupAware", {.group_size = 32}},
        SolverCase{"GroupAwareAsymmetric", {.bits = 3, .group_size = 64, .sym = false}},
        SolverCase{"GroupAwareWithTail", {.group_size = 48}, 200},
        SolverCase{"GroupLargerThanTheInputs", {.group_size = 512}, 200},
        SolverCase{"GroupAwareStatic", {.group_size = 32, .static_groups = true}},
        SolverCase{"ActivationOrder", {.group_size = 32, .desc_act = true}},
        SolverCase{"ActivationOrderStatic", {.group_size = 32, .desc_act = true, .static_groups = true}},
        SolverCase{"EightBits", {.bits = 8, .group_size = 128, .sym = false}},
        SolverCase{"LittleDamping", {.group_size = 64, .damp_percent = 0.001}}),
    name_of_case);

TEST_P(GptqCompatCases, AgreeWithAPlainTranscription) {
  const TestMatrix weight = random_matrix(37, GetParam().in_features, 1);
  TestMatrix x = correlated_inputs(400, GetParam().in_features, 2);
  x.scale_column(17, 0.f);
  expect_agree(weight, second_moments(x, 2.0 / 400), GetParam().settings);
}

TEST_P(GptqCompatCases, GiveTheSameBytesForAnyNumberOfThreads) {
  const TestMatrix weight = random_matrix(101, GetParam().in_features, 3);
  const TestMatrix hessian = second_moments(correlated_inputs(300, GetParam().in_features, 4), 2.0 / 300);
  ThreadPool one(1);
  const SolvedWeight expected =
      solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), GetParam().settings, one));
  for (const size_t threads : {size_t{2}, size_t{3}}) {
    ThreadPool pool(threads);
    const SolvedWeight solved =
        solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), GetParam().settings, pool));
    EXPECT_EQ(solved.weight.codes, expected.weight.codes);
    EXPECT_EQ(solved.weight.scales, expected.weight.scales);
    EXPECT_EQ(solved.weight.zeros, expected.weight.zeros);
    EXPECT_EQ(solved.weight.g_idx, expected.weight.g_idx);
    EXPECT_EQ(solved.loss, expected.loss);
  }
}

double plain_loss(const TestMatrix& weight, const TestMatrix& hessian, const QuantizedWeight& quantized) {
  const std::vector<float> values = values_of(quantized);
  double error = 0;
  double whole = 0;
  for (size_t o = 0; o < weight.rows; ++o) {
    for (size_t i = 0; i < weight.cols; ++i) {
      for (size_t j = 0; j < weight.cols; ++j) {
        const double h = hessian.at(i, j);
        const double ei = double{weight.at(o, i)} - double{values[o * weight.cols + i]};
        const double ej = double{weight.at(o, j)} - double{values[o * weight.cols + j]};
        error += ei * h * ej;
        whole += double{weight.at(o, i)} * h * double{weight.at(o, j)};
      }
    }
  }
  return error / whole;
}

TEST(GptqCompat, LossIsThatOfTheDequantizedWeight) {
  const TestMatrix weight = random_matrix(24, 700, 5);  // more columns than are multiplied at a time
  const TestMatrix hessian = second_moments(correlated_inputs(900, 700, 6), 2.0 / 900);
  ThreadPool pool(2);
  const SolvedWeight solved = solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), {}, pool));
  const double expected = plain_loss(weight, hessian, solved.weight);
  EXPECT_NEAR(solved.loss, expected, 1e-5 * expected);
  EXPECT_EQ(solved.damp, 0.05);
  const SolvedWeight nearest = solved_or_fail(round_to_nearest(weight.view(), {}, pool));
  EXPECT_LT(solved.loss, 0.8 * plain_loss(weight, hessian, nearest.weight));
  for (const float scale : solved.weight.scales) EXPECT_EQ(fp16_to_float(float_to_fp16(scale)), scale);
}

TEST(GptqCompat, ActivationOrderDequantizesThroughGIdx) {
  const TestMatrix weight = random_matrix(16, 128, 7);
  const TestMatrix hessian = second_moments(correlated_inputs(300, 128, 8), 1.0);
  ThreadPool pool(2);
  const SolvedWeight solved = solved_or_fail(
      quantize_gptq_compat(weight.view(), hessian.view(), {.group_size = 32, .desc_act = true}, pool));
  ASSERT_EQ(solved.weight.g_idx.size(), 128u);
  std::vector<size_t> counts(4);
  for (const uint32_t group : solved.weight.g_idx) ++counts.at(group);
  EXPECT_THAT(counts, testing::Each(32u));
  EXPECT_LT(solved.loss, 0.02);
}

TEST(GptqCompat, RowsOfZerosAndRowsWithoutNegativeWeights) {
  TestMatrix weight = random_matrix(4, 64, 9);
  for (size_t i = 0; i < 64; ++i) {
    weight.at(1, i) = 0.f;
    weight.at(2, i) = std::fabs(weight.at(2, i));
  }
  const TestMatrix hessian = second_moments(correlated_inputs(200, 64, 10), 1.0);
  ThreadPool pool(1);
  const SolvedWeight solved =
      solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), {.group_size = 0}, pool));
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(solved.weight.codes[64 + i], 8);
  const float largest = *std::max_element(weight.values.begin() + 128, weight.values.begin() + 192);
  EXPECT_EQ(solved.weight.scales[2], fp16_to_float(float_to_fp16(largest / 15.f)));
  expect_agree(weight, hessian, {.group_size = 0});
  expect_agree(weight, hessian, {.group_size = 16});
}

TEST(GptqCompat, OneTokenIsEnoughForAHessian) {
  const TestMatrix weight = random_matrix(16, 160, 11);
  const TestMatrix hessian = second_moments(random_matrix(1, 160, 12), 2.0);
  expect_agree(weight, hessian, {.group_size = 32});
}

TEST(GptqCompat, ClipSearchChangesTheGrids) {
  const TestMatrix weight = random_matrix(16, 128, 13);
  const TestMatrix hessian = second_moments(correlated_inputs(300, 128, 14), 1.0);
  ThreadPool pool(2);
  const GptqSettings plain{.bits = 3, .group_size = 64};
  GptqSettings clipped = plain;
  clipped.mse = 2.4;
  const SolvedWeight a = solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), plain, pool));
  const SolvedWeight b = solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), clipped, pool));
  EXPECT_LT(b.loss, a.loss);
}

TEST(GptqCompatDamping, GrowsUntilTheHessianCanBeFactored) {
  TestMatrix hessian(2, 2);
  hessian.values = {1.f, 1.195f, 1.195f, 1.f};  // smallest eigenvalue -0.195
  const TestMatrix weight = random_matrix(3, 2, 15);
  ThreadPool pool(1);
  const SolvedWeight solved =
      solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), {.group_size = 2}, pool));
  EXPECT_NEAR(solved.damp, 0.2, 1e-9);
  EXPECT_FALSE(solved.rounded_to_nearest);
}

TEST(GptqCompatDamping, RaisesTheDiagonalWhereDampingDoesNotHelp) {
  TestMatrix hessian(2, 2);
  hessian.values = {1.f, 0.f, 0.f, -1.f};  // the mean diagonal is 0, and so is any share of it
  const TestMatrix weight = random_matrix(3, 2, 16);
  ThreadPool pool(1);
  const SolvedWeight solved =
      solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), {.group_size = 2}, pool));
  EXPECT_EQ(solved.damp, 0.05);
  EXPECT_FALSE(solved.rounded_to_nearest);
}

TEST(GptqCompat, RoundsToNearestWhereNothingCanBeFactored) {
  const TestMatrix weight = random_matrix(5, 64, 17);
  ThreadPool pool(2);
  const SolvedWeight nearest = solved_or_fail(round_to_nearest(weight.view(), {.group_size = 16}, pool));
  TestMatrix indefinite(64, 64);
  for (size_t i = 0; i < 64; ++i) indefinite.at(i, 63 - i) = 5.f;
  for (size_t i = 0; i < 64; ++i) indefinite.at(i, i) = 1.f;
  TestMatrix nan = second_moments(random_matrix(100, 64, 18), 1.0);
  nan.at(3, 4) = nan.at(4, 3) = std::numeric_limits<float>::quiet_NaN();
  TestMatrix infinite = nan;
  infinite.at(3, 4) = infinite.at(4, 3) = std::numeric_limits<float>::infinity();
  for (const TestMatrix& hessian : {indefinite, nan, infinite, TestMatrix(64, 64)}) {
    const SolvedWeight solved =
        solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), {.group_size = 16}, pool));
    EXPECT_TRUE(solved.rounded_to_nearest);
    EXPECT_EQ(solved.weight.codes, nearest.weight.codes);
    EXPECT_EQ(solved.weight.scales, nearest.weight.scales);
  }
}

TEST(GptqCompat, RoundsToNearestWhereTheLossIsNotANumber) {
  TestMatrix weight = random_matrix(5, 64, 19);
  weight.at(2, 7) = std::numeric_limits<float>::quiet_NaN();
  const TestMatrix hessian = second_moments(correlated_inputs(200, 64, 20), 1.0);
  ThreadPool pool(2);
  const SolvedWeight solved = solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), {}, pool));
  EXPECT_TRUE(solved.rounded_to_nearest);
}

TEST(GptqCompat, AvoidsZeroPointsThatTheLayoutCannotStore) {
  TestMatrix weight = random_matrix(32, 64, 21);
  for (float& w : weight.values) w = std::fabs(w);
  const TestMatrix hessian = second_moments(correlated_inputs(200, 64, 22), 1.0);
  ThreadPool pool(2);
  GptqSettings settings{.group_size = 32, .sym = false};
  SolvedWeight solved = solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), settings, pool));
  EXPECT_FALSE(encode_affine(solved.weight, AffineLayout::kGptq).has_value());
  settings.zero_may_be_0 = false;
  solved = solved_or_fail(quantize_gptq_compat(weight.view(), hessian.view(), settings, pool));
  EXPECT_TRUE(encode_affine(solved.weight, AffineLayout::kGptq).has_value());
}

TEST(GptqCompat, RefusesWhatItCannotDo) {
  const TestMatrix weight = random_matrix(2, 4, 23);
  ThreadPool pool(1);
  const auto code = [&](const TestMatrix& hessian, const GptqSettings& settings) {
    const auto solved = quantize_gptq_compat(weight.view(), hessian.view(), settings, pool);
    return solved ? ErrorCode::kCancelled : solved.error().code;
  };
  EXPECT_EQ(code(TestMatrix(3, 3), {}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(TestMatrix(4, 4), {.bits = 1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(TestMatrix(4, 4), {.bits = 9}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(TestMatrix(4, 4), {.damp_percent = 1.0}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(TestMatrix(4, 4), {.damp_auto_increment = -0.1}), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble
