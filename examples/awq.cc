// Chats with an AWQ checkpoint, word by word as they come:
//   example_awq MODEL [QUESTION]
// The model's own chat template turns the question into a prompt. Ctrl-C is not needed to stop: the
// callback could return false.

#include <cstdio>
#include <string>
#include <string_view>

#include "nibble/generation/generate.h"
#include "nibble/models/auto_model.h"
#include "nibble/tokenizer/tokenizer.h"

namespace {

using namespace nibble;

Status chat(const std::string& name, const std::string& question) {
  ThreadPool pool;
  Arena arena;
  ExecutionContext context{pool, arena};

  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_pretrained(name));
  NIBBLE_TRY(const auto model, AutoModelForCausalLM::from_pretrained(name, {}, pool));

  const Json messages = Json::array({{{"role", "user"}, {"content", question}}});
  NIBBLE_TRY(const RenderedChat prompt,
             tokenizer.apply_chat_template(messages, /*tools=*/nullptr, /*add_generation_prompt=*/true));
  // What the user wrote stays text, even if it spells a special token.
  NIBBLE_TRY(const Encoding input,
             tokenizer.encode(prompt.text, {.add_special_tokens = false, .literal = prompt.literal}));

  GenerationConfig settings = model->generation_config();
  settings.max_new_tokens = 40;
  settings.do_sample = true;
  settings.temperature = 0.7;
  settings.seed = 1;
  GenerateOptions options;
  options.on_token = [](int32_t, std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    return true;
  };
  const auto cache = model->make_cache(model->config().max_position_embeddings);
  NIBBLE_TRY(const GenerateResult result,
             generate(*model, tokenizer, input.ids, settings, options, *cache, context));
  std::printf("\n[%zu tokens, %s]\n", result.tokens.size(),
              std::string(finish_reason_name(result.finish_reason)).c_str());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: example_awq MODEL [QUESTION]\n");
    return 2;
  }
  const Status done = chat(argv[1], argc > 2 ? argv[2] : "What is a small number?");
  if (!done) {
    std::fprintf(stderr, "error: %s\n", to_string(done.error()).c_str());
    return exit_status(done.error().code);
  }
  return 0;
}
