// Loads a GPTQ checkpoint and continues a text:
//   example_gptq MODEL [PROMPT]
// MODEL is a folder, or a name in the Hugging Face cache ("org/name"). How the weights are stored is
// found in the files: nothing has to be said about it.

#include <cstdio>
#include <string>

#include "nibble/generation/generate.h"
#include "nibble/models/auto_model.h"
#include "nibble/tokenizer/tokenizer.h"

namespace {

using namespace nibble;

Expected<std::string> continue_text(const std::string& name, const std::string& prompt) {
  ThreadPool pool;
  Arena arena;
  ExecutionContext context{pool, arena};

  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_pretrained(name));
  NIBBLE_TRY(const auto model, AutoModelForCausalLM::from_pretrained(name, {}, pool));

  NIBBLE_TRY(const Encoding input, tokenizer.encode(prompt));
  GenerationConfig settings = model->generation_config();
  settings.max_new_tokens = 40;
  const auto cache = model->make_cache(model->config().max_position_embeddings);
  NIBBLE_TRY(const GenerateResult result,
             generate(*model, tokenizer, input.ids, settings, {}, *cache, context));
  return prompt + result.text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: example_gptq MODEL [PROMPT]\n");
    return 2;
  }
  const auto text = continue_text(argv[1], argc > 2 ? argv[2] : "The history of the city");
  if (!text) {
    std::fprintf(stderr, "error: %s\n", to_string(text.error()).c_str());
    return exit_status(text.error().code);
  }
  std::printf("%s\n", text->c_str());
  return 0;
}
