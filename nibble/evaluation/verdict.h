#ifndef NIBBLE_EVALUATION_VERDICT_H_
#define NIBBLE_EVALUATION_VERDICT_H_

// Which candidate to take, from what was measured and what the user needs.

#include <optional>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/evaluation/statistics.h"

namespace nibble {

enum class Preference { kBalanced, kQuality, kSpeed, kSize };
Expected<Preference> preference_from_name(std::string_view name);
std::string_view preference_name(Preference preference);

struct Limits {
  size_t max_memory = 0;   // bytes of peak memory while it runs; 0: none
  double min_speed = 0.0;  // decoded tokens per second
  double max_kl = 0.0;     // mean, nats; 0: none
  Preference prefer = Preference::kBalanced;
};

// What the decision looks at; nothing where it was not measured.
struct Contender {
  std::string id;
  std::string label;
  bool is_reference = false;
  bool identical = false;  // to the reference, in every score
  Interval kl;
  double top1_agreement = 0.0;
  size_t disk_bytes = 0;
  double bits_per_weight = 0.0;  // on disk, of the whole model
  std::optional<double> peak_memory = {};
  std::optional<double> decode = {};  // tokens per second
  std::optional<double> prefill = {};
};

enum class Finding { kIdentical, kNoDifference, kFirstIsBetter, kSecondIsBetter };
std::string_view finding_name(Finding finding);

// A difference in mean KL counts where it is significant (p < 1 - confidence) and larger than what another
// choice of calibration text makes: 8 % of the larger one (docs/compare.md has the measurement).
Finding judge(const PairedTest& test, double kl_a, double kl_b, double confidence);

struct Pair {
  size_t a = 0, b = 0;  // contenders
  PairedTest test;      // of KL(a) - KL(b)
  Finding finding = Finding::kNoDifference;
};

struct Verdict {
  std::optional<size_t> choice;     // nothing fits
  std::optional<size_t> runner_up;  // the next best that fits
  std::string headline;
  std::vector<std::string> reasons, cost, would_change;
  std::string runner_up_note;
  // Of every contender: why it is out; empty where it fits.
  std::vector<std::vector<std::string>> excluded_because;
};

// Those that break a limit are out. Of the rest
//   quality   has the lowest KL,
//   speed     decodes fastest, size is smallest on disk, of those with a KL of at most 0.2 nats (about 20 %
//   more
//             perplexity) or of at most max_kl where that is given,
//   balanced  has the lowest KL for its size: the lowest KL * 4^(bits per weight), since rounding with one
//   bit
//             more makes an error with a quarter of the square.
// The reference is what one wants to get away from: it comes last.
Verdict decide(const std::vector<Contender>& contenders, const std::vector<Pair>& pairs,
               const Limits& limits);

Json to_json(const Verdict& verdict, const std::vector<Contender>& contenders);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_VERDICT_H_
