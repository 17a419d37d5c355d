#include "nibble/quantizers/round_to_nearest.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "nibble/base/float16.h"
#include "nibble/quantization/float_blocks.h"
#include "nibble/quantizers/affine_weight.h"
#include "nibble/quantizers/grid.h"

namespace nibble {
namespace {

// Codes are chosen for the scale in float32, as the original does, and the scale is rounded after that.
void round_row(std::span<const float> weights, size_t row, const GptqSettings& settings,
               QuantizedWeight& result) {
  const GridOptions options = grid_options(settings);
  const auto max_code = static_cast<float>((1 << settings.bits) - 1);
  for (size_t group = 0; group < result.num_groups; ++group) {
    const size_t first = group * result.group_size;
    const auto values = weights.subspan(first, std::min(result.group_size, weights.size() - first));
    const Grid grid = find_grid(values, options);
    nearest_codes(values, grid, max_code, result.codes.data() + row * result.in_features + first);
    result.scales[group * result.out_features + row] = fp16_to_float(float_to_fp16(grid.scale));
    result.zeros[group * result.out_features + row] = grid.zero;
  }
}

Failure not_finite(const Tensor& weight, size_t row) {
  const size_t in_features = weight.shape[1];
  std::vector<float> values(in_features);
  load_floats(weight, row * in_features, in_features, values.data());
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  return fail(ErrorCode::kDataLoss, "element [{}, {}] is {}", row, bad - values.begin(), *bad)
      .with_fix(
          "A weight that is not finite cannot be quantized: fetch the file again, or repair the model.");
}

}  // namespace

Expected<SolvedWeight> round_to_nearest(MatrixView<const float> weight, const GptqSettings& settings,
                                        ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(check_grid_settings(weight.rows(), weight.cols(), settings));
  SolvedWeight solved{
      .weight = make_affine_weight(weight.rows(), weight.cols(), settings.bits, settings.group_size),
      .rounded_to_nearest = true};
  pool.parallel_for(weight.rows(), 4, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) round_row(weight.row_span(o), o, settings, solved.weight);
  });
  return solved;
}

Expected<SolvedWeight> round_to_nearest(const Tensor& weight, const GptqSettings& settings, ThreadPool& pool,
                                        std::vector<uint8_t> codes) {
  if (weight.shape.size() != 2) {
    return fail(ErrorCode::kInvalidArgument, "shape {} is not a weight [out_features, in_features]",
                shape_name(weight.shape));
  }
  const size_t out_features = weight.shape[0];
  const size_t in_features = weight.shape[1];
  NIBBLE_RETURN_IF_ERROR(check_grid_settings(out_features, in_features, settings));
  SolvedWeight solved{.weight = make_affine_weight(out_features, in_features, settings.bits,
                                                   settings.group_size, std::move(codes)),
                      .rounded_to_nearest = true};
  std::vector<std::vector<float>> rows(pool.num_threads(), std::vector<float>(in_features));
  std::atomic<size_t> bad_row = out_features;
  pool.parallel_for(out_features, 4, [&](size_t begin, size_t end, size_t worker) {
    std::vector<float>& row = rows[worker];
    for (size_t o = begin; o < end; ++o) {
      load_floats(weight, o * in_features, in_features, row.data());
      if (std::isfinite(largest_magnitude(row))) {
        round_row(row, o, settings, solved.weight);
      } else {
        size_t first = bad_row;
        while (o < first && !bad_row.compare_exchange_weak(first, o)) {
        }
      }
    }
  });
  if (bad_row < out_features) return not_finite(weight, bad_row);
  return solved;
}

}  // namespace nibble
