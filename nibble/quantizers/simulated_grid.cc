#include "nibble/quantizers/simulated_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nibble/base/float16.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kMaxHalf = 65504.f;
constexpr float kMinHalf = 0x1p-24f;

// Scales are tried from a little more than what covers the range down to where clipping the tail
// no longer pays. One alone is the plain min-max grid.
float range_factor(size_t i, size_t count, float first, float last) {
  if (count == 1) return 1.f;
  return first + (last - first) * static_cast<float>(i) / static_cast<float>(count - 1);
}

}  // namespace

void LaneGrids::set(size_t lane, float lane_scale, float lane_zero, float max_code) {
  scale[lane] = lane_scale;
  zero[lane] = lane_zero;
  inverse[lane] = 1.f / lane_scale;
  low[lane] = -lane_zero;
  high[lane] = max_code - lane_zero;
}

float usable_scale(float scale) {
  const float magnitude = std::clamp(std::fabs(scale), kMinHalf, kMaxHalf);
  return std::copysign(fp16_to_float(float_to_fp16(magnitude)), scale);
}

SimulatedGrid::SimulatedGrid(const GptqSettings& settings, const SolverSteps& steps,
                             const LaneKernels& kernels, size_t max_width, size_t lanes)
    : kernels_(kernels),
      lanes_(lanes),
      sym_(settings.sym),
      max_code_(static_cast<float>((1 << settings.bits) - 1)),
      least_zero_(!settings.sym && !settings.zero_may_be_0 ? 1.f : 0.f),
      num_factors_(std::max<size_t>(1, steps.grid_candidates)),
      num_scales_(num_factors_ * (settings.sym && settings.signed_scales ? 2 : 1)) {
  const size_t possible_zeros = static_cast<size_t>(max_code_ - least_zero_) + 1;
  num_zeros_ = sym_ ? 1 : settings.bits == 2 ? possible_zeros : 3;
  num_simulated_ = std::clamp<size_t>(steps.grid_simulations, 1, num_scales_ * num_zeros_);
  proposals_ = AlignedBuffer(num_scales_ * (1 + 2 * num_zeros_) * lanes * sizeof(float));
  kept_.resize(lanes * num_simulated_);
  trial_ = AlignedBuffer(2 * max_width * lanes * sizeof(float));
}

void SimulatedGrid::propose_symmetric(const float* t, size_t width, size_t lane) {
  float magnitude = 0.f;
  for (size_t j = 0; j < width; ++j) magnitude = std::max(magnitude, std::fabs(t[j * lanes_ + lane]));
  const float zero = (max_code_ + 1.f) / 2.f;
  for (size_t i = 0; i < num_factors_; ++i) {
    const float scale = usable_scale(range_factor(i, num_factors_, 1.02f, 0.45f) * magnitude / (zero - 1.f));
    // The long arm of the grid is on the negative side; a negative scale turns it round.
    const size_t signs = num_scales_ / num_factors_;
    for (size_t sign = 0; sign < signs; ++sign) {
      scales()[(i * signs + sign) * lanes_ + lane] = sign == 0 ? scale : -scale;
      zeros()[(i * signs + sign) * lanes_ + lane] = zero;
    }
  }
}

void SimulatedGrid::propose_asymmetric(const float* t, size_t width, size_t lane) {
  float low = 0.f;
  float high = 0.f;
  for (size_t j = 0; j < width; ++j) {
    low = std::min(low, t[j * lanes_ + lane]);
    high = std::max(high, t[j * lanes_ + lane]);
  }
  for (size_t i = 0; i < num_factors_; ++i) {
    const float scale = usable_scale(range_factor(i, num_factors_, 1.05f, 0.4f) * (high - low) / max_code_);
    scales()[i * lanes_ + lane] = scale;
    propose_zeros(i, lane, max_code_ / 2.f - (high + low) / 2.f / scale);
  }
}

// The integers nearest to the zero point that centres the range, or all of them where they are few.
void SimulatedGrid::propose_zeros(size_t candidate, size_t lane, float center) {
  float* const out = zeros() + candidate * num_zeros_ * lanes_ + lane;
  if (static_cast<float>(num_zeros_) > max_code_ - least_zero_) {
    for (size_t z = 0; z < num_zeros_; ++z) out[z * lanes_] = least_zero_ + static_cast<float>(z);
    return;
  }
  const float nearest = std::nearbyint(center);
  const float side = center >= nearest ? 1.f : -1.f;
  const float tried[3] = {nearest, nearest + side, nearest - side};
  for (size_t z = 0; z < 3; ++z) out[z * lanes_] = std::clamp(tried[z], least_zero_, max_code_);
}

