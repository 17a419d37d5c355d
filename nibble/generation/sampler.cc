#include "nibble/generation/sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <functional>
#include <limits>

#include "nibble/base/check.h"
#include "nibble/kernels/vocabulary.h"

namespace nibble {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

uint64_t fresh_seed() {
  try {
    std::random_device device;
    return (uint64_t{device()} << 32) | device();
  } catch (const std::exception&) {  // no source of entropy
    return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }
}

bool contains(size_t size, int32_t id) { return id >= 0 && static_cast<size_t>(id) < size; }

}  // namespace

Sampler::Sampler(const GenerationConfig& config, std::span<const int32_t> prompt, size_t vocab_size)
    : config_(config),
      random_(config.seed ? *config.seed : fresh_seed()),
      vocab_size_(vocab_size),
      completion_counts_(vocab_size),
      seen_(vocab_size) {
  for (const int32_t id : prompt) {
    if (!contains(vocab_size, id) || seen_[static_cast<size_t>(id)]) continue;
    seen_[static_cast<size_t>(id)] = true;
    seen_ids_.push_back(id);
  }
  if (!config_.do_sample) return;
  const bool all = config_.top_k == 0 || config_.top_k >= vocab_size;
  largest_.reserve(all ? 0 : config_.top_k);
  weights_.resize(all ? vocab_size : 0);
  candidates_.reserve(vocab_size);
  scratch_.reserve(config_.top_p < 1.0 ? vocab_size : 0);
}

Expected<int32_t> Sampler::sample(std::span<float> logits) {
  NIBBLE_CHECK(logits.size() == vocab_size_ && !logits.empty());
  kernels::Largest best = kernels::find_largest(logits.data(), logits.size());
  if (best.damaged) return damage(logits);
  if (process(logits)) best = kernels::find_largest(logits.data(), logits.size());
  const float largest = logits[best.index];
  if (largest == kMinusInfinity) {
    return fail(ErrorCode::kInvalidArgument, "every token is ruled out (logit_bias, min_new_tokens)");
  }
  const int32_t token = config_.do_sample ? draw_from(logits, largest) : static_cast<int32_t>(best.index);
  const auto index = static_cast<size_t>(token);
  if (!seen_[index]) seen_ids_.push_back(token);
  if (completion_counts_[index] == 0) completion_ids_.push_back(token);
  seen_[index] = true;
  ++completion_counts_[index];
  ++num_sampled_;
  return token;
}

Failure Sampler::damage(std::span<const float> logits) {
  size_t id = 0;
  while (id + 1 < logits.size() && !std::isnan(logits[id]) && logits[id] != -kMinusInfinity) ++id;
  return fail(ErrorCode::kDataLoss,
              "the model gives token {} the logit {}: its weights are damaged, or not its own", id,
              logits[id])
      .with_fix("Get the model again; --compute f32 rules out that this machine's arithmetic is the cause.");
}

bool Sampler::process(std::span<float> logits) const {
  bool changed = !config_.logit_bias.empty();
  if (config_.repetition_penalty != 1.0) {
    // As in the CTRL paper (arXiv:1909.05858), with the sign rule of Transformers.
    const auto penalty = static_cast<float>(config_.repetition_penalty);
    for (const int32_t id : seen_ids_) {
      float& logit = logits[static_cast<size_t>(id)];
      logit = logit < 0.f ? logit * penalty : logit / penalty;
    }
    changed = true;
  }
  for (const auto& [id, bias] : config_.logit_bias) {
    if (contains(logits.size(), id)) logits[static_cast<size_t>(id)] += static_cast<float>(bias);
  }
  if (config_.presence_penalty != 0.0 || config_.frequency_penalty != 0.0) {
    for (const int32_t id : completion_ids_) {
      const auto index = static_cast<size_t>(id);
      logits[index] -= static_cast<float>(config_.presence_penalty +
                                          config_.frequency_penalty * completion_counts_[index]);
    }
    changed = true;
  }
  if (num_sampled_ < config_.min_new_tokens) {
    for (const int32_t id : config_.eos_token_id) {
      if (contains(logits.size(), id)) logits[static_cast<size_t>(id)] = kMinusInfinity;
    }
    changed = true;
  }
  return changed;
}

int32_t Sampler::draw_from(std::span<const float> logits, float largest) {
  if (weights_.empty()) {
    keep_top_k(logits);
    weigh(largest);
    double total = 0.0;
    for (const Candidate& c : candidates_) total += c.weight;
    keep_top_p(total);
  } else {
    // Limits that no token feels; 1 / temperature may be infinite or 0.
    const double factor = std::clamp(1.0 / config_.temperature, 1e-30, 1e30);
    const double total = kernels::exponential_weights(logits.data(), logits.size(), largest,
                                                      static_cast<float>(factor), weights_.data());
    if (config_.top_p >= 1.0 && config_.min_p <= 0.0) return draw_from_all(total);
    keep_likely(logits, largest, total);
    weigh(largest);
    keep_top_p(total);
  }
  keep_min_p();
  return draw();
}

