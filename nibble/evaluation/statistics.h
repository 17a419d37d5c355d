#ifndef NIBBLE_EVALUATION_STATISTICS_H_
#define NIBBLE_EVALUATION_STATISTICS_H_

// How sure a measured mean is. The positions of a text are not independent (neighbours share a context and a
// topic), so intervals and tests go by the means of consecutive blocks, with Student's t over the blocks.

#include <cstddef>
#include <span>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {

struct Interval {
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;  // NaN, as `low`, where there is too little to say
};
Json to_json(const Interval& interval);  // {"value", "low", "high"}; null for what is NaN

// How many blocks so many values are cut into: 64, or blocks of 64 values where that is less; at least 1.
size_t num_blocks(size_t values);

// Student's t: P(T <= t), and the t of which that is p (0 < p < 1). df > 0.
double student_t_cdf(double t, double df);
double student_t_quantile(double p, double df);

// The mean, and where the true one is with `confidence`.
Interval mean_interval(std::span<const float> values, double confidence);

struct PairedTest {
  Interval difference;   // mean of a - b
  double p_value = 1.0;  // of no difference, two-sided; 1 where all differences are 0
};
// a, b: of the same positions.
PairedTest paired_test(std::span<const float> a, std::span<const float> b, double confidence);

// Share of successes, Wilson's interval: independent questions, not positions of a text.
Interval proportion_interval(size_t successes, size_t trials, double confidence);

// Between the two nearest values, as numpy's default; q in [0, 1]; NaN for no values.
double quantile(std::span<const float> values, double q);

// The quantile, and where the true one is with `confidence`: the values at q plus or minus what the share of
// values below it is uncertain by (Woodruff 1952).
Interval quantile_interval(std::span<const float> values, double q, double confidence);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_STATISTICS_H_
