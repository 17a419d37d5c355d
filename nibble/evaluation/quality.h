#ifndef NIBBLE_EVALUATION_QUALITY_H_
#define NIBBLE_EVALUATION_QUALITY_H_

// Scores of positions summed up: what a report says about how good a model is.

#include <optional>

#include "nibble/base/json.h"
#include "nibble/evaluation/statistics.h"
#include "nibble/evaluation/text_windows.h"
#include "nibble/evaluation/token_scores.h"

namespace nibble {

// Beside a reference model p; all over the scored positions.
struct Divergence {
  Interval kl;  // mean KL(p || q), nats; its quantiles:
  Interval kl_median, kl_p90, kl_p99, kl_p999;
  double kl_max = 0.0;
  Interval top1_agreement;
  Interval top5_overlap;
  Interval delta_logprob;   // mean of log q(next) - log p(next), nats: below 0 the model is worse
  Interval rms_delta_prob;  // root of the mean square of q(next) - p(next)
};

struct Quality {
  Interval nll;  // mean, nats per token
  double nll_standard_error = 0.0;
  Interval perplexity;       // exp(nll), per token
  Interval bits_per_byte;    // of the text that the scored tokens stand for
  Interval word_perplexity;  // per word of that text
  Interval byte_perplexity;  // per byte of it
  std::optional<Divergence> divergence = {};
};

Quality summarize(const TokenScores& scores, const TextWindows& text, double confidence);

// The keys of docs/compare-report.md.
Json to_json(const Quality& quality);

// Every score is exactly that of the same model: all divergences are 0.
bool is_identical(const TokenScores& scores);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_QUALITY_H_
