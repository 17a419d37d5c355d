// A weight's inputs in another order, with g_idx and the columns of x in the same: what stays the same in
// every bit, and what may differ by the rounding of sums alone (kernels/input_groups.h).
//
// Kernels see the inputs sorted by group. So nothing changes
//   - where inputs of a group stay in their order among each other, whatever lies between them;
//   - with quantized activations: where the blocks of 32 keep their inputs, in any order (and with 16 bits
//     runs of 128), since a block's scale is that of its largest input and sums of integers are exact.
// Otherwise, and where groups change places, only the order of a sum of floats is another.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>

#include <gtest/gtest.h>

#include "nibble/kernels/test_weights.h"
#include "nibble/nn/quantized_linear.h"

namespace nibble {
namespace {

constexpr size_t kOrderedOut = 33;
constexpr size_t kOrderedTokens = 5;

using Order = std::vector<size_t>;  // position -> the input that stands there now

QuantizedWeight reordered(const QuantizedWeight& w, const Order& order) {
  QuantizedWeight out = w;
  out.g_idx.resize(w.in_features);
  for (size_t p = 0; p < w.in_features; ++p) {
    out.g_idx[p] = static_cast<uint32_t>(w.group_of(order[p]));
    for (size_t o = 0; o < w.out_features; ++o) {
      out.codes[o * w.in_features + p] = w.codes[o * w.in_features + order[p]];
    }
  }
  return out;
}

std::vector<float> reordered(const std::vector<float>& x, const Order& order) {
  std::vector<float> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = x[i / order.size() * order.size() + order[i % order.size()]];
  }
  return out;
}

// The groups' numbers in another order, with their scales and zero points.
QuantizedWeight renumbered(const QuantizedWeight& w, const Order& order) {
  QuantizedWeight out = w;
  std::vector<uint32_t> place(w.num_groups);
  for (size_t g = 0; g < w.num_groups; ++g) place[order[g]] = static_cast<uint32_t>(g);
  out.g_idx.resize(w.in_features);
  for (size_t i = 0; i < w.in_features; ++i) out.g_idx[i] = place[w.group_of(i)];
  for (size_t g = 0; g < w.num_groups; ++g) {
    for (size_t o = 0; o < w.out_features; ++o) {
      out.scales[g * w.out_features + o] = w.scales[order[g] * w.out_features + o];
      out.zeros[g * w.out_features + o] = w.zeros[order[g] * w.out_features + o];
    }
  }
  return out;
}

Order shuffled(size_t size, std::mt19937& rng) {
  Order order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), rng);
  return order;
}

// Any order of all inputs that leaves those of a group in theirs.
Order merged(const QuantizedWeight& w, std::mt19937& rng) {
  Order groups;  // of the input at each position
  for (size_t i = 0; i < w.in_features; ++i) groups.push_back(w.group_of(i));
  std::shuffle(groups.begin(), groups.end(), rng);
  std::vector<Order> inputs(w.num_groups);
  for (size_t i = w.in_features; i-- > 0;) inputs[w.group_of(i)].push_back(i);
  Order order;
  for (const size_t g : groups) {
    order.push_back(inputs[g].back());
    inputs[g].pop_back();
  }
  return order;
}

// Runs of `length` inputs of one group stay together, in any order among themselves.
Order shuffled_within(const QuantizedWeight& w, size_t length, std::mt19937& rng) {
  std::vector<Order> inputs(w.num_groups);
  for (size_t i = 0; i < w.in_features; ++i) inputs[w.group_of(i)].push_back(i);
  Order order(w.in_features);
  for (const Order& group : inputs) {
    for (size_t begin = 0; begin < group.size(); begin += length) {
      const size_t count = std::min(length, group.size() - begin);
      const Order places = shuffled(count, rng);
      for (size_t i = 0; i < count; ++i) order[group[begin + i]] = group[begin + places[i]];
    }
  }
  return order;
}

enum class Arithmetic { kFloat, kInt8, kInt16 };

std::vector<float> product(const QuantizedWeight& w, const std::vector<float>& x, Arithmetic arithmetic,
                           CpuTarget target) {
  ThreadPool pool(1);
  Arena arena;
  ExecutionContext context{pool, arena};
  const std::unique_ptr<Linear> linear =
      arithmetic == Arithmetic::kFloat
          ? make_float_linear(w, {}, pool, target)
          : make_int8_linear(w, {}, pool,
                             arithmetic == Arithmetic::kInt8 ? ActivationBits::k8 : ActivationBits::k16,
                             target);
  std::vector<float> y(kOrderedTokens * w.out_features);
  linear->forward(MatrixView<const float>(x.data(), kOrderedTokens, w.in_features),
                  MatrixView<float>(y.data(), kOrderedTokens, w.out_features), context);
  return y;
}

bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<WeightCase> grouped_cases() {
  using enum WeightFormula;
  return {{kAffine, kOrderedOut, 256, 4, 32},        {kAffine, kOrderedOut, 256, 4, 128},
          {kAffine, kOrderedOut, 576, 4, 128},  // a ragged last group
          {kAffine, kOrderedOut, 256, 4, 64, true},  {kAffine, kOrderedOut, 256, 3, 64, true},
          {kAffine, kOrderedOut, 384, 8, 128, true}, {kOffset, kOrderedOut, 256, 4, 64}};
}

class InputOrder : public testing::TestWithParam<CpuTarget> {
 protected:
  std::vector<float> x(size_t in_features) const { return random_inputs(kOrderedTokens, in_features, 5); }
  std::mt19937 rng_{static_cast<unsigned>(testing::UnitTest::GetInstance()->random_seed())};
};

INSTANTIATE_TEST_SUITE_P(EveryTarget, InputOrder, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& test) { return std::string(cpu_target_name(test.param)); });

constexpr std::array kEveryArithmetic = {Arithmetic::kFloat, Arithmetic::kInt8, Arithmetic::kInt16};

TEST_P(InputOrder, OfOtherGroupsInBetweenChangesNoBit) {
  for (const WeightCase& c : grouped_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 1);
    const Order order = merged(w, rng_);
    for (const Arithmetic arithmetic : kEveryArithmetic) {
      EXPECT_TRUE(same_bytes(
          product(w, x(c.in_features), arithmetic, GetParam()),
          product(reordered(w, order), reordered(x(c.in_features), order), arithmetic, GetParam())));
    }
  }
}

TEST_P(InputOrder, InsideABlockChangesNoBitOfIntegers) {
  for (const WeightCase& c : grouped_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 1);
    const Order order = shuffled_within(w, 32, rng_);
    for (const Arithmetic arithmetic : {Arithmetic::kInt8, Arithmetic::kInt16}) {
      EXPECT_TRUE(same_bytes(
          product(w, x(c.in_features), arithmetic, GetParam()),
          product(reordered(w, order), reordered(x(c.in_features), order), arithmetic, GetParam())));
    }
  }
}

// The magnitudes of what is added up to y[t][o]: codes and zero points apart, where integers are multiplied,
// and inputs rounded by at most half a step of the largest.
double sum_of_magnitudes(const QuantizedWeight& w, std::span<const float> row, size_t o) {
  float largest = 0.f;
  for (const float value : row) largest = std::max(largest, std::fabs(value));
  double sum = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const size_t s = w.group_of(i) * w.out_features + o;
    const double zero = std::fabs(w.zeros[s]);
    const double code = w.codes[o * w.in_features + i];
    const double parts = w.formula == WeightFormula::kOffset ? std::fabs(w.scales[s]) * code + zero
                                                             : std::fabs(w.scales[s]) * (code + zero);
    sum += (std::fabs(row[i]) + largest / 254.) * parts;
  }
  return sum;
}

// Each sum of K terms is within K + 2 roundings of the exact one, so two of them are within twice that.
void expect_equal_but_for_the_sum(const QuantizedWeight& w, const std::vector<float>& inputs,
                                  const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const auto row = std::span(inputs).subspan(i / kOrderedOut * w.in_features, w.in_features);
    const double roundings = 2 * static_cast<double>(w.in_features + 2);
    ASSERT_NEAR(a[i], b[i], roundings * 0x1p-24 * sum_of_magnitudes(w, row, i % kOrderedOut) + 1e-37)
        << "element " << i;
  }
}

TEST_P(InputOrder, AnyOtherChangesTheRoundingOfSumsAlone) {
  for (const WeightCase& c : grouped_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 1);
    const Order order = shuffled(c.in_features, rng_);
    const std::vector<float> inputs = x(c.in_features);
    expect_equal_but_for_the_sum(
        w, inputs, product(w, inputs, Arithmetic::kFloat, GetParam()),
        product(reordered(w, order), reordered(inputs, order), Arithmetic::kFloat, GetParam()));
  }
}

TEST_P(InputOrder, OfGroupsChangesTheRoundingOfSumsAlone) {
  for (const WeightCase& c : grouped_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 1);
    const QuantizedWeight other = renumbered(w, shuffled(w.num_groups, rng_));
    const std::vector<float> inputs = x(c.in_features);
    for (const Arithmetic arithmetic : kEveryArithmetic) {
      expect_equal_but_for_the_sum(w, inputs, product(w, inputs, arithmetic, GetParam()),
                                   product(other, inputs, arithmetic, GetParam()));
    }
  }
}

}  // namespace
}  // namespace nibble
