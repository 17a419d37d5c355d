#include "nibble/nn/linear.h"

#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include <gtest/gtest.h>

#include "nibble/kernels/strip_matrix.h"
#include "nibble/kernels/test_weights.h"
#include "nibble/nn/linear8bitlt.h"
#include "nibble/nn/linear_dense.h"
#include "nibble/nn/linear_reference.h"
#include "nibble/nn/quantized_linear.h"

namespace nibble {
namespace {

std::string target_name(const testing::TestParamInfo<CpuTarget>& info) {
  return std::string(cpu_target_name(info.param));
}

class LinearTest : public testing::TestWithParam<CpuTarget> {};
INSTANTIATE_TEST_SUITE_P(EveryTarget, LinearTest, testing::ValuesIn(supported_cpu_targets()), target_name);

std::vector<float> run_linear(const Linear& linear, MatrixView<const float> x, ThreadPool& pool) {
  Arena arena;
  ExecutionContext context{pool, arena};
  std::vector<float> y(x.rows() * linear.out_features(), -1.f);
  linear.forward(x, MatrixView<float>(y.data(), x.rows(), linear.out_features()), context);
  return y;
}

std::vector<float> random_bias(size_t count) { return random_inputs(1, count, 77); }

// A sum of K products of floats in any order, with a bias: each of the K + 1 roundings is off by
// at most half an ulp of a partial sum, which never exceeds the sum of magnitudes.
double float_bound(double magnitude, size_t in_features) {
  return static_cast<double>(in_features + 2) * 0x1p-24 * magnitude + 1e-37;
}

void expect_float_product(const Linear& linear, const std::vector<float>& weight,
                          const std::vector<float>& bias, size_t tokens) {
  ThreadPool pool(1);
  const std::vector<float> inputs = random_inputs(tokens, linear.in_features(), 5);
  const MatrixView<const float> x(inputs.data(), tokens, linear.in_features());
  const ExactProduct exact = exact_product(weight, bias, x);
  const std::vector<float> y = run_linear(linear, x, pool);
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(y[i], exact.y[i], float_bound(exact.magnitude[i], linear.in_features()))
        << "tokens=" << tokens << " element " << i;
  }
}

// Every third token has one input that is so large that int8 codes lose the others.
std::vector<float> spiky_inputs(size_t tokens, size_t in_features, unsigned seed) {
  std::vector<float> x = normal_inputs(tokens, in_features, seed);
  for (size_t t = 0; t < tokens; t += 3) x[t * in_features + (t + 7) % in_features] = -2000.f;
  return x;
}

// The contract of linear.h: a row of y depends on its row of x alone.
void expect_rows_independent(const Linear& linear) {
  constexpr size_t kTokens = 21;
  const size_t in = linear.in_features();
  const size_t out = linear.out_features();
  const std::vector<float> inputs = spiky_inputs(kTokens, in, 6);
  const MatrixView<const float> x(inputs.data(), kTokens, in);
  ThreadPool one(1);
  const std::vector<float> whole = run_linear(linear, x, one);
  ThreadPool three(3);
  const std::vector<float> threaded = run_linear(linear, x, three);
  ASSERT_EQ(std::memcmp(whole.data(), threaded.data(), whole.size() * sizeof(float)), 0) << "threads";
  for (const size_t step : {1u, 2u, 3u, 5u, 8u, 13u}) {
    for (size_t t = 0; t < kTokens; t += step) {
      const size_t count = std::min(step, kTokens - t);
      const std::vector<float> part = run_linear(linear, x.rows(t, count), one);
      ASSERT_EQ(std::memcmp(part.data(), whole.data() + t * out, count * out * sizeof(float)), 0)
          << "rows " << t << " to " << t + count;
    }
  }
}

template <class T>
Tensor dense_tensor(DType dtype, size_t out, size_t in, T (*convert)(float)) {
  std::vector<T> values;
  for (const float v : random_inputs(out, in, 3)) values.push_back(convert(v));
  return Tensor::of(dtype, {out, in}, std::move(values));
}

std::vector<Tensor> dense_tensors(size_t out, size_t in) {
  return {dense_tensor<float>(DType::kF32, out, in, [](float v) { return v; }),
          dense_tensor<uint16_t>(DType::kF16, out, in, float_to_fp16),
          dense_tensor<uint16_t>(DType::kBF16, out, in, float_to_bf16)};
}

TEST_P(LinearTest, DenseProductIsWithinItsRoundingBound) {
  for (const auto& [out, in] : {std::pair<size_t, size_t>{1, 1}, {5, 33}, {32, 64}, {13, 100}, {70, 257}}) {
    for (const Tensor& tensor : dense_tensors(out, in)) {
      SCOPED_TRACE(testing::Message() << "N=" << out << " K=" << in << " " << dtype_name(tensor.dtype));
      const std::vector<float> bias = random_bias(out);
      const auto linear = make_dense_linear(tensor, bias, GetParam());
      for (const size_t tokens : {1u, 2u, 3u, 5u, 8u, 17u, 64u}) {
        expect_float_product(*linear, to_floats(tensor).value(), bias, tokens);
      }
    }
  }
}

TEST_P(LinearTest, DenseRowsAreIndependent) {
  for (const Tensor& tensor : dense_tensors(37, 133)) {
    expect_rows_independent(*make_dense_linear(tensor, random_bias(37), GetParam()));
  }
}

TEST_P(LinearTest, AlignedDenseWeightIsNotCopiedAndAnUnalignedOneWorks) {
  const Tensor tensor = dense_tensor<uint16_t>(DType::kF16, 9, 40, float_to_fp16);
  std::vector<std::byte> shifted(tensor.bytes.size() + 1);
  std::memcpy(shifted.data() + 1, tensor.bytes.data(), tensor.bytes.size());
  const Tensor view{tensor.dtype, tensor.shape, std::span(shifted).subspan(1), nullptr};
  const auto linear = make_dense_linear(view, {}, GetParam());
  std::fill(shifted.begin(), shifted.end(), std::byte{0xFF});  // NaN, if it still looked there
  expect_float_product(*linear, to_floats(tensor).value(), {}, 3);

  std::vector<uint16_t> values(9 * 40, float_to_fp16(1.f));
  const Tensor in_place{DType::kF16, {9, 40}, std::as_bytes(std::span(values)), nullptr};
  const auto direct = make_dense_linear(in_place, {}, GetParam());
  std::fill(values.begin(), values.end(), float_to_fp16(2.f));
  expect_float_product(*direct, std::vector<float>(9 * 40, 2.f), {}, 1);
}

TEST_P(LinearTest, FloatModeIsWithinItsRoundingBound) {
  ThreadPool pool(2);
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 1);
    const std::vector<float> bias = random_bias(c.out_features);
    const auto linear = make_float_linear(w, bias, pool, GetParam());
    for (const size_t tokens : {1u, 2u, 3u, 5u, 8u, 17u, 64u}) {
      expect_float_product(*linear, all_weights(w), bias, tokens);
    }
  }
}

