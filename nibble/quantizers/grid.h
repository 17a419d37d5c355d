#ifndef NIBBLE_QUANTIZERS_GRID_H_
#define NIBBLE_QUANTIZERS_GRID_H_

// The affine grid that GPTQ, AWQ and round-to-nearest share: w = scale * (code - zero).

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibble/base/cpu_target.h"
#include "nibble/base/error.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

struct GridOptions {
  int bits = 4;
  bool sym = true;            // zero = 2^(bits - 1) for every group
  double mse = 0.0;           // exponent of the clip search (GPTQModel's `mse`, 2.4 is usual); 0: none
  bool zero_may_be_0 = true;  // false: a grid that would begin at its zero point begins one step below it
};

GridOptions grid_options(const GptqSettings& settings);
// Whether a weight [out_features, in_features] can have such grids.
Status check_grid_settings(size_t out_features, size_t in_features, const GptqSettings& settings);

struct Grid {
  float scale = 0.f;
  float zero = 0.f;  // an integer in [0, 2^bits - 1]
};

// The grid of GPTQ's Quantizer.find_params for one group of weights, in float32, its quirks included:
// the range contains zero, a group without negative values keeps lo = 0 when sym.
Grid find_grid(std::span<const float> weights, const GridOptions& options);

// clamp(rne(w / scale) + zero, 0, max_code), with a true division as the original does; 0 for NaN.
float nearest_code(float w, const Grid& grid, float max_code);
// The same of many finite weights.
void nearest_codes(std::span<const float> weights, const Grid& grid, float max_code, uint8_t* codes,
                   CpuTarget target = cpu_target());

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_GRID_H_
