#include "nibble/evaluation/quality.h"

#include <algorithm>
#include <cmath>

namespace nibble {
namespace {

// f is increasing.
template <class F>
Interval map(const Interval& interval, F f) {
  return {f(interval.value), f(interval.low), f(interval.high)};
}

// t knows nothing of where a share ends.
Interval share_interval(std::span<const float> values, double confidence) {
  Interval interval = mean_interval(values, confidence);
  if (interval.low < 0.0) interval.low = 0.0;
  if (interval.high > 1.0) interval.high = 1.0;
  return interval;
}

Divergence summarize_divergence(const TokenScores& scores, double confidence) {
  Divergence out;
  out.kl = mean_interval(scores.kl, confidence);
  out.kl_median = quantile_interval(scores.kl, 0.5, confidence);
  out.kl_p90 = quantile_interval(scores.kl, 0.9, confidence);
  out.kl_p99 = quantile_interval(scores.kl, 0.99, confidence);
  out.kl_p999 = quantile_interval(scores.kl, 0.999, confidence);
  out.kl_max = quantile(scores.kl, 1.0);
  out.top1_agreement = share_interval(scores.same_top, confidence);
  out.top5_overlap = share_interval(scores.top5_overlap, confidence);
  out.delta_logprob = mean_interval(scores.delta_log, confidence);
  std::vector<float> squares(scores.delta_prob);
  for (float& v : squares) v *= v;
  out.rms_delta_prob =
      map(mean_interval(squares, confidence), [](double v) { return std::sqrt(std::max(v, 0.0)); });
  return out;
}

}  // namespace

Quality summarize(const TokenScores& scores, const TextWindows& text, double confidence) {
  Quality out;
  out.nll = mean_interval(scores.nll, confidence);
  const size_t blocks = num_blocks(scores.size());
  out.nll_standard_error =
      (out.nll.high - out.nll.value) /
      student_t_quantile(0.5 + 0.5 * confidence, static_cast<double>(std::max<size_t>(blocks, 2) - 1));
  const auto positions = static_cast<double>(scores.size());
  const double per_byte = positions / static_cast<double>(text.bytes);
  const double per_word = positions / static_cast<double>(std::max<size_t>(text.words, 1));
  out.perplexity = map(out.nll, [](double nll) { return std::exp(nll); });
  out.bits_per_byte = map(out.nll, [&](double nll) { return nll * per_byte / std::log(2.0); });
  out.word_perplexity = map(out.nll, [&](double nll) { return std::exp(nll * per_word); });
  out.byte_perplexity = map(out.nll, [&](double nll) { return std::exp(nll * per_byte); });
  if (scores.has_reference()) out.divergence = summarize_divergence(scores, confidence);
  return out;
}

Json to_json(const Quality& quality) {
  Json json = {{"nll", to_json(quality.nll)},
               {"nll_standard_error", finite_or_null(quality.nll_standard_error)},
               {"perplexity", to_json(quality.perplexity)},
               {"bits_per_byte", to_json(quality.bits_per_byte)},
               {"word_perplexity", to_json(quality.word_perplexity)},
               {"byte_perplexity", to_json(quality.byte_perplexity)}};
  if (!quality.divergence) return json;
  const Divergence& d = *quality.divergence;
  json["kl"] = {{"mean", finite_or_null(d.kl.value)},      {"low", finite_or_null(d.kl.low)},
                {"high", finite_or_null(d.kl.high)},       {"median", finite_or_null(d.kl_median.value)},
                {"p90", finite_or_null(d.kl_p90.value)},   {"p99", finite_or_null(d.kl_p99.value)},
                {"p999", finite_or_null(d.kl_p999.value)}, {"max", finite_or_null(d.kl_max)}};
  json["kl_quantiles"] = {{"median", to_json(d.kl_median)},
                          {"p90", to_json(d.kl_p90)},
                          {"p99", to_json(d.kl_p99)},
                          {"p999", to_json(d.kl_p999)}};
  json["top1_agreement"] = to_json(d.top1_agreement);
  json["top5_overlap"] = to_json(d.top5_overlap);
  json["delta_logprob"] = to_json(d.delta_logprob);
  json["rms_delta_prob"] = to_json(d.rms_delta_prob);
  return json;
}

bool is_identical(const TokenScores& scores) {
  const auto zero = [](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float v) { return v == 0.f; });
  };
  return scores.has_reference() && zero(scores.kl) && zero(scores.delta_log);
}

}  // namespace nibble
