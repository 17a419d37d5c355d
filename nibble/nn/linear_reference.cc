#include "nibble/nn/linear_reference.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "nibble/base/float16.h"
#include "nibble/kernels/quantize_inputs.h"

namespace nibble {
namespace {

double dot(const float* a, const float* b, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

float plus_bias(double sum, const std::vector<float>& bias, size_t n) {
  return static_cast<float>(bias.empty() ? sum : sum + double{bias[n]});
}

// Immutable.
class ReferenceDense : public Linear {
 public:
  ReferenceDense(std::vector<float> weight, size_t in_features, std::vector<float> bias, size_t bytes)
      : weight_(std::move(weight)), in_features_(in_features), bias_(std::move(bias)), bytes_(bytes) {}

  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const override {
    context.pool.parallel_for(out_features(), 1, [&](size_t begin, size_t end, size_t) {
      for (size_t n = begin; n < end; ++n) {
        for (size_t t = 0; t < x.rows(); ++t) {
          y.row(t)[n] = plus_bias(dot(x.row(t), weight_.data() + n * in_features_, in_features_), bias_, n);
        }
      }
    });
  }

  size_t in_features() const override { return in_features_; }
  size_t out_features() const override { return weight_.size() / in_features_; }
  size_t weight_bytes() const override { return bytes_; }
  std::string_view kernel() const override { return "reference"; }

 private:
  const std::vector<float> weight_;  // [out_features, in_features]
  const size_t in_features_;
  const std::vector<float> bias_;
  const size_t bytes_;  // of the weight as stored
};

// Immutable.
class ReferenceQuantized : public Linear {
 public:
  ReferenceQuantized(const QuantizedWeight& weight, std::vector<float> bias)
      : weight_(weight), bias_(std::move(bias)) {}

  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const override {
    const Arena::Scope scope(context.arena);
    const size_t in = weight_.in_features;
    float* const rows = context.arena.take<float>(context.pool.num_threads() * in);
    context.pool.parallel_for(weight_.out_features, 1, [&](size_t begin, size_t end, size_t worker) {
      float* const row = rows + worker * in;
      for (size_t n = begin; n < end; ++n) {
        dequantize_rows(weight_, n, n + 1, row);
        for (size_t t = 0; t < x.rows(); ++t) y.row(t)[n] = plus_bias(dot(x.row(t), row, in), bias_, n);
      }
    });
  }

  size_t in_features() const override { return weight_.in_features; }
  size_t out_features() const override { return weight_.out_features; }
  size_t weight_bytes() const override { return weight_.codes.size(); }
  std::string_view kernel() const override { return "reference"; }

 private:
  const QuantizedWeight weight_;
  const std::vector<float> bias_;
};

// LLM.int8 (arXiv:2208.07339) as bitsandbytes computes it on a CPU, step by step: inputs in half
// precision; a column in which any row of the call reaches the threshold is multiplied in floating
// point for all rows, the rest as integers on one scale per row. So a token's result depends on its
// neighbours here, as in the original; the other backend looks at each token by itself.
// Immutable.
class ReferenceInt8 : public Linear {
 public:
  ReferenceInt8(const QuantizedWeight& weight, std::vector<float> bias)
      : weight_(weight), bias_(std::move(bias)) {}

  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const override {
    const Arena::Scope scope(context.arena);
    const size_t in = weight_.in_features;
    float* const weight_rows = context.arena.take<float>(context.pool.num_threads() * in);
    const float threshold = weight_.outlier_threshold;
    float* const codes = context.arena.take<float>(x.rows() * in);
    float* const absmax = context.arena.take<float>(x.rows());
    bool* const outlier_column = context.arena.take<bool>(in);
    std::fill_n(outlier_column, in, false);
    for (size_t t = 0; t < x.rows(); ++t) {
      absmax[t] = 0.f;
      for (size_t i = 0; i < in; ++i) {
        const float magnitude = std::fabs(fp16_to_float(float_to_fp16(x.row(t)[i])));
        if (threshold > 0.f && magnitude >= threshold) {
          outlier_column[i] = true;
        } else {
          absmax[t] = std::max(absmax[t], magnitude);
        }
      }
    }
    for (size_t t = 0; t < x.rows(); ++t) {
      const float inverse = absmax[t] > 0.f ? 1.f / absmax[t] * 127.f : 0.f;
      for (size_t i = 0; i < in; ++i) {
        const float half = fp16_to_float(float_to_fp16(x.row(t)[i]));
        codes[t * in + i] = outlier_column[i] ? 0.f : std::nearbyintf(half * inverse);
      }
    }
    context.pool.parallel_for(weight_.out_features, 1, [&](size_t begin, size_t end, size_t worker) {
      float* const row = weight_rows + worker * in;
      for (size_t n = begin; n < end; ++n) {
        dequantize_rows(weight_, n, n + 1, row);
        for (size_t t = 0; t < x.rows(); ++t) {
          double integers = 0;
          double outliers = 0;
          for (size_t i = 0; i < in; ++i) {
            if (outlier_column[i]) {
              outliers += double{x.row(t)[i]} * double{row[i]};
            } else {
              integers += double{codes[t * in + i]} * (int{weight_.codes[n * in + i]} - 128);
            }
          }
          const float product =
              static_cast<float>(integers) * (absmax[t] * weight_.absmax[n]) * kernels::kInt8ProductScale;
          y.row(t)[n] = plus_bias(double{product} + outliers, bias_, n);
        }
      }
    });
  }

  size_t in_features() const override { return weight_.in_features; }
  size_t out_features() const override { return weight_.out_features; }
  size_t weight_bytes() const override { return weight_.codes.size(); }
  std::string_view kernel() const override { return "reference"; }

 private:
  const QuantizedWeight weight_;
  const std::vector<float> bias_;
};

}  // namespace

Expected<std::unique_ptr<Linear>> make_reference_linear(const Tensor& weight, std::vector<float> bias) {
  NIBBLE_TRY(std::vector<float> values, to_floats(weight));
  return std::make_unique<ReferenceDense>(std::move(values), weight.shape[1], std::move(bias),
                                          weight.bytes.size());
}

std::unique_ptr<Linear> make_reference_linear(const QuantizedWeight& weight, std::vector<float> bias) {
  if (weight.formula == WeightFormula::kRowAbsmax) {
    return std::make_unique<ReferenceInt8>(weight, std::move(bias));
  }
  return std::make_unique<ReferenceQuantized>(weight, std::move(bias));
}

}  // namespace nibble
