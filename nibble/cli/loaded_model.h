#ifndef NIBBLE_CLI_LOADED_MODEL_H_
#define NIBBLE_CLI_LOADED_MODEL_H_

// What `run` and `chat` have in common: the options of an answer, and a model that stands ready to give it.

#include <memory>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "nibble/cli/conversation.h"
#include "nibble/cli/options.h"
#include "nibble/cli/sampling_options.h"

namespace nibble::cli {

struct AnswerOptions {
  CommonOptions common;
  ModelOption model;
  LoadOptions load;
  SamplingOptions sampling;
  std::optional<std::string> system;
  std::string chat_template;
  std::optional<int64_t> prefill_chunk;
  std::optional<int64_t> lookup;
  bool raw = false;  // without the chat template

  ConversationOptions conversation() const;
};
// Without MODEL, the prompt, --raw and the common options, which commands define themselves.
void add_answer_options(CLI::App& app, AnswerOptions& options);

// What can be said before the model is read.
Status check_answer_options(const AnswerOptions& options);

struct LoadedModel {
  Tokenizer tokenizer;
  std::unique_ptr<CausalLM> model;
  GenerationConfig defaults;    // generation_config.json
  GenerationConfig generation;  // with what the flags say
  bool chat = false;            // prompts go through the chat template
  double load_seconds = 0;
};
Expected<LoadedModel> load_model(const AnswerOptions& options, ThreadPool& pool);

// Tokens per second. The first token comes out of reading the prompt: generation is what follows.
double prompt_rate(const GenerateResult& result);
double generation_rate(const GenerateResult& result);
void log_speed(const GenerateResult& result);

// The answer to `tokens` (the whole sequence), shown on stdout as it comes if `show`, with a newline at
// its end.
Expected<GenerateResult> stream_answer(Conversation& conversation, const std::vector<int32_t>& tokens,
                                       bool show);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_LOADED_MODEL_H_
