#include "nibble/quantizers/grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#define NIBBLE_TARGET_FILE "nibble/quantizers/grid-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::kernels {
namespace {

float rounding_error(std::span<const float> weights, const Grid& grid, float max_code, float exponent) {
  return NIBBLE_CHOOSE(rounding_error, cpu_target())(weights.data(), weights.size(), grid.scale, grid.zero,
                                                     max_code, exponent);
}

void find_range(std::span<const float> weights, float* lo, float* hi) {
  NIBBLE_CHOOSE(find_range, cpu_target())(weights.data(), weights.size(), lo, hi);
}

void nearest_codes(std::span<const float> weights, const Grid& grid, float max_code, uint8_t* codes,
                   CpuTarget target) {
  NIBBLE_CHOOSE(nearest_codes, target)
  (weights.data(), weights.size(), grid.scale, grid.zero, max_code, codes);
}

}  // namespace
}  // namespace nibble::kernels

namespace nibble {
namespace {

constexpr int kClipSteps = 80;  // of 100: the clip search shrinks the range to a fifth

struct Range {
  float lo = 0.f;
  float hi = 0.f;
};

// Ties to even. Beyond 2^21 every code is clamped, so that the magnitude may be limited first; adding
// 1.5 * 2^23 puts the result's unit at the last bit of the sum. A NaN becomes the lower limit.
float round_to_even(float v) {
  constexpr float kLimit = 0x1p21f;
  constexpr float kUnit = 0x1.8p23f;
  const float limited = v > -kLimit ? std::min(v, kLimit) : -kLimit;
  return (limited + kUnit) - kUnit;
}

Range range_of(std::span<const float> weights, bool sym) {
  Range range;
  kernels::find_range(weights, &range.lo, &range.hi);
  if (sym) {
    range.hi = std::max(std::fabs(range.lo), range.hi);
    if (range.lo < 0.f) range.lo = -range.hi;
  }
  if (range.lo == 0.f && range.hi == 0.f) return {-1.f, 1.f};
  return range;
}

float max_code_of(const GridOptions& options) { return static_cast<float>((1 << options.bits) - 1); }

Grid grid_of(Range range, const GridOptions& options) {
  const float max_code = max_code_of(options);
  Grid grid{.scale = (range.hi - range.lo) / max_code};
  if (options.sym) {
    grid.zero = (max_code + 1.f) / 2.f;
    return grid;
  }
  grid.zero = std::clamp(round_to_even(-range.lo / grid.scale), 0.f, max_code);
  if (grid.zero == 0.f && !options.zero_may_be_0) return {range.hi / (max_code - 1.f), 1.f};
  return grid;
}

// The other integer beside -lo / scale, which GPTQModel tries as well where there are four codes only.
Grid neighbour_of(Grid grid, Range range, const GridOptions& options) {
  const float exact = -range.lo / grid.scale;
  const float zero = exact > grid.zero ? grid.zero + 1.f : exact < grid.zero ? grid.zero - 1.f : grid.zero;
  grid.zero = std::clamp(zero, options.zero_may_be_0 ? 0.f : 1.f, max_code_of(options));
  return grid;
}

Grid search_clip(std::span<const float> weights, Range range, const GridOptions& options) {
  Grid best = grid_of(range, options);
  float best_error = std::numeric_limits<float>::infinity();
  const bool try_neighbour = options.bits == 2 && !options.sym;
  for (int i = 0; i < kClipSteps; ++i) {
    const auto p = static_cast<float>(1.0 - i / 100.0);
    const Range shrunk{p * range.lo, p * range.hi};
    const Grid nearest = grid_of(shrunk, options);
    const Grid candidates[] = {nearest, try_neighbour ? neighbour_of(nearest, shrunk, options) : nearest};
    for (size_t c = 0; c < (try_neighbour ? 2u : 1u); ++c) {
      const float error = kernels::rounding_error(weights, candidates[c], max_code_of(options),
                                                  static_cast<float>(options.mse));
      if (error < best_error) {
        best_error = error;
        best = candidates[c];
      }
    }
  }
  return best;
}

}  // namespace

GridOptions grid_options(const GptqSettings& settings) {
  return {.bits = settings.bits,
          .sym = settings.sym,
          .mse = settings.mse,
          .zero_may_be_0 = settings.zero_may_be_0};
}

Status check_grid_settings(size_t out_features, size_t in_features, const GptqSettings& settings) {
  if (settings.bits < 2 || settings.bits > 8) {
    return fail(ErrorCode::kInvalidArgument, "bits is {}, but must be 2 to 8", settings.bits);
  }
  if (out_features == 0 || in_features == 0) {
    return fail(ErrorCode::kInvalidArgument, "the weight [{}, {}] is empty", out_features, in_features);
  }
  if (!(settings.mse >= 0.0)) {
    return fail(ErrorCode::kInvalidArgument, "mse is {}, but must not be negative", settings.mse);
  }
  return {};
}

Grid find_grid(std::span<const float> weights, const GridOptions& options) {
  const Range range = range_of(weights, options.sym);
  return options.mse > 0.0 ? search_clip(weights, range, options) : grid_of(range, options);
}

void nearest_codes(std::span<const float> weights, const Grid& grid, float max_code, uint8_t* codes,
                   CpuTarget target) {
  kernels::nearest_codes(weights, grid, max_code, codes, target);
}

float nearest_code(float w, const Grid& grid, float max_code) {
  return std::clamp(round_to_even(w / grid.scale) + grid.zero, 0.f, max_code);
}

}  // namespace nibble
