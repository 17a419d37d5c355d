// `nibble chat`: turn after turn with a model.

#include <memory>

#include "nibble/cli/chat_loop.h"
#include "nibble/cli/command.h"
#include "nibble/cli/loaded_model.h"
#include "nibble/cli/numa_placement.h"
#include "nibble/cli/pull_model.h"

namespace nibble::cli {
namespace {

Status chat(const AnswerOptions& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_RETURN_IF_ERROR(check_answer_options(options));
  const size_t threads = options.common.num_threads();
  ThreadPool pool(threads, numa_placement(options.model, threads));
  NIBBLE_TRY(LoadedModel loaded, load_model(options, pool));
  if (!loaded.chat) {
    return fail(ErrorCode::kInvalidArgument, "this model has no chat template, so it does not know turns")
        .at(options.model.model)
        .with_fix("Give one with --chat-template FILE, or continue text with nibble run.");
  }
  return run_chat(options, loaded, pool);
}

Action define_chat(CLI::App& app) {
  const auto options = std::make_shared<AnswerOptions>();
  add_model_option(app, options->model);
  add_answer_options(app, *options);
  add_common_options(app, options->common, "Print each answer as one JSON object on a line");
  return [options] { return chat(*options); };
}

}  // namespace

const Command kChatCommand = {
    .name = "chat",
    .summary = "Chat with a model, turn after turn",
    .examples =
        "  nibble chat ./model --system \"Answer in one sentence.\"\n"
        "  nibble chat org/name --quantize nf4 --temperature 0.7",
    .define = define_chat,
};

}  // namespace nibble::cli
