// `nibble run`: a prompt, or a chat, answered by a model.

#include <memory>

#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/chat_loop.h"
#include "nibble/cli/command.h"
#include "nibble/cli/input.h"
#include "nibble/cli/loaded_model.h"
#include "nibble/cli/numa_placement.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"

namespace nibble::cli {
namespace {

struct RunArguments : AnswerOptions {
  std::optional<std::string> prompt;
  std::string file;
};

// The prompt; nothing for an interactive chat.
Expected<std::optional<std::string>> find_prompt(const RunArguments& options) {
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

Expected<std::vector<int32_t>> encode_prompt(const RunArguments& options, const LoadedModel& loaded,
                                             const std::string& prompt) {
  if (!loaded.chat) {
    NIBBLE_TRY(Encoding encoding, loaded.tokenizer.encode(prompt));
    return std::move(encoding.ids);
  }
  Json messages = Json::array();
  if (options.system) messages.push_back({{"role", "system"}, {"content", *options.system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  return loaded.tokenizer.encode_chat(messages);
}

Status answer_one(const RunArguments& options, const LoadedModel& loaded, Conversation& conversation,
                  const std::string& prompt) {
  NIBBLE_TRY(const std::vector<int32_t> tokens, encode_prompt(options, loaded, prompt));
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

Status run_prompts(const RunArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_RETURN_IF_ERROR(check_answer_options(options));
  NIBBLE_TRY(const std::optional<std::string> prompt, find_prompt(options));

  const size_t threads = options.common.num_threads();
  ThreadPool pool(threads, numa_placement(options.model, threads));
  NIBBLE_TRY(LoadedModel loaded, load_model(options, pool));
  if (!prompt) return run_chat(options, loaded, pool);
  Conversation conversation(*loaded.model, loaded.tokenizer, loaded.generation, options.conversation(), pool);
  return answer_one(options, loaded, conversation, *prompt);
}

Action define_run(CLI::App& app) {
  const auto options = std::make_shared<RunArguments>();
  add_model_option(app, options->model);
  app.add_option("PROMPT,-p,--prompt", options->prompt,
                 "The prompt (default: stdin; on a terminal, an interactive chat)")
      ->type_name("TEXT");
  app.add_option("-f,--file", options->file, "A file with the prompt; - for stdin")->type_name("FILE");
  app.add_flag("--raw", options->raw, "Continue the prompt as it is, without the chat template");
  add_answer_options(app, *options);
  add_common_options(app, options->common, "Print answer, speed and memory as one JSON object");
  return [options] { return run_prompts(*options); };
}

}  // namespace

const Command kRunCommand = {
    .name = "run",
    .summary = "Answer a prompt, or chat",
    .examples =
        "  nibble run ./model -p \"What is a nibble?\" --temperature 0.7 -n 200\n"
        "  nibble run org/name --quantize nf4 < question.txt",
    .define = define_run,
};

}  // namespace nibble::cli
