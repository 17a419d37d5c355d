#include "nibble/quantizers/awq_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/check.h"
#include "nibble/base/float16.h"
#include "nibble/quantizers/affine_weight.h"
#include "nibble/quantizers/quadratic_forms.h"

namespace nibble::kernels {
namespace {

constexpr float kSmallest = 1e-5f;  // range of a group

// w = (code - zero) * scale, codes 0 to 15. Symmetric: zero is 8.
struct AwqGrid {
  float scale;
  float zero;
};

float clamped(float v, float limit) { return v > limit ? limit : v < -limit ? -limit : v; }

AwqGrid awq_grid_of(float lo, float hi, bool zero_point) {
  if (!zero_point) return {std::max(std::max(-lo, hi), kSmallest) / 7.f, 8.f};
  const float scale = std::max(hi - lo, kSmallest) / 15.f;
  const float zero = -std::nearbyint(lo / scale);
  return {scale, zero > 0.f ? std::min(zero, 15.f) : 0.f};
}

}  // namespace
}  // namespace nibble::kernels

#define NIBBLE_TARGET_FILE "nibble/quantizers/awq_search-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::kernels {
namespace {

void awq_error(const float* w, const float* s, size_t count, float limit, bool zero_point, float* out) {
  NIBBLE_CHOOSE(awq_error, cpu_target())(w, s, count, limit, zero_point, out);
}

}  // namespace
}  // namespace nibble::kernels

namespace nibble {
namespace {

constexpr size_t kRows = 1024;  // whose errors are held at once
constexpr float kNoLimit = std::numeric_limits<float>::infinity();

// What the settings say of one weight, with the last group as long as it is.
struct Groups {
  Groups(size_t inputs, size_t group_size)
      : in_features(inputs), size(group_size == 0 ? inputs : std::min(group_size, inputs)) {}
  size_t count() const { return size == 0 ? 0 : (in_features + size - 1) / size; }
  size_t begin(size_t k) const { return k * size; }
  size_t length(size_t k) const { return std::min(size, in_features - begin(k)); }

  size_t in_features;
  size_t size;
};

Status check(std::span<const MatrixView<const float>> weights, MatrixView<const float> gram,
             std::span<const float> mean_abs) {
  if (weights.empty() || gram.rows() == 0) {
    return fail(ErrorCode::kInvalidArgument, "no weights to search scales for");
  }
  if (gram.cols() != gram.rows() || mean_abs.size() != gram.rows()) {
    return fail(ErrorCode::kInvalidArgument, "second moments [{}, {}] beside {} mean magnitudes", gram.rows(),
                gram.cols(), mean_abs.size());
  }
  for (const MatrixView<const float>& weight : weights) {
    if (weight.rows() == 0 || weight.cols() != gram.rows()) {
      return fail(ErrorCode::kInvalidArgument, "a weight [{}, {}] beside {} inputs", weight.rows(),
                  weight.cols(), gram.rows());
    }
  }
  return {};
}

float largest_magnitude(std::span<const float> values) {
  float largest = 0.f;
  for (const float v : values) largest = std::max(largest, std::fabs(v));
  return largest;
}

// Adds |w| / (largest |w| of its group + 1e-6) of all rows to sums.
void add_relative_magnitudes(MatrixView<const float> weight, const Groups& groups, std::span<double> sums,
                             ThreadPool& pool) {
  std::vector<float> largest(weight.rows() * groups.count());
  pool.parallel_for(weight.rows(), 16, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) {
      for (size_t k = 0; k < groups.count(); ++k) {
        const auto group = weight.row_span(o).subspan(groups.begin(k), groups.length(k));
        largest[o * groups.count() + k] = largest_magnitude(group) + 1e-6f;
      }
    }
  });
  pool.parallel_for(weight.cols(), 64, [&](size_t begin, size_t end, size_t) {
    for (size_t o = 0; o < weight.rows(); ++o) {
      for (size_t i = begin; i < end; ++i) {
        sums[i] += double{std::fabs(weight.row(o)[i]) / largest[o * groups.count() + i / groups.size]};
      }
    }
  });
}

// Mean over all rows of all weights.
std::vector<float> relative_magnitudes(std::span<const MatrixView<const float>> weights, const Groups& groups,
                                       ThreadPool& pool) {
  std::vector<double> sums(groups.in_features);
  size_t rows = 0;
  for (const MatrixView<const float>& weight : weights) {
    add_relative_magnitudes(weight, groups, sums, pool);
    rows += weight.rows();
  }
  std::vector<float> means;
  means.reserve(sums.size());
  for (const double sum : sums) means.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  return means;
}

