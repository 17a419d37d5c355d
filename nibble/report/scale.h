#ifndef NIBBLE_REPORT_SCALE_H_
#define NIBBLE_REPORT_SCALE_H_

// From values to pixels, and the values that an axis names.

#include <vector>

namespace nibble::report {

struct Scale {
  bool log = false;
  double low = 0, high = 1;  // log10 of the values if log; low < high
  double from = 0, to = 1;   // their pixels
  // A logarithmic scale has no 0, but two identical models have a KL divergence of 0: such values are
  // drawn in a lane of their own beyond `from`, at this pixel.
  double zero = 0;

  double at(double value) const;
  bool in_zero_lane(double value) const;
  // Ticks of 1, 2 or 5 times a power of ten, inside the scale; a logarithmic one over more than two
  // decades names powers of ten alone.
  std::vector<double> ticks(int about) const;
};

// KL divergences below this are rounding errors of the comparison itself: drawn as 0.
inline constexpr double kSmallestOnLogScale = 1e-8;

// Room is added on both sides, so that no point lies on the frame. Values that are not known are ignored.
Scale linear_scale(const std::vector<double>& values, double from, double to);
Scale linear_scale_from_zero(double highest, double from, double to);
// If some value is 0, `zero_lane` pixels (positive) are kept at `from`.
Scale log_scale(const std::vector<double>& values, double from, double to, double zero_lane);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_SCALE_H_
