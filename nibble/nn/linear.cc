#include "nibble/nn/linear.h"

#include <algorithm>
#include <array>
#include <utility>

#include "nibble/kernels/strip_matrix.h"
#include "nibble/nn/linear8bitlt.h"
#include "nibble/nn/linear_dense.h"
#include "nibble/nn/linear_reference.h"
#include "nibble/nn/quantized_linear.h"

namespace nibble {
namespace {

constexpr std::string_view kReference = "reference";

// Ours first, then what GPTQConfig and AwqConfig of Transformers and GPTQModel accept.
constexpr std::array<std::string_view, 27> kBackends = {
    "auto",      "reference",  "auto_trainable", "autoawq",     "bitblas",         "cuda",
    "exllama",   "exllama_v1", "exllama_v2",     "gemm",        "gemm_triton",     "gemv",
    "gemv_fast", "ipex",       "llm-awq",        "llm_awq",     "machete",         "marlin",
    "torch",     "torch_aten", "torch_awq",      "torch_fused", "torch_fused_awq", "torch_int8",
    "triton",    "exllamav2",  "exllama_eora"};

Status check_dense_weight(const Tensor& weight, size_t bias_size) {
  const DType dtype = weight.dtype;
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    return fail(ErrorCode::kUnsupported, "a weight of {}: a linear layer takes F32, F16 or BF16",
                dtype_name(dtype));
  }
  if (weight.shape.size() != 2 || weight.size() == 0 || num_bytes(weight.info()) != weight.bytes.size()) {
    return fail(ErrorCode::kInvalidArgument,
                "a weight of shape {} in {} bytes: [out_features, in_features] is needed",
                shape_name(weight.shape), weight.bytes.size());
  }
  if (bias_size != 0 && bias_size != weight.shape[0]) {
    return fail(ErrorCode::kInvalidArgument, "{} bias values for {} outputs", bias_size, weight.shape[0]);
  }
  return {};
}

// More than 4 bits are paid for accuracy: of SmolLM2-135M in 8 bits, activations of 8 bits cost 40 % of the
// KL that the quantization itself costs, those of 16 bits 0.1 %.
ActivationBits activations_of(const QuantizedWeight& weight, const LinearOptions& options) {
  return weight.bits > 4 ? ActivationBits::k16 : options.activations;
}

}  // namespace

Status check_backend(std::string_view backend) {
  if (std::find(kBackends.begin(), kBackends.end(), backend) != kBackends.end()) return {};
  return fail(ErrorCode::kInvalidArgument, "backend \"{}\" is not known", backend)
      .with_fix(fmt::format("Use one of {}.", fmt::join(kBackends, ", ")));
}

Expected<std::unique_ptr<Linear>> make_linear(const Tensor& weight, std::vector<float> bias,
                                              const LinearOptions& options) {
  NIBBLE_RETURN_IF_ERROR(check_backend(options.backend));
  NIBBLE_RETURN_IF_ERROR(check_dense_weight(weight, bias.size()));
  if (options.backend == kReference) return make_reference_linear(weight, std::move(bias));
  return make_dense_linear(weight, std::move(bias));
}

Expected<std::unique_ptr<Linear>> make_linear(const QuantizedWeight& weight, std::vector<float> bias,
                                              const LinearOptions& options, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check_backend(options.backend));
  NIBBLE_RETURN_IF_ERROR(check_quantized_weight(weight, bias.size(), pool));
  const bool has_strips = options.backend != kReference && options.compute == ComputeMode::kAuto &&
                          weight.formula != WeightFormula::kRowAbsmax && kernels::StripMatrix::suits(weight);
  if (has_strips) return make_int8_linear(weight, std::move(bias), pool, activations_of(weight, options));
  if (weight.words) return make_linear(with_byte_codes(weight), std::move(bias), options, pool);
  if (options.backend == kReference) return make_reference_linear(weight, std::move(bias));
  if (weight.formula == WeightFormula::kRowAbsmax) {
    // float32 is compared with the original, which takes a batch together.
    const bool exact = options.compute == ComputeMode::kF32;
    return make_linear8bitlt(weight, std::move(bias), pool,
                             exact ? OutlierColumns::kOfCall : OutlierColumns::kOfToken);
  }
  return make_float_linear(weight, std::move(bias), pool);
}

}  // namespace nibble