TEST_P(LinearTest, FloatModeRowsAreIndependent) {
  ThreadPool pool(1);
  for (const WeightCase& c : weight_cases()) {
    SCOPED_TRACE(c.name());
    expect_rows_independent(*make_float_linear(random_weight(c, 2), {}, pool, GetParam()));
  }
}

// How far int8 activations may take one output from the exact product. Every input is off by half a
// step of its block; a weight by the rounding of its scale to float16 (2^-11), by the rounding to
// bfloat16 or float16 that the formula has and this path leaves out (2^-9), or by half a step of its
// codebook. Twice the float bound covers the sums.
double int8_bound(const QuantizedWeight& w, const std::vector<float>& weight, const std::vector<float>& steps,
                  MatrixView<const float> x, size_t t, size_t o) {
  double bound = 0;
  for (size_t i = 0; i < w.in_features; ++i) {
    const double magnitude = std::fabs(weight[o * w.in_features + i]);
    double weight_error = magnitude * (0x1p-8 + 0x1p-11);
    double parts = magnitude;
    if (w.formula == WeightFormula::kCodebook) {
      const double absmax = w.absmax[(o * w.in_features + i) / w.group_size];
      weight_error += absmax / 254 * 1.52;  // the step of the grid of bytes is 1 to 1.512 / 127
      parts = 3 * absmax;
    } else {
      const size_t s = w.group_of(i) * w.out_features + o;
      parts = std::fabs(w.scales[s]) * 256 + std::fabs(w.zeros[s]) * (1 + std::fabs(w.scales[s]));
    }
    const double step = steps[t * w.in_features + i];
    const double input = std::fabs(x.row(t)[i]);
    bound += magnitude * step * 0.501 + weight_error * (input + step) +
             parts * (input + step) * static_cast<double>(w.in_features + 8) * 0x1p-23;
  }
  return bound + 1e-30;
}

