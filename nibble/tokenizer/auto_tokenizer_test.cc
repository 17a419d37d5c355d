#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/checkpoint/test_folder.h"
#include "nibble/tokenizer/tokenizer_test_support.h"

namespace nibble {
namespace {

using testing::HasSubstr;
using tokenizer_test::added_token;
using tokenizer_test::ascii_tokens;
using tokenizer_test::data;
using tokenizer_test::small_tokenizer;

ModelFiles files_with(std::map<std::string, std::string> texts) {
  ModelFiles files;
  files.name = "model";
  files.gguf = "model.gguf";  // files that exist as texts only
  files.texts = std::move(texts);
  return files;
}

std::string chat_tokenizer() {
  Json json = small_tokenizer(ascii_tokens());
  json["added_tokens"] = Json::array({added_token(95, "<s>"), added_token(96, "</s>")});
  return dump_json(json);
}

const Json kHello = Json::array({{{"role", "user"}, {"content", "hi</s>"}}});

TEST(AutoTokenizer, ReadsAFolder) {
  ModelFiles files;
  files.name = "tiny-llama";
  files.folder = data("models/tiny-llama");
  const auto tokenizer = AutoTokenizer::from_files(files);
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  ASSERT_TRUE(tokenizer->has_chat_template());
  const auto chat = tokenizer->apply_chat_template(kHello, Json(), true);
  ASSERT_TRUE(chat) << to_string(chat.error());
  EXPECT_THAT(chat->text, HasSubstr("<|im_start|>user\nhi</s><|im_end|>\n<|im_start|>assistant\n"));
}

TEST(AutoTokenizer, FilesThatCannotBeReadAreNamedWithTheWayOut) {
  const auto tokenizer =
      AutoTokenizer::from_files(files_with({{"tekken.json", "{}"}, {"config.json", "{}"}}));
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(tokenizer.error().what, HasSubstr("tekken.json alone cannot be read"));
  EXPECT_THAT(tokenizer.error().fix, HasSubstr("save_pretrained"));
}

TEST(AutoTokenizer, ADamagedTokenizerModelIsNamed) {
  const auto tokenizer = AutoTokenizer::from_files(files_with({{"tokenizer.model", "\x0A\x7F"}}));
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kDataLoss);
  EXPECT_THAT(tokenizer.error().where, HasSubstr("tokenizer.model"));
}

TEST(AutoTokenizer, ClassesThatCutInAnotherWayAreRefused) {
  const auto tokenizer = AutoTokenizer::from_files(
      files_with({{"vocab.json", R"({"a": 0})"},
                  {"merges.txt", ""},
                  {"tokenizer_config.json", R"({"tokenizer_class": "CLIPTokenizer"})"}}));
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(tokenizer.error().what, HasSubstr("CLIPTokenizer"));
}

TEST(AutoTokenizer, NoTokenizerAtAllIsNotFound) {
  const auto tokenizer = AutoTokenizer::from_files(files_with({}));
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kNotFound);
}

TEST(AutoTokenizer, FaultsNameTheFile) {
  const auto tokenizer = AutoTokenizer::from_files(
      files_with({{"tokenizer.json", chat_tokenizer()}, {"tokenizer_config.json", "{"}}));
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().where, HasSubstr("tokenizer_config.json"));
}

TEST(ChatTemplates, KnowTheSpecialTokensAndMarkWhatUsersWrote) {
  const auto tokenizer = AutoTokenizer::from_files(
      files_with({{"tokenizer.json", chat_tokenizer()},
                  {"tokenizer_config.json", R"({"bos_token": {"content": "<s>"}, "add_bos_token": true})"},
                  {"special_tokens_map.json", R"({"eos_token": "</s>", "bos_token": "other"})"},
                  {"chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}}));
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  const auto chat = tokenizer->apply_chat_template(kHello, Json(), false);
  ASSERT_TRUE(chat) << to_string(chat.error());
  EXPECT_EQ(chat->text, "<s>hi</s></s>");
  EXPECT_THAT(chat->literal, testing::ElementsAre(TextRange{3, 9}));
  const auto encoding = tokenizer->encode(chat->text, {.literal = chat->literal});
  ASSERT_TRUE(encoding);
  EXPECT_EQ(encoding->ids.front(), 95);
  EXPECT_EQ(std::count(encoding->ids.begin(), encoding->ids.end(), 96), 1);  // the template's own
}

TEST(ChatTemplates, ToolUseIsTakenWhenToolsAreGiven) {
  const auto tokenizer = AutoTokenizer::from_files(files_with(
      {{"tokenizer.json", chat_tokenizer()},
       {"tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]})"}}));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->apply_chat_template(kHello, Json(), false)->text, "plain");
  EXPECT_EQ(tokenizer->apply_chat_template(kHello, Json::array(), false)->text, "tools");
}

TEST(ChatTemplates, FilesOfTheirOwnAreNamedTemplates) {
  const TestFolder folder;
  folder.add("tokenizer.json", chat_tokenizer());
  folder.add("tokenizer_config.json", R"({"chat_template": "of the configuration"})");
  folder.add("chat_template.jinja", "plain");
  folder.add("additional_chat_templates/tool_use.jinja", "tools");
  folder.add("additional_chat_templates/notes.txt", "{% broken");
  const auto tokenizer = AutoTokenizer::from_pretrained(folder.path().string());
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  EXPECT_EQ(tokenizer->apply_chat_template(kHello, Json(), false)->text, "plain");
  EXPECT_EQ(tokenizer->apply_chat_template(kHello, Json::array(), false)->text, "tools");
}

TEST(ChatTemplates, SeveralWithoutADefaultAreNamed) {
  const auto tokenizer = AutoTokenizer::from_files(
      files_with({{"tokenizer.json", chat_tokenizer()},
                  {"tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})"}}));
  ASSERT_TRUE(tokenizer);
  const auto chat = tokenizer->apply_chat_template(kHello, Json(), false);
  ASSERT_FALSE(chat);
  EXPECT_THAT(chat.error().what, HasSubstr("rag"));
}

TEST(ChatTemplates, ABrokenOneDoesNotStopTheTokenizer) {
  auto tokenizer = AutoTokenizer::from_files(
      files_with({{"tokenizer.json", chat_tokenizer()}, {"chat_template.jinja", "{% if %}"}}));
  ASSERT_TRUE(tokenizer) << to_string(tokenizer.error());
  EXPECT_TRUE(tokenizer->encode("hi"));
  EXPECT_FALSE(tokenizer->apply_chat_template(kHello, Json(), false));
  ASSERT_TRUE(tokenizer->set_chat_template("{{ messages[0].content }}"));
  EXPECT_EQ(tokenizer->apply_chat_template(kHello, Json(), false)->text, "hi</s>");
  EXPECT_FALSE(tokenizer->set_chat_template("{% for %}"));
}

TEST(ChatTemplates, WithoutOneTheErrorSaysHowToGiveOne) {
  const auto tokenizer = AutoTokenizer::from_files(files_with({{"tokenizer.json", chat_tokenizer()}}));
  ASSERT_TRUE(tokenizer);
  EXPECT_FALSE(tokenizer->has_chat_template());
  EXPECT_THAT(tokenizer->apply_chat_template(kHello, Json(), false).error().fix,
              HasSubstr("--chat-template"));
}

}  // namespace
}  // namespace nibble
