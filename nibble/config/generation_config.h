#ifndef NIBBLE_CONFIG_GENERATION_CONFIG_H_
#define NIBBLE_CONFIG_GENERATION_CONFIG_H_

// generation_config.json: how a model likes to be sampled. Names and defaults as in Transformers.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nibble/base/json.h"

namespace nibble {

struct GenerationConfig {
  std::optional<size_t> max_new_tokens = {};
  std::optional<size_t> max_length = {};  // prompt included; used where max_new_tokens is not given
  size_t min_new_tokens = 0;
  bool do_sample = false;
  double temperature = 1.0;
  size_t top_k = 50;  // 0: off
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;   // as in OpenAI's API: not in Transformers
  double frequency_penalty = 0.0;  // as in OpenAI's API: not in Transformers
  std::map<int32_t, double> logit_bias = {};
  std::vector<std::string> stop_strings = {};
  std::vector<int32_t> bos_token_id = {}, eos_token_id = {};
  std::optional<int32_t> pad_token_id = {};
  std::optional<uint64_t> seed = {};

  Json json = {};  // the whole file

  static Expected<GenerationConfig> from_json(const Json& json);
  Status validate() const;  // names every value out of range
};

}  // namespace nibble

#endif  // NIBBLE_CONFIG_GENERATION_CONFIG_H_
