#include "nibble/evaluation/text_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fixtures.h"

namespace nibble {
namespace {

using testing::HasSubstr;

class TextWindowsTest : public testing::Test {
 protected:
  TextWindowsTest()
      : files_(
            find_model(test::model_folder("tiny-llama", {.with_tokenizer = true}).value().string()).value()),
        config_(PretrainedConfig::from_json(parse_json(files_.read_required("config.json").value()).value())
                    .value()) {}

  Expected<TextWindows> cut(std::string_view text, const TextProtocol& protocol) {
    return cut_text(text, "text", protocol, files_, config_);
  }

  ModelFiles files_;
  PretrainedConfig config_;
};

TEST_F(TextWindowsTest, WithoutOverlapTheFirstTokenOfEachWindowIsNotScored) {
  const auto text = cut(default_evaluation_text(), {.window = 512, .max_tokens = 2000, .bos = false});
  ASSERT_TRUE(text) << to_string(text.error());
  EXPECT_EQ(text->windows.size(), 3u);  // the rest is shorter than a window
  EXPECT_EQ(text->positions, 3 * 511u);
  EXPECT_EQ(text->tokens, 2000u);
  for (const TextWindow& window : text->windows) EXPECT_EQ(window.num_scored(), 511u);
}

TEST_F(TextWindowsTest, WithAStrideEveryTokenIsScoredOnce) {
  const auto whole = cut(default_evaluation_text(), {.window = 300, .max_tokens = 300, .bos = false});
  const auto text =
      cut(default_evaluation_text(), {.window = 128, .stride = 43, .max_tokens = 300, .bos = false});
  ASSERT_TRUE(text) << to_string(text.error());
  std::vector<int32_t> scored;
  for (const TextWindow& window : text->windows) {
    scored.insert(scored.end(), window.tokens.begin() + static_cast<ptrdiff_t>(window.first_scored),
                  window.tokens.end());
  }
  const std::vector<int32_t>& tokens = whole->windows[0].tokens;
  ASSERT_EQ(text->windows.size(), 5u);  // 0..128, 43..171, ..., 172..300
  EXPECT_EQ(scored, std::vector<int32_t>(tokens.begin() + 1, tokens.end()));
  EXPECT_EQ(text->positions, scored.size());
}

TEST_F(TextWindowsTest, BytesAndWordsAreThoseOfTheScoredTokens) {
  const std::string_view text = "Alpha beta  gamma\xC3\xA9 delta\n\nepsilon";
  const auto whole = cut(text, {.bos = true});
  ASSERT_TRUE(whole) << to_string(whole.error());
  EXPECT_EQ(whole->bytes, text.size());
  EXPECT_EQ(whole->words, 5u);
  EXPECT_EQ(whole->positions, whole->tokens);  // the BOS is before the first
  const auto without = cut(text, {.bos = false});
  ASSERT_TRUE(without);
  EXPECT_LT(without->bytes, text.size());
  EXPECT_EQ(without->positions + 1, without->tokens);
}

TEST_F(TextWindowsTest, WrongRequestsSayWhatIsWrong) {
  EXPECT_THAT(to_string(cut("", {}).error()), HasSubstr("0 tokens, but at least 2"));
  EXPECT_THAT(to_string(cut("some text", {.window = 8, .stride = 9, .bos = false}).error()),
              HasSubstr("a stride of 9"));
  EXPECT_THAT(to_string(cut("some text", {.window = 1, .bos = false}).error()), HasSubstr("scores nothing"));
  config_.vocab_size = 5;
  EXPECT_THAT(to_string(cut("some text", {}).error()), HasSubstr("outside the model's vocabulary of 5"));
}

}  // namespace
}  // namespace nibble
