#ifndef NIBBLE_PIPELINE_COMPARE_LOGITS_H_
#define NIBBLE_PIPELINE_COMPARE_LOGITS_H_

// What two models predict at one position, compared while their logits come by, a slice of the vocabulary at
// a time: whole rows of logits for many positions are large.

#include <cmath>
#include <limits>
#include <span>

namespace nibble {

// The softmax of one model's logits so far. Sums are relative to the largest logit, in double.
struct RunningSoftmax {
  double largest = -std::numeric_limits<double>::infinity();
  size_t top = 0;  // the first token that has it
  double sum = 0;  // of exp(logit - largest)

  // Takes the largest logit of a slice into account, whose first token is `first`. Returns what earlier sums
  // were multiplied by for it; the slice's own terms are added by the caller.
  double raise(std::span<const float> logits, size_t first);
  double log_sum_exp() const { return largest + std::log(sum); }
};

// NaN among the logits makes kl() NaN.
class LogitComparison {
 public:
  // `next`: the token that follows in the text.
  explicit LogitComparison(size_t next) : next_(next) {}

  // Logits of tokens [first, first + p.size()) by both models; q has the size of p. Slices come in the order
  // of the vocabulary.
  void add(std::span<const float> p, std::span<const float> q, size_t first);

  // After the last slice, in nats.
  double kl() const;  // KL(p || q)
  double nll_p() const { return p_.log_sum_exp() - next_p_; }
  double nll_q() const { return q_.log_sum_exp() - next_q_; }
  bool same_top() const { return p_.top == q_.top; }

 private:
  size_t next_;
  double next_p_ = 0, next_q_ = 0;  // logits of `next_`
  RunningSoftmax p_, q_;
  double difference_ = 0;  // sum of exp(p - largest p) (p - q)
};

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_COMPARE_LOGITS_H_
