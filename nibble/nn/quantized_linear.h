#ifndef NIBBLE_NN_QUANTIZED_LINEAR_H_
#define NIBBLE_NN_QUANTIZED_LINEAR_H_

// The layers behind make_linear(QuantizedWeight), for tests that name one; make_linear has checked
// the arguments.

#include "nibble/base/cpu_target.h"
#include "nibble/nn/linear.h"

namespace nibble {

// Float activations, weights exactly as the formula defines them.
std::unique_ptr<Linear> make_float_linear(const QuantizedWeight& weight, std::vector<float> bias,
                                          ThreadPool& pool, CpuTarget target = cpu_target());

// Activations in one row of int8 or two, weights as integers: what auto computes with.
// StripMatrix::suits(weight).
std::unique_ptr<Linear> make_int8_linear(const QuantizedWeight& weight, std::vector<float> bias,
                                         ThreadPool& pool, ActivationBits activations = ActivationBits::k8,
                                         CpuTarget target = cpu_target());

// Says what is inconsistent in the weight, or wrong with the length of the bias.
Status check_quantized_weight(const QuantizedWeight& weight, size_t bias_size, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_NN_QUANTIZED_LINEAR_H_
