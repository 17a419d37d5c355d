// tokenizer.json. Input: the file, a zero byte, a text to encode (or nothing).

#include "nibble/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokenizer_checks.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [json, text] = fuzz::split_at_zero(fuzz::as_text(data, size));
  const auto tokenizer = Tokenizer::from_json(json, Json(), Json(), {});
  if (!fuzz::accepted(tokenizer)) return 0;
  fuzz::check_text(*tokenizer, fuzz::kSampleText);
  if (!text.empty()) fuzz::check_text(*tokenizer, text);
  return 0;
}