// [tokens, in_features]: the scale of the span that an input is quantized with.
std::vector<float> span_steps(const kernels::StripMatrix& matrix, MatrixView<const float> x) {
  std::vector<float> steps(x.rows() * x.cols());
  for (size_t t = 0; t < x.rows(); ++t) {
    size_t begin = 0;
    for (const uint32_t end : matrix.view().span_ends) {
      std::vector<size_t> inputs;
      for (size_t p = begin * kernels::kBlockInputs; p < end * kernels::kBlockInputs; ++p) {
        const size_t input = matrix.positions().empty() ? p : matrix.positions()[p];
        if (input < x.cols()) inputs.push_back(input);
      }
      float largest = 0.f;
      for (const size_t i : inputs) largest = std::max(largest, std::fabs(x.row(t)[i]));
      for (const size_t i : inputs) steps[t * x.cols() + i] = largest / 127.f;
      begin = end;
    }
  }
  return steps;
}

constexpr ActivationBits kBothActivations[] = {ActivationBits::k8, ActivationBits::k16};

// The steps of a layer's activations: with two rows of codes, the second divides the first one's step by
// 254, and its own rounding adds a little.
std::vector<float> activation_steps(const QuantizedWeight& w, ActivationBits activations,
                                    MatrixView<const float> x, ThreadPool& pool) {
  const bool fine = activations == ActivationBits::k16;
  std::vector<float> steps = span_steps(kernels::StripMatrix(w, pool, fine ? 4 : 1), x);
  if (fine) {
    for (float& step : steps) step /= 250.f;
  }
  return steps;
}

std::vector<WeightCase> auto_cases() {
  std::vector<WeightCase> cases;
  for (const WeightCase& c : weight_cases()) {
    if (kernels::StripMatrix::suits(random_weight(c, 1))) cases.push_back(c);
  }
  return cases;
}

TEST_P(LinearTest, AutoModeIsWithinTheStepOfItsActivations) {
  ThreadPool pool(2);
  ASSERT_GE(auto_cases().size(), 15u);
  for (const WeightCase& c : auto_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 1);
    const std::vector<float> weight = all_weights(w);
    const std::vector<float> bias = random_bias(c.out_features);
    for (const size_t tokens : {1u, 2u, 3u, 5u, 8u, 17u, 64u}) {
      const ActivationBits activations = kBothActivations[tokens % 2];
      const auto linear = make_int8_linear(w, bias, pool, activations, GetParam());
      const std::vector<float> inputs = random_inputs(tokens, c.in_features, 5);
      const MatrixView<const float> x(inputs.data(), tokens, c.in_features);
      const std::vector<float> steps = activation_steps(w, activations, x, pool);
      const ExactProduct exact = exact_product(weight, bias, x);
      const std::vector<float> y = run_linear(*linear, x, pool);
      for (size_t t = 0; t < tokens; ++t) {
        for (size_t o = 0; o < c.out_features; ++o) {
          const size_t i = t * c.out_features + o;
          const double bound = int8_bound(w, weight, steps, x, t, o) + float_bound(std::fabs(bias[o]), 2);
          ASSERT_NEAR(y[i], exact.y[i], bound) << "tokens=" << tokens << " token " << t << " output " << o;
        }
      }
    }
  }
}

TEST_P(LinearTest, AutoModeRowsAreIndependent) {
  ThreadPool pool(1);
  for (const WeightCase& c : auto_cases()) {
    SCOPED_TRACE(c.name());
    for (const ActivationBits activations : kBothActivations) {
      expect_rows_independent(*make_int8_linear(random_weight(c, 2), {}, pool, activations, GetParam()));
    }
  }
}

