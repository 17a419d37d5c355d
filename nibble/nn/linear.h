#ifndef NIBBLE_NN_LINEAR_H_
#define NIBBLE_NN_LINEAR_H_

// y = x W^T + b, whatever the weight is stored as. The factories below look at the weight once;
// afterwards nobody can tell where it came from.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/arena.h"
#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/tensor.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/elementwise.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

class ForwardObserver;  // models/causal_lm.h

// What a forward pass needs beside weights: threads and scratch memory.
struct ExecutionContext {
  ThreadPool& pool;
  Arena& arena;
  ForwardObserver* observer = nullptr;
  // Counts the tokens that layers with 8-bit activations took in 16 bits, since 8 would have lost too much.
  size_t finer_tokens = 0;
};

// f32: activations and sums in float32, weights exactly as the format defines them: what is compared
// with the original libraries. auto: may quantize activations or use other arithmetic where that is
// faster.
enum class ComputeMode { kF32, kAuto };

// Of the activations that a quantized weight is multiplied with in ComputeMode::kAuto: 8 bits with a scale
// for each 32 inputs, or 16 with one for each 128, multiplied as two rows of 8 for twice the products. With 8
// bits, a token with so large spikes that they would lose its other inputs (kernels/quantize_inputs.h) has a
// second row, too.
enum class ActivationBits { k8, k16 };

struct LinearOptions {
  ComputeMode compute = ComputeMode::kAuto;
  // "auto", "reference" (plain loops), or a name that GPTQConfig and AwqConfig know (exllama,
  // exllama_v2, torch, marlin, gemm, gemv, ipex...), which means "auto" here.
  std::string backend = "auto";
  ActivationBits activations = ActivationBits::k8;  // of weights of up to 4 bits; others have k16
};

// Immutable: any number of threads may call forward() at once, each with its own context.
class Linear {
 public:
  virtual ~Linear() = default;

  // x: [tokens, in_features], y: [tokens, out_features]; they may not overlap. Row t of y depends
  // on row t of x alone, in every bit: not on the other rows, nor on the number of threads. The one
  // exception is LLM.int8 in float32 or with the reference backend, which looks for outliers in all
  // rows of a call, as the original does.
  virtual void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const = 0;

  virtual size_t in_features() const = 0;
  virtual size_t out_features() const = 0;
  virtual size_t weight_bytes() const = 0;      // what one token reads
  virtual std::string_view kernel() const = 0;  // "int4-a8-avx512", "f16-avx2", "reference": for -v
};

// y = linear(x).
struct LinearOutput {
  const Linear* linear;
  MatrixView<float> y;
};

// Layers that read the same input, as q, k and v do. Every bit is that of separate calls; where all have the
// same kernel the activations are quantized once, and the threads share one loop over all outputs.
void forward_shared(std::span<const LinearOutput> outputs, MatrixView<const float> x,
                    ExecutionContext& context);

// y = activation(gate(x)) * up(x), as the MLPs of Llama (SwiGLU) and Gemma have it: every bit is that of
// separate calls, but the gate's outputs are used while a core's cache has them, and never stored. False, and
// nothing is done, where forward_shared() would not share.
bool forward_gated(const Linear& gate, const Linear& up, kernels::Activation activation,
                   MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context);

// weight: F32, F16 or BF16 [out_features, in_features]; kept as it is (a view into a mapped file
// stays one, unless its start is not aligned to its elements). bias: [out_features] or empty.
Expected<std::unique_ptr<Linear>> make_linear(const Tensor& weight, std::vector<float> bias,
                                              const LinearOptions& options);

// Reorders the codes for this CPU's kernel, once; keeps nothing of `weight`.
Expected<std::unique_ptr<Linear>> make_linear(const QuantizedWeight& weight, std::vector<float> bias,
                                              const LinearOptions& options, ThreadPool& pool);

// The backend names that are accepted, for the error message and for --help.
Status check_backend(std::string_view backend);

}  // namespace nibble

#endif  // NIBBLE_NN_LINEAR_H_
