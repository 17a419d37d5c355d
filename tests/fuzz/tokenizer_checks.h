#ifndef NIBBLE_TESTS_FUZZ_TOKENIZER_CHECKS_H_
#define NIBBLE_TESTS_FUZZ_TOKENIZER_CHECKS_H_

// What holds for every tokenizer and every text.

#include <string_view>
#include <vector>

#include "nibble/tokenizer/tokenizer.h"

namespace nibble::fuzz {

// A little of everything: spaces, digits, accents, Chinese, an emoji, special tokens, bytes that are not
// UTF-8.
inline constexpr std::string_view kSampleText =
    "  Hello, world's 1234 na\u00efve \u4f60\u597d \U0001F600\n\n<s></s><|endoftext|>[CLS]\xff\xc3 ";

// Ids are in range, offsets in order and inside the text, decoding is the same in one piece and as a stream.
// The ids, or none where encoding is an error.
std::vector<int32_t> check_text(const Tokenizer& tokenizer, std::string_view text);

}  // namespace nibble::fuzz

#endif  // NIBBLE_TESTS_FUZZ_TOKENIZER_CHECKS_H_