TEST_P(LinearTest, AutoModeGivesTheSameBytesOnEveryTarget) {
  ThreadPool pool(1);
  for (const WeightCase& c : auto_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 3);
    const std::vector<float> inputs = spiky_inputs(11, c.in_features, 5);
    const MatrixView<const float> x(inputs.data(), 11, c.in_features);
    const std::vector<float> bias = random_bias(c.out_features);
    for (const ActivationBits activations : kBothActivations) {
      const auto y = run_linear(*make_int8_linear(w, bias, pool, activations, GetParam()), x, pool);
      EXPECT_EQ(y, run_linear(*make_int8_linear(w, bias, pool, activations, CpuTarget::kScalar), x, pool));
    }
  }
}

// The bound above takes every rounding at its worst and of one sign. Roundings are uniform within a
// step and independent, so the error's root mean square is known too: a scale or a zero point that was
// slightly wrong would show here. Symmetric weights: a mean of their own would let a few inputs decide.
TEST_P(LinearTest, AutoModeErrorHasTheSizeThatRoundingPredicts) {
  ThreadPool pool(1);
  constexpr size_t kTokens = 16;
  constexpr size_t kIn = 1024;
  for (const WeightFormula formula : {WeightFormula::kAffine, WeightFormula::kCodebook}) {
    const QuantizedWeight w = random_weight({formula, 64, kIn, 4, 64, false, true}, 5);
    const std::vector<float> weight = all_weights(w);
    const std::vector<float> inputs = normal_inputs(kTokens, kIn, 6);  // no spikes: they have finer steps
    const MatrixView<const float> x(inputs.data(), kTokens, kIn);
    const std::vector<float> steps = span_steps(kernels::StripMatrix(w, pool), x);
    const ExactProduct exact = exact_product(weight, {}, x);
    const std::vector<float> y =
        run_linear(*make_int8_linear(w, {}, pool, ActivationBits::k8, GetParam()), x, pool);
    double error = 0;
    double predicted = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      error += (y[i] - exact.y[i]) * (y[i] - exact.y[i]);
      for (size_t k = 0; k < kIn; ++k) {
        const size_t element = i % w.out_features * kIn + k;
        const size_t input = i / w.out_features * kIn + k;
        const double weight_step =
            formula == WeightFormula::kCodebook ? w.absmax[element / w.group_size] / 127.0 : 0.0;
        predicted += std::pow(double{weight[element]} * steps[input], 2) / 12;
        predicted += std::pow(weight_step * inputs[input], 2) / 12;
      }
    }
    const double ratio = std::sqrt(error / predicted);
    // The grid of bytes for a codebook is chosen to be closer than rounding would be by chance.
    EXPECT_GT(ratio, formula == WeightFormula::kCodebook ? 0.6 : 0.9);
    EXPECT_LT(ratio, 1.1) << "formula " << static_cast<int>(formula);
  }
}

// A spike of an input that the weight hardly looks at: with one row of codes the outputs would be noise.
TEST_P(LinearTest, SpikyTokensAreMultipliedWithSixteenBits) {
  ThreadPool pool(2);
  constexpr size_t kTokens = 7;
  for (const size_t group_size : {32u, 128u}) {
    for (const bool act_order : {false, true}) {
      const WeightCase c = {WeightFormula::kAffine, 40, 512, 4, group_size, act_order, /*equal_zeros=*/true};
      QuantizedWeight w = random_weight(c, 1);
      const std::vector<float> inputs = spiky_inputs(kTokens, c.in_features, 5);
      const MatrixView<const float> x(inputs.data(), kTokens, c.in_features);
      for (size_t t = 0; t < kTokens; t += 3) {
        for (size_t o = 0; o < c.out_features; ++o)
          w.codes[o * c.in_features + t + 7] = 8;  // minus the zero point: 0
      }
      const std::vector<float> bias = random_bias(c.out_features);
      const ExactProduct exact = exact_product(all_weights(w), bias, x);
      const auto linear = make_int8_linear(w, bias, pool, ActivationBits::k8, GetParam());
      Arena arena;
      ExecutionContext context{pool, arena};
      std::vector<float> y(kTokens * c.out_features);
      linear->forward(x, {y.data(), kTokens, c.out_features}, context);
      EXPECT_EQ(context.finer_tokens, 3u);
      for (size_t t = 0; t < kTokens; ++t) {
        double error = 0;
        double size = 0;
        for (size_t i = t * c.out_features; i < (t + 1) * c.out_features; ++i) {
          error += std::pow(y[i] - exact.y[i], 2);
          size += std::pow(exact.y[i], 2);
        }
        EXPECT_LT(std::sqrt(error / size), 0.01) << "token " << t << " group_size " << group_size;
      }
    }
  }
}

