#include "nibble/cli/loaded_model.h"

#include <chrono>
#include <utility>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/input.h"
#include "nibble/cli/output.h"

namespace nibble::cli {
namespace {

// A base model goes on for ever; that is what few want of a prompt without a limit.
constexpr size_t kDefaultNewTokens = 256;

constexpr int64_t kMostLookupTokens = 64;

double per_second(size_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

}  // namespace

ConversationOptions AnswerOptions::conversation() const {
  ConversationOptions settings;
  if (load.ctx_size) settings.max_context = static_cast<size_t>(*load.ctx_size);
  if (prefill_chunk) settings.prefill_chunk = static_cast<size_t>(*prefill_chunk);
  if (lookup) settings.lookup_tokens = static_cast<size_t>(*lookup);
  settings.ignore_eos = sampling.ignore_eos;
  return settings;
}

void add_answer_options(CLI::App& app, AnswerOptions& options) {
  app.add_option("--system", options.system, "The system message")->type_name("TEXT");
  app.add_option("--chat-template", options.chat_template, "Use this template, not the model's")
      ->type_name("FILE");
  add_sampling_options(app, options.sampling);
  add_load_options(app, options.load);
  add_integer(app, "--lookup", options.lookup,
              "Guess up to so many tokens from the text so far and check them in one pass (default: 0, off)",
              0, kMostLookupTokens);
  add_integer(app, "--prefill-chunk", options.prefill_chunk, "Prompt tokens per forward pass (default: 512)",
              1, int64_t{1} << 20)
      ->group("Loading");
}

Status check_answer_options(const AnswerOptions& options) {
  NIBBLE_RETURN_IF_ERROR(options.load.to_from_pretrained(options.model.revision));
  GenerationConfig trial;
  return options.sampling.apply(trial);
}

Expected<LoadedModel> load_model(const AnswerOptions& options, ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  NIBBLE_TRY(const FromPretrainedOptions from, options.load.to_from_pretrained(options.model.revision));
  NIBBLE_TRY(Tokenizer tokenizer,
             AutoTokenizer::from_pretrained(options.model.model, options.model.revision));
  if (!options.chat_template.empty()) {
    NIBBLE_TRY(std::string source, read_input(options.chat_template));
    NIBBLE_RETURN_IF_ERROR(at(options.chat_template, tokenizer.set_chat_template(std::move(source))));
  }
  const bool chat = tokenizer.has_chat_template() && !options.raw;
  if (options.system && !chat) {
    return fail(ErrorCode::kInvalidArgument, "--system needs a chat template, and {}",
                options.raw ? "--raw leaves it out" : "this model has none")
        .with_fix("Put the text into the prompt, or give a template with --chat-template FILE.");
  }
  NIBBLE_TRY(auto model, AutoModelForCausalLM::from_pretrained(options.model.model, from, pool));
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  GenerationConfig defaults = model->generation_config();
  if (!chat && !defaults.max_new_tokens && !defaults.max_length) defaults.max_new_tokens = kDefaultNewTokens;
  GenerationConfig generation = defaults;
  NIBBLE_RETURN_IF_ERROR(options.sampling.apply(generation));
  for (const std::string& line : describe_sampling(generation, options.sampling)) log_verbose("{}", line);
  log_verbose("prompt: {}", chat ? "through the chat template" : "as it is");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return LoadedModel{
      std::move(tokenizer), std::move(model), std::move(defaults), std::move(generation), chat, seconds};
}

double generation_rate(const GenerateResult& result) {
  const size_t later = result.tokens.empty() ? 0 : result.tokens.size() - 1;
  return per_second(later, result.generation_seconds);
}

double prompt_rate(const GenerateResult& result) {
  return per_second(result.prompt_tokens, result.prompt_seconds);
}

void log_speed(const GenerateResult& result) {
  log_line(LogLevel::kNormal,
           fmt::format("prompt {} tokens, {:.1f} tok/s; generation {} tokens, {:.1f} tok/s; peak memory {}",
                       result.prompt_tokens, prompt_rate(result), result.tokens.size(),
                       generation_rate(result), human_bytes(peak_memory_bytes())));
  if (result.drafted_tokens == 0) return;
  log_verbose("lookup: {} tokens drafted, {} accepted", result.drafted_tokens, result.accepted_tokens);
}

Expected<GenerateResult> stream_answer(Conversation& conversation, const std::vector<int32_t>& tokens,
                                       bool show) {
  Status written;
  bool ends_line = true;
  const auto show_text = [&](std::string_view text) {
    if (!show || text.empty()) return true;
    written = write_stdout(text);
    ends_line = text.back() == '\n';
    return written.has_value();
  };
  auto result = conversation.answer(tokens, show_text);
  if (written && !ends_line) written = write_stdout("\n");
  if (!written) return Failure(std::move(written).error());
  return result;
}

}  // namespace nibble::cli
