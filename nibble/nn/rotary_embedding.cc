#include "nibble/nn/rotary_embedding.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nibble {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// 1 / base^(2i / dims)
std::vector<double> plain_frequencies(double base, size_t half) {
  std::vector<double> frequencies(half);
  for (size_t i = 0; i < half; ++i) {
    frequencies[i] = std::pow(base, -static_cast<double>(i) / static_cast<double>(half));
  }
  return frequencies;
}

// Long waves are stretched by `factor`, short ones kept, those between interpolated.
void scale_llama3(const RopeParameters& p, double original_length, std::vector<double>& frequencies) {
  const double long_wave = original_length / p.low_freq_factor;
  const double short_wave = original_length / p.high_freq_factor;
  for (double& f : frequencies) {
    const double wave = kTwoPi / f;
    if (wave < short_wave) continue;
    if (wave > long_wave) {
      f /= p.factor;
    } else {
      const double smooth =
          (original_length / wave - p.low_freq_factor) / (p.high_freq_factor - p.low_freq_factor);
      f = (1 - smooth) * f / p.factor + smooth * f;
    }
  }
}

double yarn_mscale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

void scale_yarn(const RopeParameters& p, double original_length, std::vector<double>& frequencies) {
  const auto half = static_cast<double>(frequencies.size());
  const double dims = 2 * half;
  // The dimension whose wave makes this many turns within the original context.
  const auto correction_dim = [&](double turns) {
    return dims * std::log(original_length / (turns * kTwoPi)) / (2 * std::log(p.rope_theta));
  };
  double low = correction_dim(p.beta_fast);
  double high = correction_dim(p.beta_slow);
  if (p.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / p.factor * ramp + frequencies[i] * (1 - ramp);
  }
}

std::vector<float> to_floats(const std::vector<double>& values) {
  return std::vector<float>(values.begin(), values.end());
}

}  // namespace

Expected<RotaryEmbedding> RotaryEmbedding::create(const RopeParameters& p, size_t head_dim,
                                                  size_t max_position_embeddings) {
  RotaryEmbedding rope;
  const auto dims = static_cast<size_t>(static_cast<double>(head_dim) * p.partial_rotary_factor);
  if (dims == 0 || dims % 2 != 0 || dims > head_dim) {
    return fail(
        ErrorCode::kInvalidArgument,
        "partial_rotary_factor {} of head_dim {} gives {} rotary dimensions; an even number up to head_dim "
        "is needed",
        p.partial_rotary_factor, head_dim, dims);
  }
  rope.half_ = dims / 2;
  rope.base_ = p.rope_theta;
  rope.factor_ = p.factor;
  rope.max_positions_ = max_position_embeddings;
  const size_t original =
      p.original_max_position_embeddings > 0 ? p.original_max_position_embeddings : max_position_embeddings;
  const auto original_length = static_cast<double>(original);

  std::vector<double> frequencies = plain_frequencies(p.rope_theta, rope.half_);
  if (p.rope_type == "linear") {
    for (double& f : frequencies) f /= p.factor;
  } else if (p.rope_type == "dynamic") {
    rope.dynamic_ = true;
  } else if (p.rope_type == "llama3") {
    scale_llama3(p, original_length, frequencies);
  } else if (p.rope_type == "yarn") {
    scale_yarn(p, original_length, frequencies);
    const bool both = p.mscale.value_or(0) != 0 && p.mscale_all_dim.value_or(0) != 0;
    const double factor = both ? yarn_mscale(p.factor, *p.mscale) / yarn_mscale(p.factor, *p.mscale_all_dim)
                               : yarn_mscale(p.factor, 1.0);
    rope.attention_factor_ = static_cast<float>(p.attention_factor.value_or(factor));
  } else if (p.rope_type == "longrope") {
    if (p.short_factor.size() != rope.half_ || p.long_factor.size() != rope.half_) {
      return fail(ErrorCode::kInvalidArgument,
                  "longrope has {} short and {} long factors, but there are {} rotary dimensions / 2",
                  p.short_factor.size(), p.long_factor.size(), rope.half_);
    }
    std::vector<double> stretched = frequencies;
    for (size_t i = 0; i < rope.half_; ++i) {
      frequencies[i] /= p.short_factor[i];
      stretched[i] /= p.long_factor[i];
    }
    rope.inv_freq_long_ = to_floats(stretched);
    rope.switch_length_ = original;
    const double ratio = p.original_max_position_embeddings > 0
                             ? static_cast<double>(max_position_embeddings) / original_length
                             : p.factor;
    const double factor = ratio <= 1 ? 1.0 : std::sqrt(1 + std::log(ratio) / std::log(original_length));
    rope.attention_factor_ = static_cast<float>(p.attention_factor.value_or(factor));
  } else if (p.rope_type != "default") {
    return fail(ErrorCode::kUnsupported,
                "rope_type \"{}\"; default, linear, dynamic, yarn, longrope and llama3 exist", p.rope_type);
  }
  rope.inv_freq_ = to_floats(frequencies);
  return rope;
}

void RotaryEmbedding::angles(size_t position, size_t sequence_length, float* cos, float* sin) const {
  const bool is_long = switch_length_ > 0 && sequence_length > switch_length_;
  const std::vector<float>& inv_freq = is_long ? inv_freq_long_ : inv_freq_;
  double base = 0;
  const bool stretched = dynamic_ && sequence_length > max_positions_;
  if (stretched) {
    const double growth =
        factor_ * static_cast<double>(sequence_length) / static_cast<double>(max_positions_);
    const auto dims = static_cast<double>(rotary_dims());
    base = base_ * std::pow(growth - (factor_ - 1), dims / (dims - 2));
  }
  for (size_t i = 0; i < half_; ++i) {
    const float frequency =
        stretched ? static_cast<float>(std::pow(base, -static_cast<double>(i) / static_cast<double>(half_)))
                  : inv_freq[i];
    // The angle is rounded to float32, as the original's matrix product of positions and
    // frequencies rounds it.
    const float angle = static_cast<float>(position) * frequency;
    cos[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * attention_factor_;
    sin[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * attention_factor_;
  }
}

}  // namespace nibble
