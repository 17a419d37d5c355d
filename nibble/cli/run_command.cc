// `nibble run`: a prompt, or a chat, answered by a model.

#include <chrono>
#include <memory>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/conversation.h"
#include "nibble/cli/input.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/cli/sampling_options.h"

namespace nibble::cli {
namespace {

struct Options {
  CommonOptions common;
  ModelOption model;
  LoadOptions load;
  SamplingOptions sampling;
  std::optional<std::string> prompt;
  std::string file;
  std::optional<std::string> system;
  std::string chat_template;
  std::optional<int64_t> prefill_chunk;
  std::optional<int64_t> lookup;
  bool raw = false;
};

// A base model goes on for ever; that is what few want of a prompt without a limit.
constexpr size_t kDefaultNewTokens = 256;

constexpr int64_t kMostLookupTokens = 64;

// What stands ready to answer.
struct Loaded {
  Tokenizer tokenizer;
  std::unique_ptr<CausalLM> model;
  GenerationConfig generation;
  bool chat = false;  // prompts go through the chat template
  double load_seconds = 0;
};

double per_second(size_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

// The first token comes out of reading the prompt: generation is the time for those after it.
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

// The prompt; nothing for an interactive chat.
Expected<std::optional<std::string>> find_prompt(const Options& options) {
  if (options.prompt && !options.file.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the prompt is given twice: as text and with -f {}",
                options.file)
        .with_fix("Use one of them.");
  }
  if (options.prompt) return options.prompt;
  if (options.file.empty() && stdin_is_terminal()) {
    if (!options.common.json) return std::nullopt;
    return fail(ErrorCode::kInvalidArgument, "--json answers one prompt, and there is none")
        .with_fix("Give it with -p TEXT, -f FILE, or on stdin.");
  }
  NIBBLE_TRY(std::string text, read_prompt(options.file));
  if (text.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the prompt is empty")
        .at(options.file.empty() ? "stdin" : options.file)
        .with_fix("Give it with -p TEXT, -f FILE, or on stdin.");
  }
  return text;
}

Expected<Loaded> load(const Options& options, const FromPretrainedOptions& from, ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
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
  GenerationConfig generation = model->generation_config();
  NIBBLE_RETURN_IF_ERROR(options.sampling.apply(generation));
  const bool limited = generation.max_new_tokens || generation.max_length || options.sampling.max_new_tokens;
  if (!limited && !chat) generation.max_new_tokens = kDefaultNewTokens;
  for (const std::string& line : describe_sampling(generation, options.sampling)) log_verbose("{}", line);
  log_verbose("prompt: {}", chat ? "through the chat template" : "as it is");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return Loaded{std::move(tokenizer), std::move(model), std::move(generation), chat, seconds};
}

Json first_messages(const Options& options) {
  Json messages = Json::array();
  if (options.system) messages.push_back({{"role", "system"}, {"content", *options.system}});
  return messages;
}

// Ids of the whole sequence up to where the answer to `text` begins. In a chat `messages` grows.
Expected<std::vector<int32_t>> encode_turn(const Loaded& loaded, const std::string& text, Json& messages) {
  if (loaded.chat) {
    messages.push_back({{"role", "user"}, {"content", text}});
    return loaded.tokenizer.encode_chat(messages);
  }
  NIBBLE_TRY(Encoding encoding, loaded.tokenizer.encode(text));
  return std::move(encoding.ids);
}

// Answers, showing the text as it comes (unless it is wanted as JSON).
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

Status answer_one(const Options& options, const Loaded& loaded, Conversation& conversation,
                  const std::string& prompt) {
  Json messages = first_messages(options);
  NIBBLE_TRY(const std::vector<int32_t> tokens, encode_turn(loaded, prompt, messages));
  NIBBLE_TRY(const GenerateResult result, stream_answer(conversation, tokens, !options.common.json));
  log_speed(result);
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  if (!options.common.json) return {};
  return write_json({{"text", result.text},
                     {"finish_reason", finish_reason_name(result.finish_reason)},
                     {"prompt_tokens", result.prompt_tokens},
                     {"completion_tokens", result.tokens.size()},
                     {"prompt_tokens_per_second", prompt_rate(result)},
                     {"generation_tokens_per_second", generation_rate(result)},
                     {"drafted_tokens", result.drafted_tokens},
                     {"accepted_tokens", result.accepted_tokens},
                     {"load_seconds", loaded.load_seconds},
                     {"peak_memory_bytes", peak_memory_bytes()},
                     {"weight_bytes", loaded.model->weight_bytes().total()},
                     {"compute", loaded.model->compute() == ComputeMode::kF32 ? "f32" : "auto"},
                     {"kernels", loaded.model->kernels()},
                     {"quantization", quantization_name(loaded.model->quantization_config())},
                     {"warnings", warnings()}});
}

// Line by line until /bye or the end of input. Ctrl-C stops an answer; at the prompt it ends the chat.
Status chat(const Options& options, const Loaded& loaded, Conversation& conversation) {
  log_line(LogLevel::kNormal, loaded.chat
                                  ? "Type a message. /clear forgets the conversation, /bye ends it."
                                  : "No chat template: each line is continued on its own. /bye ends.");
  NIBBLE_TRY(LineReader reader, LineReader::open("-"));
  Json messages = first_messages(options);
  std::string line;
  while (true) {
    std::fputs(">>> ", stderr);
    NIBBLE_TRY(const bool more, reader.next(line));
    if (!more || line == "/bye" || line == "/exit") return {};
    if (line.empty()) continue;
    if (line == "/clear") {
      messages = first_messages(options);
      continue;
    }
    NIBBLE_TRY(const std::vector<int32_t> tokens, encode_turn(loaded, line, messages));
    auto result = stream_answer(conversation, tokens, /*show=*/true);
    if (!result) {
      if (result.error().code != ErrorCode::kOutOfMemory) return Failure(std::move(result).error());
      // The context is full: the user may still read, and start again.
      log_line(LogLevel::kQuiet,
               fmt::format("error: {}\n  /clear starts a new conversation.", to_string(result.error())));
      if (loaded.chat) messages.erase(messages.size() - 1);
      continue;
    }
    if (cancel_requested()) reset_cancel();
    if (loaded.chat) messages.push_back({{"role", "assistant"}, {"content", result->text}});
    if (log_level() >= LogLevel::kVerbose) log_speed(*result);
  }
}

Status run(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const FromPretrainedOptions from, options.load.to_from_pretrained(options.model.revision));
  GenerationConfig trial;  // so that a bad setting is found before the model is read
  NIBBLE_RETURN_IF_ERROR(options.sampling.apply(trial));
  NIBBLE_TRY(const std::optional<std::string> prompt, find_prompt(options));