std::vector<float> scales_for(float ratio, std::span<const float> mean_abs, std::span<const float> w_mean,
                              bool duo_scaling) {
  std::vector<float> scales(mean_abs.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    const float x = std::pow(mean_abs[i], ratio);
    scales[i] = std::max(duo_scaling ? x / (std::pow(w_mean[i], 1.f - ratio) + 1e-4f) : x, 1e-4f);
  }
  const auto [smallest, largest] = std::minmax_element(scales.begin(), scales.end());
  const float middle = std::sqrt(*largest * *smallest);
  for (float& scale : scales) {
    scale /= middle;
    if (!std::isfinite(scale)) scale = 1.f;
  }
  return scales;
}

// Mean squared change of the outputs when weights are rounded at these scales (empty: 1).
class ScaleLoss {
 public:
  ScaleLoss(std::span<const MatrixView<const float>> weights, std::span<const double> importance,
            MatrixView<const float> gram, const AwqSettings& settings, ThreadPool& pool)
      : weights_(weights),
        importance_(importance),
        gram_(gram),
        groups_(gram.rows(), settings.group_size),
        zero_point_(settings.zero_point),
        pool_(pool) {
    for (const MatrixView<const float>& weight : weights) outputs_ += weight.rows();
    errors_ = AlignedBuffer(std::min(kRows, outputs_) * gram.rows() * sizeof(float));
  }

  double operator()(std::span<const float> scales) {
    double sum = 0.0;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const MatrixView<const float>& weight = weights_[i];
      const double importance = importance_.empty() ? 1.0 : importance_[i];
      for (size_t first = 0; first < weight.rows(); first += kRows) {
        sum += importance * of_rows(weight.rows(first, std::min(kRows, weight.rows() - first)), scales);
      }
    }
    return sum / static_cast<double>(outputs_);
  }

 private:
  double of_rows(MatrixView<const float> weight, std::span<const float> scales) {
    const MatrixView<float> errors(errors_.as<float>(), weight.rows(), weight.cols());
    pool_.parallel_for(weight.rows(), 4, [&](size_t begin, size_t end, size_t) {
      for (size_t o = begin; o < end; ++o) {
        for (size_t k = 0; k < groups_.count(); ++k) {
          const size_t i = groups_.begin(k);
          kernels::awq_error(weight.row(o) + i, scales.empty() ? nullptr : scales.data() + i,
                             groups_.length(k), kNoLimit, zero_point_, errors.row(o) + i);
        }
      }
    });
    std::vector<double> sums(weight.rows());
    quadratic_forms(errors, gram_, sums, pool_);
    return std::accumulate(sums.begin(), sums.end(), 0.0);
  }

  std::span<const MatrixView<const float>> weights_;
  std::span<const double> importance_;
  MatrixView<const float> gram_;
  Groups groups_;
  bool zero_point_;
  ThreadPool& pool_;
  size_t outputs_ = 0;
  AlignedBuffer errors_;
};

float half(float value) { return fp16_to_float(float_to_fp16(value)); }

// AutoAWQ's pseudo_quantize_tensor of one group, in float16, and the codes that its packer makes of the
// result: every operation is rounded.
kernels::AwqGrid quantize_group(std::span<const float> weights, bool zero_point, uint8_t* codes) {
  float lo = std::numeric_limits<float>::infinity();
  float hi = -lo;
  for (const float weight : weights) {
    const float w = half(weight);
    lo = w < lo ? w : lo;
    hi = w > hi ? w : hi;
  }
  const float range = zero_point ? half(hi - lo) : std::max(-lo, hi);
  const float scale = half(half(std::max(range, kernels::kSmallest)) / (zero_point ? 15.f : 7.f));
  const float lowest = -std::nearbyint(half(lo / scale));
  const float zero = !zero_point ? 8.f : lowest > 0.f ? std::min(lowest, 15.f) : 0.f;
  const float offset = half(zero * scale);
  for (size_t i = 0; i < weights.size(); ++i) {
    const float step = half(std::nearbyint(half(half(weights[i]) / scale)) + zero);
    const float clamped = step > 0.f ? std::min(step, 15.f) : 0.f;  // 0 for NaN
    const float rounded = half((clamped - zero) * scale);
    const float code = std::nearbyint(half(half(rounded + offset) / scale));
    codes[i] = static_cast<uint8_t>(code > 0.f ? std::min(code, 15.f) : 0.f);
  }
  return {scale, zero};
}

}  // namespace

