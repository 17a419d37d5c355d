#ifndef NIBBLE_QUANTIZERS_SCALE_SYSTEM_H_
#define NIBBLE_QUANTIZERS_SCALE_SYSTEM_H_

// With codes and zeros fixed the loss is quadratic in a row's scales: its minimum, lane by lane.

#include <cstddef>
#include <vector>

namespace nibble {

struct ScaleSystem {
  size_t count = 0;  // scales
  size_t lanes = 0;
  // gram[(k * count + l) * lanes + lane] for l <= k: c_k H_kl c_lᵀ.
  const float* gram = nullptr;
  // [count, lanes]: (error H)_k c_kᵀ, the negative half of the loss's derivative.
  const float* gradient = nullptr;
};

// Moves scales [count, lanes] to the float16 numbers next to the minimum. A scale that would be 0,
// infinite, or of the other sign stays; so do all scales of a lane whose loss would not fall.
// changes: [lanes], what the loss gains. scratch: kept for its memory.
void improve_scales(const ScaleSystem& system, float* scales, double* changes, std::vector<double>& scratch);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_SCALE_SYSTEM_H_