void SimulatedGrid::propose(const GroupProblem& problem) {
  const size_t width = problem.sweep.end - problem.sweep.begin;
  for (size_t lane = 0; lane < lanes_; ++lane) {
    if (sym_) {
      propose_symmetric(problem.sweep.initial, width, lane);
    } else {
      propose_asymmetric(problem.sweep.initial, width, lane);
    }
  }
}

// Clamped zero points may be the same: simulating one of them is enough.
void SimulatedGrid::skip_repeated_zeros() {
  if (num_zeros_ != 3) return;
  for (size_t c = 0; c < num_scales_; ++c) {
    const float* const zero = zeros() + c * 3 * lanes_;
    float* const score = scores() + c * 3 * lanes_;
    for (size_t lane = 0; lane < lanes_; ++lane) {
      const float first = zero[lane];
      const float second = zero[lanes_ + lane];
      const float third = zero[2 * lanes_ + lane];
      if (second == first) score[lanes_ + lane] = kInfinity;
      if (third == first || third == second) score[2 * lanes_ + lane] = kInfinity;
    }
  }
}

// Per lane the indices of the best scores, ascending; of equal ones the first.
void SimulatedGrid::shortlist() {
  const size_t count = num_scales_ * num_zeros_;
  std::vector<float> kept_scores(num_simulated_);
  for (size_t lane = 0; lane < lanes_; ++lane) {
    uint32_t* const kept = kept_.data() + lane * num_simulated_;
    std::fill_n(kept, num_simulated_, 0u);
    std::fill(kept_scores.begin(), kept_scores.end(), kInfinity);
    for (size_t c = 0; c < count; ++c) {
      const float score = scores()[c * lanes_ + lane];
      if (!(score < kept_scores.back())) continue;
      size_t place = num_simulated_ - 1;
      for (; place > 0 && score < kept_scores[place - 1]; --place) {
        kept_scores[place] = kept_scores[place - 1];
        kept[place] = kept[place - 1];
      }
      kept_scores[place] = score;
      kept[place] = static_cast<uint32_t>(c);
    }
  }
}

void SimulatedGrid::round(const GroupProblem& problem, const LaneGrids& grids, float* error, float* code,
                          float* loss) const {
  Feedback feedback;
  feedback.sweep = problem.sweep;
  feedback.target = problem.target;
  feedback.grid = grids.view();
  feedback.weight = problem.weight;
  feedback.error = error;
  feedback.code = code;
  feedback.loss = loss;
  kernels_.feed_back(feedback);
}

void SimulatedGrid::simulate(const GroupProblem& problem, const LaneGrids& trial) {
  const size_t width = problem.sweep.end - problem.sweep.begin;
  float loss[kMaxLanes];
  float* const error = trial_.as<float>();
  round(problem, trial, error, error + width * lanes_, loss);
  for (size_t lane = 0; lane < lanes_; ++lane) {
    if (!(loss[lane] < best_loss_[lane])) continue;
    best_loss_[lane] = loss[lane];
    best_.set(lane, trial.scale[lane], trial.zero[lane], max_code_);
  }
}

void SimulatedGrid::choose(const GroupProblem& problem, bool with_current, LaneGrids& grids) {
  propose(problem);
  kernels_.score_grids(problem.sweep.initial, problem.weight, problem.sweep.end - problem.sweep.begin, lanes_,
                       scales(), zeros(), num_scales_, num_zeros_, max_code_, scores());
  skip_repeated_zeros();
  shortlist();

  std::fill_n(best_loss_, lanes_, kInfinity);
  if (with_current) simulate(problem, grids);
  for (size_t m = 0; m < num_simulated_; ++m) {
    LaneGrids trial;
    for (size_t lane = 0; lane < lanes_; ++lane) {
      const size_t c = kept_[lane * num_simulated_ + m];
      trial.set(lane, scales()[c / num_zeros_ * lanes_ + lane], zeros()[c * lanes_ + lane], max_code_);
    }
    if (m == 0 && !with_current) best_ = trial;  // also where every loss overflows
    if (num_simulated_ > 1 || with_current) simulate(problem, trial);
  }
  grids = best_;
}

}  // namespace nibble
