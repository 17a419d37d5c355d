#include "nibble/cli/sampling_options.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "nibble/cli/options.h"

namespace nibble::cli {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();

// "12=-100" or "12:-100".
Expected<std::pair<int32_t, double>> parse_logit_bias(const std::string& text) {
  const char* const end = text.data() + text.size();
  int32_t id = 0;
  const auto number = std::from_chars(text.data(), end, id);
  if (number.ec == std::errc() && id >= 0 && number.ptr != end &&
      (*number.ptr == '=' || *number.ptr == ':')) {
    const char* begin = number.ptr + 1;
    if (begin != end && *begin == '+') ++begin;
    double value = 0;
    const auto bias = std::from_chars(begin, end, value);
    if (bias.ec == std::errc() && bias.ptr == end && !std::isnan(value)) return std::pair(id, value);
  }
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is not a token id and a number", text)
      .at("--logit-bias")
      .with_fix("For example: --logit-bias 128009=-100. Ids of a text: nibble tokenize MODEL --text ...");
}

}  // namespace

void add_sampling_options(CLI::App& app, SamplingOptions& options) {
  const std::string group = "Sampling (default: generation_config.json)";
  add_integer(app, "-n,--n-predict,--max-new-tokens", options.max_new_tokens,
              "Most tokens to generate; -1: until the model ends (default: -1 in a chat, else 256)", -1,
              int64_t{1} << 31)
      ->group(group);
  add_number(app, "--temperature,--temp", options.temperature, "Randomness; 0: always the most likely token")
      ->group(group);
  add_integer(app, "--top-k", options.top_k, "Choose among the k most likely tokens; 0: all", 0,
              int64_t{1} << 31)
      ->group(group);
  add_number(app, "--top-p", options.top_p, "Choose among the most likely tokens that make up this share")
      ->group(group);
  add_number(app, "--min-p", options.min_p, "Leave out tokens below this share of the best one's probability")
      ->group(group);
  add_number(app, "--repetition-penalty,--repeat-penalty", options.repetition_penalty,
             "Above 1: avoid tokens that were seen")
      ->group(group);
  add_number(app, "--presence-penalty", options.presence_penalty, "Subtracted once a token was generated")
      ->group(group);
  add_number(app, "--frequency-penalty", options.frequency_penalty,
             "Subtracted for each time that a token was generated")
      ->group(group);
  app.add_option("--logit-bias", options.logit_bias, "Added to a token's logit; may be repeated")
      ->type_name("ID=X")
      ->allow_extra_args(false)
      ->group(group);
  add_integer(app, "--seed", options.seed, "The same seed gives the same text", 0, kMaxInt)->group(group);
  app.add_option("--stop", options.stop, "Stop before this text; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  app.add_flag("--ignore-eos", options.ignore_eos, "Go on after the end token, for benchmarks")->group(group);
}

Status SamplingOptions::apply(GenerationConfig& config) const {
  if (temperature) {
    config.do_sample = *temperature != 0;
    config.temperature = *temperature != 0 ? *temperature : 1.0;
  } else if (top_k || top_p || min_p) {
    config.do_sample = true;
  }
  if (top_k) config.top_k = static_cast<size_t>(*top_k);
  if (top_p) config.top_p = *top_p;
  if (min_p) config.min_p = *min_p;
  if (repetition_penalty) config.repetition_penalty = *repetition_penalty;
  if (presence_penalty) config.presence_penalty = *presence_penalty;
  if (frequency_penalty) config.frequency_penalty = *frequency_penalty;
  if (seed) config.seed = static_cast<uint64_t>(*seed);
  for (const std::string& text : logit_bias) {
    NIBBLE_TRY(const auto bias, parse_logit_bias(text));
    config.logit_bias[bias.first] = bias.second;
  }
  for (const std::string& text : stop) {
    if (text.empty()) {
      return fail(ErrorCode::kInvalidArgument, "the text is empty: it would stop before the first token")
          .at("--stop");
    }
    config.stop_strings.push_back(text);
  }
  if (max_new_tokens) {
    config.max_length.reset();
    config.max_new_tokens.reset();
    if (*max_new_tokens >= 0) config.max_new_tokens = static_cast<size_t>(*max_new_tokens);
  }
  return config.validate();
}

std::vector<std::string> describe_sampling(const GenerationConfig& config, const SamplingOptions& options) {
  std::vector<std::string> lines;
  const auto add = [&](std::string_view key, const std::string& value, bool flag) {
    const bool in_file = config.json.is_object() && config.json.contains(std::string(key));
    lines.push_back(fmt::format("{} = {} ({})", key, value,
                                flag      ? "flag"
                                : in_file ? "generation_config.json"
                                          : "default"));
  };
  const bool sampling_flag = options.temperature || options.top_k || options.top_p || options.min_p;
  add("do_sample", config.do_sample ? "true" : "false", sampling_flag);
  add("temperature", fmt::format("{}", config.temperature), options.temperature.has_value());
  add("top_k", fmt::format("{}", config.top_k), options.top_k.has_value());
  add("top_p", fmt::format("{}", config.top_p), options.top_p.has_value());
  add("min_p", fmt::format("{}", config.min_p), options.min_p.has_value());
  add("repetition_penalty", fmt::format("{}", config.repetition_penalty),
      options.repetition_penalty.has_value());
  add("presence_penalty", fmt::format("{}", config.presence_penalty), options.presence_penalty.has_value());
  add("frequency_penalty", fmt::format("{}", config.frequency_penalty),
      options.frequency_penalty.has_value());
  add("max_new_tokens", config.max_new_tokens ? fmt::format("{}", *config.max_new_tokens) : "no limit",
      options.max_new_tokens.has_value());
  if (config.seed) add("seed", fmt::format("{}", *config.seed), options.seed.has_value());
  return lines;
}

}  // namespace nibble::cli