// `tokens` at a time, so that 1 makes the plain loops look at each token by itself.
void expect_llm_int8_agrees(OutlierColumns columns, size_t tokens, CpuTarget target) {
  ThreadPool pool(2);
  for (const WeightCase& c : llm_int8_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 1);
    const std::vector<float> bias = random_bias(c.out_features);
    const auto linear = make_linear8bitlt(w, bias, pool, columns, target);
    const auto reference = make_reference_linear(w, bias);
    const std::vector<float> inputs = random_inputs(17, c.in_features, 5);
    const MatrixView<const float> x(inputs.data(), 17, c.in_features);
    const std::vector<float> y = run_linear(*linear, x, pool);
    std::vector<float> expected;
    for (size_t t = 0; t < 17; t += tokens) {
      const std::vector<float> part = run_linear(*reference, x.rows(t, tokens), pool);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    // The integers are the same, so what differs is the rounding of the products and sums in float.
    const ExactProduct exact = exact_product(all_weights(w), bias, x);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_NEAR(y[i], expected[i], 2 * float_bound(3 * exact.magnitude[i], c.in_features))
          << "element " << i;
    }
  }
}

TEST_P(LinearTest, LlmInt8AgreesWithThePlainLoopsTokenByToken) {
  expect_llm_int8_agrees(OutlierColumns::kOfToken, 1, GetParam());
}

TEST_P(LinearTest, LlmInt8AgreesWithThePlainLoopsForABatch) {
  expect_llm_int8_agrees(OutlierColumns::kOfCall, 17, GetParam());
}

TEST_P(LinearTest, LlmInt8GivesTheSameBytesOnEveryTarget) {
  ThreadPool pool(1);
  for (const WeightCase& c : llm_int8_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 3);
    const std::vector<float> inputs = random_inputs(11, c.in_features, 5);
    const MatrixView<const float> x(inputs.data(), 11, c.in_features);
    const auto linear = make_linear8bitlt(w, {}, pool, OutlierColumns::kOfToken, GetParam());
    const auto scalar = make_linear8bitlt(w, {}, pool, OutlierColumns::kOfToken, CpuTarget::kScalar);
    EXPECT_EQ(run_linear(*linear, x, pool), run_linear(*scalar, x, pool));
  }
}

TEST_P(LinearTest, LlmInt8RowsAreIndependent) {
  ThreadPool pool(1);
  for (const WeightCase& c : llm_int8_cases()) {
    SCOPED_TRACE(c.name());
    const QuantizedWeight w = random_weight(c, 2);
    expect_rows_independent(*make_linear8bitlt(w, {}, pool, OutlierColumns::kOfToken, GetParam()));
  }
}

TEST_P(LinearTest, LayersThatShareTheirInputGiveTheBytesOfSeparateCalls) {
  ThreadPool pool(2);
  Arena arena;
  ExecutionContext context{pool, arena};
  const std::vector<float> inputs = spiky_inputs(5, 256, 1);
  const MatrixView<const float> x(inputs.data(), 5, 256);
  for (const ActivationBits activations : kBothActivations) {
    std::vector<std::unique_ptr<Linear>> layers;
    for (const auto& [size, bits] : {std::pair(40u, 4), {16u, 2}, {23u, 3}}) {  // they store inputs alike
      const WeightCase c = {WeightFormula::kAffine, size, 256, bits, 128};
      layers.push_back(
          make_int8_linear(random_weight(c, size), random_bias(size), pool, activations, GetParam()));
    }
    // Bytes: not shared, and the same all the same.
    layers.push_back(make_int8_linear(random_weight({WeightFormula::kAffine, 17, 256, 8, 128}, 3), {}, pool,
                                      activations, GetParam()));
    for (const size_t count : {3u, 4u}) {
      std::vector<std::vector<float>> results;
      std::vector<LinearOutput> outputs;
      for (size_t i = 0; i < count; ++i) results.emplace_back(5 * layers[i]->out_features());
      for (size_t i = 0; i < count; ++i) {
        outputs.push_back({layers[i].get(), {results[i].data(), 5, layers[i]->out_features()}});
      }
      forward_shared(outputs, x, context);
      for (size_t i = 0; i < count; ++i) EXPECT_EQ(results[i], run_linear(*layers[i], x, pool)) << i;
    }
  }
}

