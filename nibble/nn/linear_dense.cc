#include "nibble/nn/linear_dense.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "nibble/base/aligned_buffer.h"
#include "nibble/kernels/dense.h"

namespace nibble {
namespace {

size_t element_bytes(DType dtype) { return dtype_bits(dtype) / 8; }

// The tensor itself where its elements are aligned, else a copy. safetensors only promises that data
// begins on a byte.
Tensor aligned(const Tensor& tensor) {
  const auto address = reinterpret_cast<uintptr_t>(tensor.bytes.data());
  if (address % element_bytes(tensor.dtype) == 0) return tensor;
  auto buffer = std::make_shared<AlignedBuffer>(tensor.bytes.size());
  std::memcpy(buffer->data(), tensor.bytes.data(), tensor.bytes.size());
  return {tensor.dtype, tensor.shape, {buffer->data(), buffer->size()}, buffer};
}

std::string kernel_name(DType dtype, CpuTarget target) {
  const char* const type = dtype == DType::kF16 ? "f16" : dtype == DType::kBF16 ? "bf16" : "f32";
  return fmt::format("{}-{}", type, cpu_target_name(target));
}

// Immutable.
class DenseLinear : public Linear {
 public:
  DenseLinear(const Tensor& weight, std::vector<float> bias, CpuTarget target)
      : weight_(aligned(weight)),
        bias_(std::move(bias)),
        target_(target),
        name_(kernel_name(weight.dtype, target)) {}

  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const override {
    const size_t row_bytes = in_features() * element_bytes(weight_.dtype);
    const size_t step = kernels::dense_rows_per_call(in_features(), element_bytes(weight_.dtype));
    context.pool.parallel_for(out_features(), step, [&](size_t begin, size_t end, size_t) {
      for (size_t n = begin; n < end; n += step) {
        const size_t count = std::min(step, end - n);
        const kernels::DenseRows rows = {weight_.dtype, weight_.bytes.data() + n * row_bytes, count,
                                         in_features()};
        kernels::dense_product(rows, x, y.cols(n, count), target_);
        add_bias(bias_, n, y.cols(n, count));
      }
    });
  }

  size_t in_features() const override { return weight_.shape[1]; }
  size_t out_features() const override { return weight_.shape[0]; }
  size_t weight_bytes() const override { return weight_.bytes.size(); }
  std::string_view kernel() const override { return name_; }

 private:
  const Tensor weight_;
  const std::vector<float> bias_;
  const CpuTarget target_;
  const std::string name_;
};

}  // namespace

std::unique_ptr<Linear> make_dense_linear(const Tensor& weight, std::vector<float> bias, CpuTarget target) {
  return std::make_unique<DenseLinear>(weight, std::move(bias), target);
}

void add_bias(const std::vector<float>& bias, size_t first, MatrixView<float> y) {
  if (bias.empty()) return;
  for (size_t t = 0; t < y.rows(); ++t) {
    float* const row = y.row(t);
    for (size_t n = 0; n < y.cols(); ++n) row[n] += bias[first + n];
  }
}

}  // namespace nibble
