// tokenizer.model: the protocol buffer, and the tokenizer that is made of it.

#include "nibble/tokenizer/convert_sentencepiece.h"
#include "nibble/tokenizer/sentencepiece_model.h"
#include "nibble/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokenizer_checks.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto model = parse_sentencepiece_model(fuzz::as_text(data, size));
  if (!fuzz::accepted(model)) return 0;
  for (const char* const name : {"LlamaTokenizer", "T5Tokenizer"}) {
    const TokenizerSettings settings{{{"tokenizer_class", name}}, Json(), Json(), {}};
    const auto converted = convert_sentencepiece(*model, settings);
    if (!fuzz::accepted(converted)) continue;
    const auto tokenizer =
        Tokenizer::from_parsed(converted->tokenizer, converted->tokenizer_config, Json(), {});
    if (fuzz::accepted(tokenizer)) fuzz::check_text(*tokenizer, fuzz::kSampleText);
  }
  return 0;
}