TEST_P(LinearTest, AGatedPairGivesTheBytesOfSeparateCalls) {
  ThreadPool pool(3);
  Arena arena;
  ExecutionContext context{pool, arena};
  const auto layer = [&](size_t out, int bits, unsigned seed) {
    return make_int8_linear(random_weight({WeightFormula::kAffine, out, 256, bits, 128}, seed),
                            random_bias(out), pool, ActivationBits::k8, GetParam());
  };
  for (const size_t out : {40u, 700u}) {  // one piece, and many of which the last is short
    const auto gate = layer(out, 4, 1);
    for (const int bits : {2, 3, 4}) {  // other forms of codes for the same activations
      const auto up = layer(out, bits, 2);
      for (const size_t tokens : {16u, 40u}) {
        const std::vector<float> inputs = spiky_inputs(tokens, 256, 1);
        const MatrixView<const float> x(inputs.data(), tokens, 256);
        const std::vector<float> gates = run_linear(*gate, x, pool);
        std::vector<float> expected = run_linear(*up, x, pool);
        for (const kernels::Activation activation :
             {kernels::Activation::kSilu, kernels::Activation::kGeluTanh}) {
          std::vector<float> y(expected.size());
          ASSERT_TRUE(forward_gated(*gate, *up, activation, x, {y.data(), tokens, out}, context));
          std::vector<float> values = expected;
          kernels::activate_and_multiply(activation, gates.data(), values.data(), values.size(),
                                         values.data(), GetParam());
          EXPECT_EQ(y, values) << out << " outputs, " << bits << " bits, " << tokens << " tokens";
        }
      }
    }
    std::vector<float> y(16 * out);
    const std::vector<float> x(16 * 256, 1.f);
    for (const auto& other : {layer(out, 8, 2), layer(out + 1, 4, 2)}) {
      EXPECT_FALSE(forward_gated(*gate, *other, kernels::Activation::kSilu, {x.data(), 16, 256},
                                 {y.data(), 16, out}, context));
    }
    EXPECT_FALSE(forward_gated(*gate, *gate, kernels::Activation::kSilu, {x.data(), 4, 256},
                               {y.data(), 4, out}, context));
  }
}

TEST_P(LinearTest, ANonFiniteInputShowsInItsOwnRowOnly) {
  ThreadPool pool(1);
  const WeightCase affine = {WeightFormula::kAffine, 20, 256, 4, 128};
  std::vector<float> inputs = random_inputs(3, 256, 1);
  inputs[256 + 77] = std::numeric_limits<float>::quiet_NaN();
  for (const ActivationBits activations : kBothActivations) {
    const auto linear = make_int8_linear(random_weight(affine, 1), {}, pool, activations, GetParam());
    const std::vector<float> y = run_linear(*linear, MatrixView<const float>(inputs.data(), 3, 256), pool);
    for (size_t n = 0; n < 20; ++n) {
      EXPECT_TRUE(std::isfinite(y[n]));
      EXPECT_TRUE(std::isnan(y[20 + n]));
      EXPECT_TRUE(std::isfinite(y[40 + n]));
    }
  }
}

