// Any text through good tokenizers, there and back: a differential target. Input: which tokenizer (1 byte),
// the text.

#include <array>
#include <filesystem>
#include <string>

#include "nibble/base/mapped_file.h"
#include "nibble/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokenizer_checks.h"

using namespace nibble;

namespace {

struct Row {
  const char* name;
  bool is_lossless;  // byte level and without normalizer: decoding gives the text back
};

// One of every kind of model and pre-tokenizer.
constexpr std::array kRows = {
    Row{"gpt2", true},       Row{"llama3", true},          Row{"deepseek-v3", true},
    Row{"qwen2", false},     Row{"gemma", false},          Row{"llama2-legacy", false},
    Row{"spm-llama", false}, Row{"bert-wordpiece", false}, Row{"t5-unigram", false},
};

const Tokenizer& tokenizer(size_t row) {
  static std::array<std::optional<Tokenizer>, kRows.size()> loaded;
  if (!loaded[row]) {
    const auto folder = std::filesystem::path(NIBBLE_TEST_DATA) / "tokenizers" / kRows[row].name;
    auto result = AutoTokenizer::from_files({folder.string(), folder, {}, {}});
    NIBBLE_CHECK(result.has_value());
    loaded[row] = std::move(*result);
  }
  return *loaded[row];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t row = data[0] % kRows.size();
  const std::string_view text = fuzz::as_text(data, size).substr(1);
  const std::vector<int32_t> ids = fuzz::check_text(tokenizer(row), text);
  if (!kRows[row].is_lossless) return 0;

  // The text alone: what the post-processor adds is not a part of it.
  const auto encoding = tokenizer(row).encode(text, {.add_special_tokens = false});
  NIBBLE_CHECK(encoding.has_value());
  const std::string decoded = tokenizer(row).decode(encoding->ids);
  const auto again = tokenizer(row).encode(decoded, {.add_special_tokens = false});
  NIBBLE_CHECK(again.has_value());
  NIBBLE_CHECK(tokenizer(row).decode(again->ids) == decoded);
  if (text.find_first_of("<\xff") == text.npos) NIBBLE_CHECK(again->ids == encoding->ids);
  return 0;
}
