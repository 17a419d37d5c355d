#ifndef NIBBLE_EVALUATION_CANDIDATE_H_
#define NIBBLE_EVALUATION_CANDIDATE_H_

// One model of a comparison, and what was measured of it.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nibble/evaluation/compare.h"
#include "nibble/evaluation/quality.h"
#include "nibble/evaluation/score_text.h"

namespace nibble {

struct Candidate {
  std::string id;
  std::string label;
  std::string path;  // that from_pretrained opens
  std::string method;
  int bits = 0;
  int64_t group_size = 0;
  bool is_reference = false;
  size_t disk_bytes = 0;
  double bits_per_weight = 0.0;  // of the whole model
  size_t parameters = 0;
  Json quantize = nullptr;  // {"seconds", "command"} where it was made here

  TokenScores scores;
  Quality quality;
  size_t weight_bytes = 0;
  Json tasks = nullptr;
  Json layers = nullptr;
  std::string damaged_linear;
  Json samples = Json::array();
  std::vector<SpeedSample> speed;
};

// What a measurement depends on, so that one that is kept is known again.
Expected<Json> describe_model(const std::string& path);

// The candidates in the order they were asked for, made where they are not there yet. The reference is among
// them, once, and is the first.
Expected<std::vector<Candidate>> make_candidates(const CompareOptions& options, ThreadPool& pool);

// Quality, tasks, layers and sample answers, measured or taken from workdir.
struct Yardstick {
  const CausalLM& reference;
  Json description;  // of the reference
  const TextWindows& text;
};
Status measure_candidate(const CompareOptions& options, const Yardstick& yardstick, Candidate& candidate,
                         ThreadPool& pool);

// A JSON file in workdir; null where it is not there.
Expected<Json> read_record(const std::filesystem::path& file);

// All rounds of speed, one candidate after the other in each.
Status measure_speeds(const CompareOptions& options, std::vector<Candidate>& candidates, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_CANDIDATE_H_