void Sampler::keep_from(std::span<const float> logits, float threshold) {
  candidates_.clear();
  const size_t count = logits.size();
  for (size_t id = 0; (id = kernels::find_at_least(logits.data(), id, count, threshold)) < count; ++id) {
    if (logits[id] == kMinusInfinity) continue;
    candidates_.push_back({logits[id], static_cast<int32_t>(id), 0.0});
  }
}

// What is not below the top_k-th largest logit: more than top_k where several are equal to it, as in
// Transformers.
void Sampler::keep_top_k(std::span<const float> logits) {
  // A min-heap of the k largest so far. Few logits get past its smallest one, and the others are skipped
  // many at once.
  const size_t k = config_.top_k;
  largest_.assign(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(k));
  std::make_heap(largest_.begin(), largest_.end(), std::greater<>());
  const size_t count = logits.size();
  for (size_t id = k; (id = kernels::find_at_least(logits.data(), id, count, largest_.front())) < count;
       ++id) {
    if (logits[id] <= largest_.front()) continue;
    std::pop_heap(largest_.begin(), largest_.end(), std::greater<>());
    largest_.back() = logits[id];
    std::push_heap(largest_.begin(), largest_.end(), std::greater<>());
  }
  keep_from(logits, largest_.front());
}

void Sampler::weigh(float largest) {
  for (Candidate& c : candidates_) {
    c.weight = std::exp((double{c.logit} - double{largest}) / config_.temperature);
  }
}

// Of all tokens those that top_p and min_p may keep, and perhaps a few more. Candidates below the average
// weight of what top_p drops have together less than that, so that none of them is kept: most of a
// vocabulary goes here.
void Sampler::keep_likely(std::span<const float> logits, float largest, double total) {
  const double dropped = config_.top_p < 1.0 ? (1.0 - config_.top_p) * total : 0.0;
  const double weight = std::max(dropped / static_cast<double>(logits.size()), config_.min_p);
  const double threshold = double{largest} + config_.temperature * std::log(weight);
  const double margin = 1e-5 * (std::abs(double{largest}) + std::abs(threshold));  // roundings to float
  keep_from(logits, static_cast<float>(std::max(threshold - margin, -3e38)));
}

// Keeps the likeliest candidates, up to and including the one with which they reach top_p of the total.
void Sampler::keep_top_p(double total) {
  if (config_.top_p >= 1.0) return;
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  double wanted = config_.top_p * total;
  scratch_.assign(candidates_.begin(), candidates_.end());
  // Finds the last one that is kept by halving, without sorting: if the likelier half of
  // [begin, end) reaches what is wanted it is in there, otherwise in the other half.
  auto begin = scratch_.begin();
  auto end = scratch_.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, likelier);
    double weight = 0.0;
    for (auto it = begin; it != middle; ++it) weight += it->weight;
    if (weight >= wanted) {
      end = middle;
    } else {
      wanted -= weight;
      begin = middle;
    }
  }
  const Candidate last = *begin;
  std::erase_if(candidates_, [&](const Candidate& c) { return likelier(last, c); });
}

// Drops what is less than min_p times as likely as the likeliest, whose weight is 1.
void Sampler::keep_min_p() {
  if (config_.min_p <= 0.0) return;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < config_.min_p; });
}

// 53 random bits in [0, 1): std::uniform_real_distribution differs between libraries.
double Sampler::uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

int32_t Sampler::draw() {
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  double rest = uniform() * total;
  const Candidate* chosen = nullptr;
  for (const Candidate& c : candidates_) {
    if (c.weight == 0.0) continue;
    chosen = &c;  // rounding may leave a little of `rest` behind the last one
    if (rest < c.weight) break;
    rest -= c.weight;
  }
  NIBBLE_CHECK(chosen != nullptr);  // the likeliest one has weight 1 and is never dropped
  return chosen->id;
}

// The same over weights_, whole blocks at once.
int32_t Sampler::draw_from_all(double total) {
  double rest = uniform() * total;
  size_t block = 0;  // the last one with a weight, at most
  for (size_t begin = 0; begin < weights_.size(); begin += kernels::kWeightBlock) {
    const size_t count = std::min(kernels::kWeightBlock, weights_.size() - begin);
    const double sum = kernels::weight_sum(weights_.data() + begin, count);
    if (sum == 0.0) continue;
    block = begin;
    if (rest < sum) break;
    rest -= sum;
  }
  size_t chosen = weights_.size();
  for (size_t id = block; id < std::min(block + kernels::kWeightBlock, weights_.size()); ++id) {
    if (weights_[id] == 0.f) continue;
    chosen = id;  // rounding may leave a little of `rest` behind the last one
    if (rest < double{weights_[id]}) break;
    rest -= double{weights_[id]};
  }
  NIBBLE_CHECK(chosen < weights_.size());
  return static_cast<int32_t>(chosen);
}

}  // namespace nibble
