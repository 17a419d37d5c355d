#include "nibble/nn/linear8bitlt.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "nibble/kernels/quantize_inputs.h"
#include "nibble/kernels/strip_matrix.h"
#include "nibble/kernels/strips.h"
#include "nibble/nn/linear_dense.h"

namespace nibble {
namespace {

using kernels::kStripOutputs;

// Immutable.
class Linear8bitLt : public Linear {
 public:
  Linear8bitLt(const QuantizedWeight& weight, std::vector<float> bias, ThreadPool& pool,
               OutlierColumns columns, CpuTarget target)
      : strips_(weight, pool),
        threshold_(weight.outlier_threshold),
        columns_(columns),
        ones_(strips_.view().num_strips() * kStripOutputs, 1.f),
        bias_(std::move(bias)),
        target_(target),
        name_(fmt::format("llm-int8-{}", cpu_target_name(target))) {}

  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const override {
    const Arena::Scope scope(context.arena);
    const kernels::Strips w = strips_.view();
    const Inputs inputs = quantize(x, w, context);
    kernels::Strips integers = w;
    integers.scales = ones_.data();
    context.pool.parallel_for(w.num_strips(), 1, [&](size_t begin, size_t end, size_t) {
      const size_t last = std::min(end * kStripOutputs, w.out_features);
      const MatrixView<float> columns = y.cols(begin * kStripOutputs, last - begin * kStripOutputs);
      kernels::strips_product(integers, inputs.integers, begin, end, columns, nullptr, target_);
      for (size_t strip = begin; strip < end; ++strip) {
        for (size_t t = 0; t < x.rows(); ++t) {
          finish(w, strip, x.row(t), inputs.tokens[t], inputs.outliers + t * in_features(), y.row(t));
        }
      }
      add_bias(bias_, begin * kStripOutputs, y.cols(begin * kStripOutputs, last - begin * kStripOutputs));
    });
  }

  size_t in_features() const override { return strips_.in_features(); }
  size_t out_features() const override { return strips_.view().out_features; }
  size_t weight_bytes() const override { return strips_.bytes(); }
  std::string_view kernel() const override { return name_; }

 private:
  struct Inputs {
    kernels::QuantizedInputs integers;
    const kernels::Int8Row* tokens;  // [tokens]
    const uint32_t* outliers;        // [tokens, in_features]: the first num_outliers of each row
  };

  // Integer products need no scales until the end: a whole row is one span, of scale 1.
  Inputs quantize(MatrixView<const float> x, const kernels::Strips& w, ExecutionContext& context) const {
    const size_t stride = w.num_blocks * kernels::kBlockInputs + kernels::kLineBytes;
    int8_t* const codes = context.arena.take<int8_t>(x.rows() * stride);
    float* const ones = context.arena.take<float>(w.span_ends.size());
    float* const sums = context.arena.take<float>(x.rows());
    auto* const tokens = context.arena.take<kernels::Int8Row>(x.rows());
    uint32_t* const outliers = context.arena.take<uint32_t>(x.rows() * in_features());
    std::fill_n(ones, w.span_ends.size(), 1.f);
    context.pool.parallel_for(x.rows(), 1, [&](size_t begin, size_t end, size_t) {
      for (size_t t = begin; t < end; ++t) {
        tokens[t] = kernels::quantize_int8_row(x.row(t), in_features(), threshold_, codes + t * stride,
                                               outliers + t * in_features(), target_);
      }
    });
    if (columns_ == OutlierColumns::kOfCall && x.rows() > 1) {
      share_outliers(codes, stride, {tokens, x.rows()}, outliers, context);
    }
    for (size_t t = 0; t < x.rows(); ++t) sums[t] = static_cast<float>(tokens[t].codes_sum);
    return {{x.rows(), 1, codes, stride, ones, 0, sums}, tokens, outliers};
  }

  // Makes the outlier columns of every token those of all tokens together. The scale of a token stays:
  // what is below the threshold counts for it even in an outlier column.
  void share_outliers(int8_t* codes, size_t stride, std::span<kernels::Int8Row> tokens, uint32_t* outliers,
                      ExecutionContext& context) const {
    bool* const is_outlier = context.arena.take<bool>(in_features());
    std::fill_n(is_outlier, in_features(), false);
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (size_t i = 0; i < tokens[t].num_outliers; ++i) is_outlier[outliers[t * in_features() + i]] = true;
    }
    for (size_t t = 0; t < tokens.size(); ++t) {
      size_t count = 0;
      for (size_t column = 0; column < in_features(); ++column) {
        if (!is_outlier[column]) continue;
        outliers[t * in_features() + count++] = static_cast<uint32_t>(column);
        tokens[t].codes_sum -= codes[t * stride + column];
        codes[t * stride + column] = 0;
      }
      tokens[t].num_outliers = count;
    }
  }

  // y holds the integer sums: scales them in the order of the original, since the last bit decides how
  // the next layer rounds, and adds the outliers.
  void finish(const kernels::Strips& w, size_t strip, const float* x, const kernels::Int8Row& token,
              const uint32_t* outliers, float* y) const {
    const size_t first = strip * kStripOutputs;
    const size_t count = std::min(kStripOutputs, w.out_features - first);
    const float* const absmax = static_cast<const float*>(w.scales) + first;
    for (size_t n = 0; n < count; ++n) {
      y[first + n] = y[first + n] * (token.absmax * absmax[n]) * kernels::kInt8ProductScale;
    }
    if (token.num_outliers == 0) return;
    float sums[kStripOutputs];
    kernels::strip_outliers(w, strip, x, {outliers, token.num_outliers}, sums, target_);
    for (size_t n = 0; n < count; ++n) y[first + n] += sums[n];
  }

  const kernels::StripMatrix strips_;  // one group; scales: absmax, as float
  const float threshold_;
  const OutlierColumns columns_;
  const std::vector<float> ones_;  // in place of the scales, to get the integers themselves
  const std::vector<float> bias_;
  const CpuTarget target_;
  const std::string name_;
};

}  // namespace

std::unique_ptr<Linear> make_linear8bitlt(const QuantizedWeight& weight, std::vector<float> bias,
                                          ThreadPool& pool, OutlierColumns columns, CpuTarget target) {
  return std::make_unique<Linear8bitLt>(weight, std::move(bias), pool, columns, target);
}

}  // namespace nibble
