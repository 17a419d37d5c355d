#include "nibble/generation/sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <functional>
#include <limits>

#include "nibble/base/check.h"

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
      completion_counts_(vocab_size),
      seen_(vocab_size) {
  for (const int32_t id : prompt) {
    if (contains(vocab_size, id)) seen_[static_cast<size_t>(id)] = true;
  }
  if (!config_.do_sample) return;
  largest_.reserve(std::min(config_.top_k, vocab_size));
  candidates_.reserve(vocab_size);
  scratch_.reserve(config_.top_p < 1.0 ? vocab_size : 0);
}

Expected<int32_t> Sampler::sample(std::span<float> logits) {
  NIBBLE_CHECK(logits.size() == seen_.size() && !logits.empty());
  NIBBLE_RETURN_IF_ERROR(check(logits));
  process(logits);
  const auto best = std::max_element(logits.begin(), logits.end());  // the first of equal ones
  if (*best == kMinusInfinity) {
    return fail(ErrorCode::kInvalidArgument, "every token is ruled out (logit_bias, min_new_tokens)");
  }
  auto token = static_cast<int32_t>(best - logits.begin());
  if (config_.do_sample) {
    keep_top_k(logits);
    for (Candidate& c : candidates_) {
      c.weight = std::exp((double{c.logit} - double{*best}) / config_.temperature);
    }
    keep_top_p();
    keep_min_p();
    token = draw();
  }
  seen_[static_cast<size_t>(token)] = true;
  ++completion_counts_[static_cast<size_t>(token)];
  ++num_sampled_;
  return token;
}

Status Sampler::check(std::span<const float> logits) const {
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id]) || logits[id] == -kMinusInfinity) {
      return fail(ErrorCode::kDataLoss,
                  "the model gives token {} the logit {}: its weights are damaged, or not its own", id,
                  logits[id])
          .with_fix(
              "Get the model again; --compute f32 rules out that this machine's arithmetic is the cause.");
    }
  }
  return {};
}

void Sampler::process(std::span<float> logits) const {
  if (config_.repetition_penalty != 1.0) {
    // As in the CTRL paper (arXiv:1909.05858), with the sign rule of Transformers.
    const auto penalty = static_cast<float>(config_.repetition_penalty);
    for (size_t id = 0; id < logits.size(); ++id) {
      if (seen_[id]) logits[id] = logits[id] < 0.f ? logits[id] * penalty : logits[id] / penalty;
    }
  }
  for (const auto& [id, bias] : config_.logit_bias) {
    if (contains(logits.size(), id)) logits[static_cast<size_t>(id)] += static_cast<float>(bias);
  }
  if (config_.presence_penalty != 0.0 || config_.frequency_penalty != 0.0) {
    for (size_t id = 0; id < logits.size(); ++id) {
      if (completion_counts_[id] == 0) continue;
      logits[id] -=
          static_cast<float>(config_.presence_penalty + config_.frequency_penalty * completion_counts_[id]);
    }
  }
  if (num_sampled_ < config_.min_new_tokens) {
    for (const int32_t id : config_.eos_token_id) {
      if (contains(logits.size(), id)) logits[static_cast<size_t>(id)] = kMinusInfinity;
    }
  }
}

// Fills candidates_ with what is not below the top_k-th largest logit: more than top_k where several
// are equal to it, as in Transformers.
void Sampler::keep_top_k(std::span<const float> logits) {
  float threshold = kMinusInfinity;
  if (const size_t k = config_.top_k; k != 0 && k < logits.size()) {
    // A min-heap of the k largest so far. Few logits get past its smallest one, so that this costs
    // about one comparison for each.
    largest_.assign(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(k));
    std::make_heap(largest_.begin(), largest_.end(), std::greater<>());
    for (const float logit : logits.subspan(k)) {
      if (logit <= largest_.front()) continue;
      std::pop_heap(largest_.begin(), largest_.end(), std::greater<>());
      largest_.back() = logit;
      std::push_heap(largest_.begin(), largest_.end(), std::greater<>());
    }
    threshold = largest_.front();
  }
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] < threshold || logits[id] == kMinusInfinity) continue;
    candidates_.push_back({logits[id], static_cast<int32_t>(id), 0.0});
  }
}

// Keeps the likeliest candidates, up to and including the one with which they reach top_p.
void Sampler::keep_top_p() {
  if (config_.top_p >= 1.0) return;
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  double wanted = config_.top_p * total;

  // Candidates below this weight have together less than (1 - top_p) of the total, so that none of them
  // is kept: most of a vocabulary goes here.
  const double hopeless = (1.0 - config_.top_p) * total / static_cast<double>(candidates_.size());
  scratch_.clear();
  for (const Candidate& c : candidates_) {
    if (c.weight >= hopeless) scratch_.push_back(c);
  }
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

int32_t Sampler::draw() {
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  // 53 random bits in [0, 1): std::uniform_real_distribution differs between libraries.
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  double rest = uniform * total;
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

}  // namespace nibble
