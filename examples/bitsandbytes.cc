// Quantizes a float checkpoint to 4 bits (NF4) while it is loaded, continues a text, and saves the
// quantized model:
//   example_bitsandbytes MODEL OUT_FOLDER [PROMPT]
// OUT_FOLDER is an ordinary bitsandbytes checkpoint: Transformers loads it, and so does Nibble. A
// MODEL that is stored in bitsandbytes' form already is loaded as it is.

#include <cstdio>
#include <string>

#include "nibble/generation/generate.h"
#include "nibble/models/auto_model.h"
#include "nibble/tokenizer/tokenizer.h"

namespace {

using namespace nibble;

constexpr size_t kMaxShardSize = 5'000'000'000;  // bytes

Status quantize_and_save(const std::string& name, const std::string& folder, const std::string& prompt) {
  ThreadPool pool;
  Arena arena;
  ExecutionContext context{pool, arena};

  BitsAndBytesConfig four_bits;
  four_bits.load_in_4bit = true;
  four_bits.bnb_4bit_quant_type = "nf4";
  four_bits.bnb_4bit_use_double_quant = true;
  FromPretrainedOptions options;
  options.quantization_config = four_bits;

  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_pretrained(name));
  NIBBLE_TRY(const auto model, AutoModelForCausalLM::from_pretrained(name, options, pool));

  NIBBLE_TRY(const Encoding input, tokenizer.encode(prompt));
  GenerationConfig settings = model->generation_config();
  settings.max_new_tokens = 40;
  const auto cache = model->make_cache(model->config().max_position_embeddings);
  NIBBLE_TRY(const GenerateResult result,
             generate(*model, tokenizer, input.ids, settings, {}, *cache, context));
  std::printf("%s%s\n", prompt.c_str(), result.text.c_str());
  std::printf("[%zu bytes of weights, %s]\n", model->weight_bytes().total(), model->kernels().c_str());
  return model->save_pretrained(folder, kMaxShardSize);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: example_bitsandbytes MODEL OUT_FOLDER [PROMPT]\n");
    return 2;
  }
  const Status done = quantize_and_save(argv[1], argv[2], argc > 3 ? argv[3] : "The history of the city");
  if (!done) {
    std::fprintf(stderr, "error: %s\n", to_string(done.error()).c_str());
    return exit_status(done.error().code);
  }
  return 0;
}
