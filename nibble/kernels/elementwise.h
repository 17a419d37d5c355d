#ifndef NIBBLE_KERNELS_ELEMENTWISE_H_
#define NIBBLE_KERNELS_ELEMENTWISE_H_

// What happens between the matrix products, one row (token) at a time. All sums in float32.

#include <cstddef>

#include "nibble/base/cpu_target.h"

namespace nibble::kernels {

// y = x / sqrt(mean(x^2) + eps) * weight. x, weight, y: [n]; y may be x.
void rms_norm(const float* x, const float* weight, float eps, size_t n, float* y,
              CpuTarget target = cpu_target());

// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias. bias may be null; y may be x.
void layer_norm(const float* x, const float* weight, const float* bias, float eps, size_t n, float* y,
                CpuTarget target = cpu_target());

// y += x.
void add(const float* x, size_t n, float* y, CpuTarget target = cpu_target());

// The activation functions of config.json's hidden_act.
enum class Activation {
  kSilu,      // x * sigmoid(x): "silu", "swish"
  kGelu,      // x * (1 + erf(x / sqrt 2)) / 2: "gelu"
  kGeluTanh,  // with tanh(sqrt(2/pi) (x + 0.044715 x^3)): "gelu_pytorch_tanh", "gelu_new", "gelu_fast"
  kRelu,      // max(x, 0): "relu"
  kRelu2,     // max(x, 0)^2: "relu2"
};

// y = act(x); y may be x.
void activate(Activation activation, const float* x, size_t n, float* y, CpuTarget target = cpu_target());

// y = act(gate) * up; y may be gate or up.
void activate_and_multiply(Activation activation, const float* gate, const float* up, size_t n, float* y,
                           CpuTarget target = cpu_target());

// y = cap * tanh(x / cap); y may be x. Gemma 2's soft cap.
void soft_cap(const float* x, float cap, size_t n, float* y, CpuTarget target = cpu_target());

// Rotates pairs (x[i], x[i + half]) by the angle whose cosine and sine are given, i in [0, half).
// In place. cos, sin: [half].
void rotate_half(float* x, const float* cos, const float* sin, size_t half, CpuTarget target = cpu_target());

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_ELEMENTWISE_H_