  ThreadPool pool(options.common.num_threads());
  NIBBLE_TRY(const Loaded loaded, load(options, from, pool));
  ConversationOptions settings;
  if (options.load.ctx_size) settings.max_context = static_cast<size_t>(*options.load.ctx_size);
  if (options.prefill_chunk) settings.prefill_chunk = static_cast<size_t>(*options.prefill_chunk);
  if (options.lookup) settings.lookup_tokens = static_cast<size_t>(*options.lookup);
  settings.ignore_eos = options.sampling.ignore_eos;
  Conversation conversation(*loaded.model, loaded.tokenizer, loaded.generation, settings, pool);
  return prompt ? answer_one(options, loaded, conversation, *prompt) : chat(options, loaded, conversation);
}

Action define(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  add_model_option(app, options->model);
  app.add_option("PROMPT,-p,--prompt", options->prompt,
                 "The prompt (default: stdin; on a terminal, an interactive chat)")
      ->type_name("TEXT");
  app.add_option("-f,--file", options->file, "A file with the prompt; - for stdin")->type_name("FILE");
  app.add_option("--system", options->system, "The system message")->type_name("TEXT");
  app.add_option("--chat-template", options->chat_template, "Use this template, not the model's")
      ->type_name("FILE");
  app.add_flag("--raw", options->raw, "Continue the prompt as it is, without the chat template");
  add_sampling_options(app, options->sampling);
  add_load_options(app, options->load);
  add_integer(app, "--lookup", options->lookup,
              "Guess up to so many tokens from the text so far and check them in one pass (default: 0, off)",
              0, kMostLookupTokens);
  add_integer(app, "--prefill-chunk", options->prefill_chunk, "Prompt tokens per forward pass (default: 512)",
              1, int64_t{1} << 20)
      ->group("Loading");
  add_common_options(app, options->common, "Print answer, speed and memory as one JSON object");
  return [options] { return run(*options); };
}

}  // namespace

const Command kRunCommand = {
    .name = "run",
    .summary = "Answer a prompt, or chat",
    .examples =
        "  nibble run ./model -p \"What is a nibble?\" --temperature 0.7 -n 200\n"
        "  nibble run org/name --quantize nf4 < question.txt",
    .define = define,
};

}  // namespace nibble::cli
