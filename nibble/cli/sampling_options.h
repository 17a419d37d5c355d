#ifndef NIBBLE_CLI_SAMPLING_OPTIONS_H_
#define NIBBLE_CLI_SAMPLING_OPTIONS_H_

// How the next token is chosen: flags over generation_config.json over the defaults of Transformers.

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "nibble/config/generation_config.h"

namespace nibble::cli {

struct SamplingOptions {
  std::optional<double> temperature;  // 0: always the most likely token
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::vector<std::string> logit_bias;  // "ID=VALUE"
  std::optional<int64_t> seed;
  std::vector<std::string> stop;
  std::optional<int64_t> max_new_tokens;  // -1: until the model ends or the context is full
  bool ignore_eos = false;

  // Puts what the user gave into `config` and checks the whole. Naming a temperature, top-k, top-p
  // or min-p means sampling, whatever the file says of do_sample; temperature 0 means not.
  Status apply(GenerationConfig& config) const;
};
void add_sampling_options(CLI::App& app, SamplingOptions& options);

// Where each setting comes from, for -v: "temperature = 0.6 (generation_config.json)".
// `config`: after apply().
std::vector<std::string> describe_sampling(const GenerationConfig& config, const SamplingOptions& options);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_SAMPLING_OPTIONS_H_
