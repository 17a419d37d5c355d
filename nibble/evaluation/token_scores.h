#ifndef NIBBLE_EVALUATION_TOKEN_SCORES_H_
#define NIBBLE_EVALUATION_TOKEN_SCORES_H_

// What a model, and its distance from a reference model, is at every scored position of a text. Everything
// that is said about quality is a summary of these, so that any two candidates can be compared later.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "nibble/base/error.h"

namespace nibble {

// One element per scored position, in the order of the text. All but `nll` are empty without a reference.
struct TokenScores {
  std::vector<float> nll;  // -log q(next token), nats

  std::vector<float> kl;            // KL(p || q), p the reference's distribution, nats
  std::vector<float> delta_log;     // log q(next) - log p(next), nats
  std::vector<float> delta_prob;    // q(next) - p(next)
  std::vector<float> same_top;      // 1 where both have the same most likely token
  std::vector<float> top5_overlap;  // share of the reference's five most likely tokens among the model's

  size_t size() const { return nll.size(); }
  bool has_reference() const { return !kl.empty(); }
  void resize(size_t positions, bool with_reference);
  bool operator==(const TokenScores&) const = default;
};

// Fills position `at` from whole rows of logits; `reference` is empty without a reference.
void score_token(std::span<const float> logits, std::span<const float> reference, int32_t next, size_t at,
                 TokenScores& scores);

Status save_scores(const TokenScores& scores, const std::filesystem::path& file);
Expected<TokenScores> load_scores(const std::filesystem::path& file);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_TOKEN_SCORES_H_