TEST(MakeLinear, ChoosesTheKernel) {
  using enum WeightFormula;
  ThreadPool pool(1);
  const auto kernel = [&](const WeightCase& c, const LinearOptions& options) {
    const auto linear = make_linear(random_weight(c, 1), {}, options, pool);
    return linear ? std::string((*linear)->kernel()) : to_string(linear.error());
  };
  const std::string target(cpu_target_name(cpu_target()));
  const LinearOptions exact{.compute = ComputeMode::kF32};
  EXPECT_EQ(kernel({kAffine, 16, 128, 4, 64}, {}), "int4-a8-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 4, 64}, exact), "int4-f32-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 2, 64}, {}), "int2-a8-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 3, 64}, {}), "int3-a8-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 4, 64}, {.activations = ActivationBits::k16}), "int4-a16-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 5, 64}, {}), "int5-a16-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 8, 64}, {}), "int8-a16-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 4, 16}, {}), "int4-f32-" + target);
  EXPECT_EQ(kernel({kCodebook, 16, 128, 4, 64}, {}), "codebook4-a8-" + target);
  EXPECT_EQ(kernel({kCodebook, 16, 100, 4, 64}, {}), "codebook4-f32-" + target);
  EXPECT_EQ(kernel({kRowAbsmax, 16, 128, 8, 0}, exact), "llm-int8-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 4, 64}, {.backend = "exllama_v2"}), "int4-a8-" + target);
  EXPECT_EQ(kernel({kAffine, 16, 128, 4, 64}, {.backend = "reference"}), "reference");
  // Words of codes for a kernel that wants bytes.
  QuantizedWeight words = random_weight({kAffine, 16, 128, 4, 16}, 1);
  std::fill(words.codes.begin(), words.codes.end(), uint8_t{3});
  const QuantizedWeight bytes = words;
  words.words = {Tensor::of(DType::kU32, {256}, std::vector<uint32_t>(256, 0x33333333u)), 16, 1};
  words.codes.clear();
  EXPECT_EQ(with_byte_codes(words).codes, bytes.codes);
  EXPECT_EQ(make_linear(words, {}, {}, pool).value()->kernel(), "int4-f32-" + target);
  EXPECT_EQ(make_linear(words, {}, {.backend = "reference"}, pool).value()->kernel(), "reference");
  const Tensor half = dense_tensor<uint16_t>(DType::kF16, 4, 8, float_to_fp16);
  EXPECT_EQ(make_linear(half, {}, {}).value()->kernel(), "f16-" + target);
  EXPECT_EQ(make_linear(half, {}, {.backend = "reference"}).value()->kernel(), "reference");
}

TEST(MakeLinear, ReferenceIsTheExactProduct) {
  ThreadPool pool(1);
  for (const WeightCase& c : weight_cases()) {
    const QuantizedWeight w = random_weight(c, 1);
    const std::vector<float> bias = random_bias(c.out_features);
    expect_float_product(*make_linear(w, bias, {.backend = "reference"}, pool).value(), all_weights(w), bias,
                         3);
  }
  for (const Tensor& tensor : dense_tensors(9, 33)) {
    expect_float_product(*make_linear(tensor, {}, {.backend = "reference"}).value(),
                         to_floats(tensor).value(), {}, 3);
  }
}

TEST(MakeLinear, AllocatesNothingPerToken) {
  ThreadPool pool(2);
  std::vector<std::unique_ptr<Linear>> linears;
  for (const ComputeMode mode : {ComputeMode::kF32, ComputeMode::kAuto}) {
    std::vector<WeightCase> cases = weight_cases();
    cases.insert(cases.end(), llm_int8_cases().begin(), llm_int8_cases().end());
    for (const WeightCase& c : cases) {
      linears.push_back(
          make_linear(random_weight(c, 1), random_bias(c.out_features), {mode, "auto"}, pool).value());
    }
  }
  linears.push_back(make_linear(dense_tensors(37, 65)[1], {}, {}).value());
  Arena arena;
  ExecutionContext context{pool, arena};
  const std::vector<float> x = random_inputs(1, 1024, 1);
  std::vector<float> y(1024);
  const auto decode_step = [&] {
    for (const auto& linear : linears) {
      linear->forward(MatrixView<const float>(x.data(), 1, linear->in_features()),
                      MatrixView<float>(y.data(), 1, linear->out_features()), context);
    }
  };
  decode_step();
  const size_t allocations = arena.num_allocations();
  for (int step = 0; step < 3; ++step) decode_step();
  EXPECT_EQ(arena.num_allocations(), allocations);
}

