#ifndef NIBBLE_REPORT_REPORT_DATA_H_
#define NIBBLE_REPORT_REPORT_DATA_H_

// The report as plain structs: what all renderers read. The keys are those of docs/compare-report.md.

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nibble/base/json.h"

namespace nibble::report {

inline constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();
inline bool is_known(double value) { return std::isfinite(value); }

// A mean with its confidence interval, or a median with the smallest and the largest of some runs.
struct Measured {
  double value = kNotMeasured, low = kNotMeasured, high = kNotMeasured;
};

// What is drawn and coloured alike.
enum class Family { kFloat, kGptq, kAwq, kBitsandbytes, kRtn, kOther };

struct KlPercentiles {
  double median = kNotMeasured, p90 = kNotMeasured, p99 = kNotMeasured, p999 = kNotMeasured,
         max = kNotMeasured;  // nats
};

struct LayerDamage {
  size_t layer = 0;
  double relative_error = kNotMeasured, cosine = kNotMeasured;
  std::string worst_linear;
  double worst_linear_error = kNotMeasured;
};

struct Sample {
  std::string prompt, text;
};

struct Candidate {
  std::string id, label;
  Family family = Family::kOther;
  double disk_bytes = kNotMeasured, weight_bytes = kNotMeasured, bits_per_weight = kNotMeasured;
  Measured perplexity, bits_per_byte, kl, top1_agreement, top5_overlap, delta_logprob, rms_delta_prob;
  KlPercentiles kl_percentiles;
  Measured load_seconds, prefill, decode, peak_memory;  // s, tok/s, tok/s, bytes
  double questions = kNotMeasured;
  Measured acc, acc_norm;
  std::vector<LayerDamage> layers;
  std::vector<Sample> samples;
  double quantize_seconds = kNotMeasured;
  std::string quantize_command;
  bool fits = true;
  std::vector<std::string> excluded_because;
  bool is_reference = false, is_choice = false;
  bool is_identical = false;  // the same bits as the reference predicts
};

struct Pair {
  std::string a, b, metric;  // labels, "kl"
  double difference = kNotMeasured, low = kNotMeasured, high = kNotMeasured, p_value = kNotMeasured;
  std::string verdict;  // "GPTQ 4-bit is better"
};

struct Verdict {
  std::string headline;
  std::vector<std::string> reasons, cost, would_change;
  std::string runner_up;  // with what there is to say of it
};

using Facts = std::vector<std::pair<std::string, std::string>>;  // what, value: ready to be shown

struct Report {
  std::string created, nibble, command;
  std::string model_name;
  std::vector<std::string> model_notes;
  Facts model, machine, protocol, limits;
  std::string text_name;
  double tokens = kNotMeasured;
  double confidence = 0.95;
  double memory_limit = kNotMeasured;  // bytes
  std::vector<Candidate> candidates;
  std::optional<size_t> reference, choice;  // indices into candidates
  std::vector<Pair> pairs;
  Verdict verdict;

  // "float", or "the original" where no candidate is the reference.
  std::string reference_label() const;
};

Report read_report(const Json& report);

// The layer with the largest relative error; nullptr if none was measured.
const LayerDamage* worst_layer(const Candidate& candidate);

// All prompts in the order in which they come first, and the answer to one of them (or nullptr).
std::vector<std::string> prompts(const Report& report);
const Sample* find_sample(const Candidate& candidate, const std::string& prompt);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_REPORT_DATA_H_
