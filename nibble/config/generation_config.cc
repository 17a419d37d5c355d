#include "nibble/config/generation_config.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "nibble/base/log.h"
#include "nibble/config/fields.h"

namespace nibble {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 31;

void read_size(FieldReader& reader, std::string_view key, size_t& value) {
  auto number = static_cast<int64_t>(value);
  reader.read_integer({key}, 0, kMaxTokens, fmt::format("an integer from 0 to {}", kMaxTokens), number);
  value = static_cast<size_t>(number);
}

void read_size(FieldReader& reader, std::string_view key, std::optional<size_t>& value) {
  if (reader.find({key}) == nullptr) return;
  value = 0;
  read_size(reader, key, *value);
}

// {"50256": -100}
void read_logit_bias(FieldReader& reader, Faults& faults, std::map<int32_t, double>& logit_bias) {
  const Json* json = reader.find({"logit_bias"});
  if (json == nullptr) return;
  if (!json->is_object()) {
    faults.add("logit_bias is {}, but must be an object from token ids to numbers", shown(*json));
    return;
  }
  for (const auto& [key, value] : json->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || !value.is_number()) {
      faults.add("logit_bias has {}: {}, but must have token ids and numbers", shown(key), shown(value));
      continue;
    }
    logit_bias[id] = value.get<double>();
  }
}

// What Transformers would do besides, and the values with which it does nothing.
void warn_of_the_rest(const Json& json) {
  static const std::pair<std::string_view, Json> kNotFollowed[] = {
      {"bad_words_ids", nullptr},
      {"begin_suppress_tokens", nullptr},
      {"constraints", nullptr},
      {"diversity_penalty", 0.0},
      {"encoder_no_repeat_ngram_size", 0},
      {"encoder_repetition_penalty", 1.0},
      {"epsilon_cutoff", 0.0},
      {"eta_cutoff", 0.0},
      {"exponential_decay_length_penalty", nullptr},
      {"force_words_ids", nullptr},
      {"forced_bos_token_id", nullptr},
      {"forced_eos_token_id", nullptr},
      {"guidance_scale", 1.0},
      {"min_length", 0},
      {"no_repeat_ngram_size", 0},
      {"num_beam_groups", 1},
      {"num_beams", 1},
      {"penalty_alpha", 0.0},
      {"sequence_bias", nullptr},
      {"suppress_tokens", nullptr},
      {"typical_p", 1.0}};
  std::vector<std::string_view> found;
  for (const auto& [key, neutral] : kNotFollowed) {
    const auto value = json.find(key);
    if (value != json.end() && !value->is_null() && *value != neutral) found.push_back(key);
  }
  if (!found.empty())
    warn("generation_config.json: {} not followed", joined(found) + (found.size() == 1 ? " is" : " are"));
}

}  // namespace

Expected<GenerationConfig> GenerationConfig::from_json(const Json& json) {
  if (!json.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "it is {}, but must be an object", json_type_name(json));
  }
  Faults faults;
  GenerationConfig config;
  config.json = json;
  FieldReader reader(json, faults);
  read_size(reader, "max_new_tokens", config.max_new_tokens);
  read_size(reader, "max_length", config.max_length);
  read_size(reader, "min_new_tokens", config.min_new_tokens);
  reader.read({"do_sample"}, config.do_sample);
  reader.read({"temperature"}, config.temperature);
  auto top_k = static_cast<int64_t>(config.top_k);
  reader.read_integer({"top_k"}, -1, kMaxTokens, "a positive integer, or 0 or -1 for off", top_k);
  config.top_k = top_k < 0 ? 0 : static_cast<size_t>(top_k);
  reader.read({"top_p"}, config.top_p);
  reader.read({"min_p"}, config.min_p);
  reader.read({"repetition_penalty"}, config.repetition_penalty);
  reader.read({"presence_penalty"}, config.presence_penalty);
  reader.read({"frequency_penalty"}, config.frequency_penalty);
  read_logit_bias(reader, faults, config.logit_bias);
  if (const Json* stop = reader.find({"stop_strings"}); stop != nullptr && stop->is_string()) {
    config.stop_strings = {stop->get<std::string>()};
  } else {
    reader.read_strings({"stop_strings"}, config.stop_strings);
  }
  reader.read_token_ids({"bos_token_id"}, config.bos_token_id);
  reader.read_token_ids({"eos_token_id"}, config.eos_token_id);
  reader.read_token_id({"pad_token_id"}, config.pad_token_id);
  if (reader.find({"seed"}) != nullptr) {
    int64_t seed = 0;
    reader.read_integer({"seed"}, 0, std::numeric_limits<int64_t>::max(), "a non-negative integer", seed);
    config.seed = static_cast<uint64_t>(seed);
  }
  NIBBLE_RETURN_IF_ERROR(faults.status());
  warn_of_the_rest(json);
  return config;
}

Status GenerationConfig::validate() const {
  Faults faults;
  const auto in_range = [&](std::string_view key, double value, double low, double high) {
    if (!(value >= low && value <= high)) {
      faults.add("{} is {}, but must lie in [{}, {}]", key, value, low, high);
    }
  };
  if (max_new_tokens && *max_new_tokens == 0) faults.add("max_new_tokens is 0, but must be positive");
  if (!max_new_tokens && max_length && *max_length == 0) faults.add("max_length is 0, but must be positive");
  if (max_new_tokens && min_new_tokens > *max_new_tokens) {
    faults.add("min_new_tokens is {}, but max_new_tokens is {}", min_new_tokens, *max_new_tokens);
  }
  if (do_sample && !(temperature > 0.0 && std::isfinite(temperature))) {
    faults.add("temperature is {}, but must be positive (do_sample false takes the likeliest token)",
               temperature);
  }
  in_range("top_p", top_p, 0.0, 1.0);
  in_range("min_p", min_p, 0.0, 1.0);
  if (!(repetition_penalty > 0.0 && std::isfinite(repetition_penalty))) {
    faults.add("repetition_penalty is {}, but must be positive", repetition_penalty);
  }
  in_range("presence_penalty", presence_penalty, -2.0, 2.0);
  in_range("frequency_penalty", frequency_penalty, -2.0, 2.0);
  for (const auto& [id, bias] : logit_bias) {
    if (id < 0 || !std::isfinite(bias))
      faults.add("logit_bias of token {} is {}, but must be a number", id, bias);
  }
  for (const std::string& stop : stop_strings) {
    if (stop.empty()) faults.add("stop_strings has an empty string");
  }
  return faults.status();
}

}  // namespace nibble