TEST(MakeLinear, RefusesInconsistentWeights) {
  ThreadPool pool(1);
  const QuantizedWeight good = random_weight({WeightFormula::kAffine, 8, 64, 4, 32}, 1);
  const auto message = [&](auto change) {
    QuantizedWeight w = good;
    std::vector<float> bias;
    change(w, bias);
    const auto linear = make_linear(w, std::move(bias), {}, pool);
    return linear ? std::string("accepted") : linear.error().what;
  };
  using W = QuantizedWeight;
  using B = std::vector<float>;
  EXPECT_EQ(message([](W&, B&) {}), "accepted");
  EXPECT_EQ(message([](W& w, B&) { w.codes.pop_back(); }), "511 codes where 512 are needed");
  EXPECT_EQ(message([](W& w, B&) { w.codes[3] = 16; }), "a code of 16 in a 4-bit weight");
  const Tensor words = Tensor::of(DType::kU32, {63}, std::vector<uint32_t>(63));
  EXPECT_EQ(message([&](W& w, B&) { w.words = {words, 8, 1}; }), "252 bytes of codes where 256 are needed");
  EXPECT_EQ(message([&](W& w, B&) { w.words = {words, 9, 1}; }), "words of codes for 4 bits and 64 inputs");
  const auto words_message = [&](WeightFormula formula, int bits) {
    return message([&](W& w, B&) {
      w.formula = formula;
      w.bits = bits;
      w.words = {words, 8, 1};
    });
  };
  using enum WeightFormula;
  EXPECT_EQ(words_message(kAffine, 2), "252 bytes of codes where 128 are needed");
  EXPECT_EQ(words_message(kAffine, 3), "words of codes for 3 bits and 64 inputs");
  EXPECT_EQ(words_message(kCodebook, 2), "words of codes for 2 bits and 64 inputs");
  EXPECT_EQ(message([](W& w, B&) { w.scales.pop_back(); }), "15 scales where 16 are needed");
  EXPECT_EQ(message([](W& w, B&) { w.zeros.clear(); }), "0 zeros where 16 are needed");
  EXPECT_EQ(message([](W& w, B&) { w.g_idx.assign(64, 2); }), "g_idx names group 2, but there are 2");
  EXPECT_EQ(message([](W& w, B&) { w.g_idx.assign(63, 0); }), "63 g_idx entries where 64 are needed");
  EXPECT_EQ(message([](W& w, B&) { w.group_size = 31; }), "2 groups, but 64 inputs in groups of 31 need 3");
  EXPECT_EQ(message([](W& w, B&) { w.group_size = 0; }), "group_size 0");
  EXPECT_EQ(message([](W& w, B&) { w.bits = 9; }), "9-bit codes: 2 to 8 are known");
  EXPECT_EQ(message([](W& w, B&) { w.in_features = 0; }), "a weight of shape [8, 0]");
  EXPECT_EQ(message([](W&, B& b) { b.resize(7); }), "7 bias values where 8 are needed");
  EXPECT_EQ(message([](W& w, B&) { w.formula = WeightFormula::kCodebook; }),
            "0 absmax values where 16 are needed");
  EXPECT_EQ(message([](W& w, B&) { w.formula = WeightFormula::kRowAbsmax; }),
            "LLM.int8 with 4 bits: only 8 exist");
}

TEST(MakeLinear, RefusesDenseWeightsThatAreNoMatrix) {
  const Tensor integers = Tensor::of<int32_t>(DType::kI32, {2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(make_linear(integers, {}, {}).error().code, ErrorCode::kUnsupported);
  const Tensor vector = Tensor::of<float>(DType::kF32, {4}, {1, 2, 3, 4});
  EXPECT_EQ(make_linear(vector, {}, {}).error().code, ErrorCode::kInvalidArgument);
  const Tensor empty = Tensor::of<float>(DType::kF32, {0, 4}, {});
  EXPECT_EQ(make_linear(empty, {}, {}).error().code, ErrorCode::kInvalidArgument);
  const Tensor matrix = Tensor::of<float>(DType::kF32, {2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(make_linear(matrix, {1.f, 2.f, 3.f}, {}).error().code, ErrorCode::kInvalidArgument);
}

TEST(MakeLinear, UnknownBackendIsAnsweredWithTheList) {
  const Status status = check_backend("tpu");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().what, "backend \"tpu\" is not known");
  EXPECT_NE(status.error().fix.find("marlin"), std::string::npos);
  for (const std::string_view name :
       {"auto", "reference", "exllama", "gemv_fast", "torch_fused_awq", "llm-awq"}) {
    EXPECT_TRUE(check_backend(name)) << name;
  }
}

}  // namespace
}  // namespace nibble
