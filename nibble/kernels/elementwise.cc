#include "nibble/kernels/elementwise.h"

#define NIBBLE_TARGET_FILE "nibble/kernels/elementwise-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::kernels {

void rms_norm(const float* x, const float* weight, float eps, size_t n, float* y, CpuTarget target) {
  NIBBLE_CHOOSE(rms_norm, target)(x, weight, eps, n, y);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, size_t n, float* y,
                CpuTarget target) {
  NIBBLE_CHOOSE(layer_norm, target)(x, weight, bias, eps, n, y);
}

void add(const float* x, size_t n, float* y, CpuTarget target) { NIBBLE_CHOOSE(add_rows, target)(x, n, y); }

void activate(Activation activation, const float* x, size_t n, float* y, CpuTarget target) {
  NIBBLE_CHOOSE(activate, target)(activation, x, n, y);
}

void activate_and_multiply(Activation activation, const float* gate, const float* up, size_t n, float* y,
                           CpuTarget target) {
  NIBBLE_CHOOSE(activate_and_multiply, target)(activation, gate, up, n, y);
}

void soft_cap(const float* x, float cap, size_t n, float* y, CpuTarget target) {
  NIBBLE_CHOOSE(soft_cap, target)(x, cap, n, y);
}

void rotate_half(float* x, const float* cos, const float* sin, size_t half, CpuTarget target) {
  NIBBLE_CHOOSE(rotate_half, target)(x, cos, sin, half);
}

}  // namespace nibble::kernels
