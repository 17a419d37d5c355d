#include "nibble/report/scale.h"

#include <algorithm>
#include <cmath>

#include "nibble/report/report_data.h"

namespace nibble::report {
namespace {

constexpr double kRoom = 0.07;  // of the range, on each side

// The smallest of 1, 2, 5 times a power of ten that gives no more than 1.4 times `about` steps.
double nice_step(double range, int about) {
  const double rough = range / (1.4 * about);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power) return factor * power;
  }
  return 10 * power;
}

std::vector<double> linear_ticks(double low, double high, int about) {
  std::vector<double> ticks;
  const double step = nice_step(high - low, about);
  const double first = std::ceil(low / step - 1e-9);
  for (double i = first; i * step <= high + 1e-9 * step && ticks.size() < 50; ++i) {
    ticks.push_back(i == 0 ? 0 : i * step);
  }
  return ticks;
}

std::vector<double> log_ticks(double low, double high, int about) {
  const int first = static_cast<int>(std::ceil(low - 1e-9)), last = static_cast<int>(std::floor(high + 1e-9));
  std::vector<double> ticks;
  if (high - low > 2) {
    const int step = std::max(1, (last - first) / about);
    for (int power = first; power <= last; power += step) ticks.push_back(std::pow(10.0, power));
    return ticks;
  }
  for (int power = first - 1; power <= last; ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, power);
      if (std::log10(tick) >= low - 1e-9 && std::log10(tick) <= high + 1e-9) ticks.push_back(tick);
    }
  }
  if (ticks.size() >= 2) return ticks;
  ticks = linear_ticks(std::pow(10.0, low), std::pow(10.0, high), about);
  return ticks;
}

}  // namespace

bool Scale::in_zero_lane(double value) const { return log && value < kSmallestOnLogScale; }

double Scale::at(double value) const {
  if (in_zero_lane(value)) return zero;
  const double position = log ? std::log10(value) : value;
  const double share = (position - low) / (high - low);
  return from + std::clamp(share, 0.0, 1.0) * (to - from);
}

std::vector<double> Scale::ticks(int about) const {
  return log ? log_ticks(low, high, about) : linear_ticks(low, high, about);
}

Scale linear_scale(const std::vector<double>& values, double from, double to) {
  double low = kNotMeasured, high = kNotMeasured;
  for (const double value : values) {
    if (!is_known(value)) continue;
    low = std::fmin(low, value);
    high = std::fmax(high, value);
  }
  if (!is_known(low)) low = 0, high = 1;
  double range = high - low;
  // All equal, or so nearly that ticks would be the same number.
  if (const double least = std::max(std::abs(high) * 1e-3, 1e-9); range < least) range = 2 * least;
  return {.low = low - kRoom * range, .high = high + kRoom * range, .from = from, .to = to, .zero = from};
}

Scale linear_scale_from_zero(double highest, double from, double to) {
  return {.low = 0, .high = highest > 0 ? highest : 1, .from = from, .to = to, .zero = from};
}

Scale log_scale(const std::vector<double>& values, double from, double to, double zero_lane) {
  double low = kNotMeasured, high = kNotMeasured;
  bool has_zero = false;
  for (const double value : values) {
    if (!is_known(value)) continue;
    if (value < kSmallestOnLogScale) {
      has_zero = true;
      continue;
    }
    low = std::fmin(low, std::log10(value));
    high = std::fmax(high, std::log10(value));
  }
  if (!is_known(low)) low = -3, high = -1;
  const double range = std::max(high - low, 0.1);
  Scale scale{.log = true,
              .low = low - kRoom * range,
              .high = high + kRoom * range,
              .from = from,
              .to = to,
              .zero = from};
  if (has_zero) {
    const double lane = to > from ? zero_lane : -zero_lane;
    scale.zero = from + lane / 2;
    scale.from = from + lane;
  }
  return scale;
}

}  // namespace nibble::report