Expected<AwqScales> search_awq_scales(std::span<const MatrixView<const float>> weights,
                                      MatrixView<const float> gram, std::span<const float> mean_abs,
                                      const AwqSettings& settings, ThreadPool& pool,
                                      std::span<const double> importance) {
  NIBBLE_RETURN_IF_ERROR(check(weights, gram, mean_abs));
  NIBBLE_CHECK(importance.empty() || importance.size() == weights.size());
  const std::vector<float> w_mean =
      relative_magnitudes(weights, Groups(gram.rows(), settings.group_size), pool);
  ScaleLoss loss_of(weights, importance, gram, settings, pool);
  AwqScales best;
  best.loss_unscaled = loss_of({});
  best.loss = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < settings.scale_grid; ++i) {
    const double ratio = static_cast<double>(i) / static_cast<double>(settings.scale_grid);
    std::vector<float> scales = scales_for(static_cast<float>(ratio), mean_abs, w_mean, settings.duo_scaling);
    const double loss = loss_of(scales);
    if (!(loss < best.loss)) continue;
    best.scales = std::move(scales);
    best.ratio = ratio;
    best.loss = loss;
  }
  if (best.scales.empty()) {
    return fail(
        ErrorCode::kInvalidArgument,
        "the loss of all {} scales is not a number: the weights or their inputs hold NaN or infinities",
        settings.scale_grid);
  }
  return best;
}

std::vector<float> search_awq_clips(MatrixView<const float> weight, MatrixView<const float> gram,
                                    const AwqSettings& settings, ThreadPool& pool) {
  NIBBLE_CHECK(gram.rows() == weight.cols() && gram.cols() == weight.cols());
  const Groups groups(weight.cols(), settings.group_size);
  const auto steps = static_cast<size_t>(settings.max_shrink * static_cast<double>(settings.clip_grid));
  std::vector<float> clips(weight.rows() * groups.count());
  std::vector<float> largest(weight.rows());
  std::vector<double> sums(weight.rows());
  std::vector<double> smallest(weight.rows());
  AlignedBuffer buffer(weight.rows() * groups.size * sizeof(float));
  for (size_t k = 0; k < groups.count(); ++k) {
    const MatrixView<const float> part = weight.cols(groups.begin(k), groups.length(k));
    const MatrixView<const float> moments =
        gram.rows(groups.begin(k), groups.length(k)).cols(groups.begin(k), groups.length(k));
    const MatrixView<float> errors(buffer.as<float>(), weight.rows(), groups.length(k));
    for (size_t o = 0; o < weight.rows(); ++o) {
      largest[o] = largest_magnitude(part.row_span(o));
      clips[o * groups.count() + k] = largest[o];
    }
    std::fill(smallest.begin(), smallest.end(), std::numeric_limits<double>::infinity());
    for (size_t i = 0; i < steps; ++i) {
      const auto p =
          static_cast<float>(1.0 - static_cast<double>(i) / static_cast<double>(settings.clip_grid));
      pool.parallel_for(weight.rows(), 16, [&](size_t begin, size_t end, size_t) {
        for (size_t o = begin; o < end; ++o) {
          kernels::awq_error(part.row(o), nullptr, part.cols(), largest[o] * p, settings.zero_point,
                             errors.row(o));
        }
      });
      quadratic_forms(errors, moments, sums, pool);
      for (size_t o = 0; o < weight.rows(); ++o) {
        if (!(sums[o] < smallest[o])) continue;
        smallest[o] = sums[o];
        clips[o * groups.count() + k] = largest[o] * p;
      }
    }
  }
  return clips;
}

void apply_awq_clips(MatrixView<float> weight, std::span<const float> clips, size_t group_size,
                     ThreadPool& pool) {
  const Groups groups(weight.cols(), group_size);
  NIBBLE_CHECK(clips.size() == weight.rows() * groups.count());
  pool.parallel_for(weight.rows(), 16, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) {
      for (size_t k = 0; k < groups.count(); ++k) {
        const float limit = clips[o * groups.count() + k];
        for (float& w : weight.row_span(o).subspan(groups.begin(k), groups.length(k))) {
          w = kernels::clamped(w, limit);
        }
      }
    }
  });
}

QuantizedWeight quantize_awq(MatrixView<const float> weight, const AwqSettings& settings, ThreadPool& pool) {
  const Groups groups(weight.cols(), settings.group_size);
  QuantizedWeight result = make_affine_weight(weight.rows(), weight.cols(), 4, settings.group_size);
  pool.parallel_for(weight.rows(), 4, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) {
      for (size_t k = 0; k < groups.count(); ++k) {
        const size_t i = groups.begin(k);
        const kernels::AwqGrid grid =
            quantize_group(weight.row_span(o).subspan(i, groups.length(k)), settings.zero_point,
                           result.codes.data() + o * result.in_features + i);
        result.scales[k * result.out_features + o] = grid.scale;
        result.zeros[k * result.out_features + o] = grid.zero;
      }
    }
  });
  return result;
}

}  // namespace nibble
