#include "nibble/tokenizer/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/tokenizer/tokenizer_test_support.h"

namespace nibble {
namespace {

using testing::HasSubstr;

std::string field(int number, std::string_view bytes) {
  return std::string({static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())}) +
         std::string(bytes);
}

std::string piece(std::string_view text, std::string_view rest = "") {
  return field(1, field(1, text) + std::string(rest));
}

std::string refusal(std::string_view bytes) {
  const auto model = parse_sentencepiece_model(bytes);
  return model ? "no error" : to_string(model.error());
}

TEST(SentencePieceModel, ReadsAFileOfTheOriginal) {
  const auto bytes = read_text_file(tokenizer_test::data("tokenizers/spm-unigram-bytes/tokenizer.model"));
  ASSERT_TRUE(bytes);
  const auto model = parse_sentencepiece_model(*bytes);
  ASSERT_TRUE(model) << to_string(model.error());
  EXPECT_EQ(model->pieces.size(), 1500u);
  EXPECT_EQ(model->model_type, SentencePieceModel::ModelType::kUnigram);
  EXPECT_TRUE(model->byte_fallback);
  EXPECT_FALSE(model->add_dummy_prefix);
  EXPECT_FALSE(model->remove_extra_whitespaces);
  EXPECT_TRUE(model->escape_whitespaces);
  EXPECT_EQ(model->pieces[0].type, SentencePieceModel::PieceType::kUnknown);
  EXPECT_EQ(model->pieces[3].text, "<think>");
  EXPECT_EQ(model->pieces[3].type, SentencePieceModel::PieceType::kUserDefined);
}

TEST(SentencePieceModel, WhatIsNotThereHasTheDefaultsOfTheFormat) {
  const auto model = parse_sentencepiece_model(piece("<unk>") + piece("a") + piece("b"));
  ASSERT_TRUE(model) << to_string(model.error());
  EXPECT_EQ(model->pieces[1].type, SentencePieceModel::PieceType::kNormal);
  EXPECT_TRUE(model->add_dummy_prefix);
  EXPECT_EQ(model->bos_id, 1);
  EXPECT_EQ(model->pad_id, -1);
}

TEST(SentencePieceModel, FaultsAreNamed) {
  EXPECT_THAT(refusal(""), HasSubstr("it has no pieces"));
  EXPECT_THAT(refusal("version https://git-lfs.github.com/spec/v1\n"),
              HasSubstr("not a SentencePiece model"));
  EXPECT_THAT(refusal(piece("a") + piece("a")), HasSubstr("the piece \"a\" twice"));
  EXPECT_THAT(refusal(piece("\xFF")), HasSubstr("a piece that is no text"));
  EXPECT_THAT(refusal(piece("a", std::string("\x15\0\0\xC0\x7F", 5))), HasSubstr("score is not finite"));
  EXPECT_THAT(refusal(piece("a", "\x18\x09")), HasSubstr("a piece of type 9"));
  EXPECT_THAT(refusal(piece("a")), HasSubstr("a special piece that is not there"));  // eos_id is 2
  EXPECT_THAT(refusal("\x0A\x7F"), HasSubstr("it ends inside a field"));
  EXPECT_THAT(refusal("\x0B"), HasSubstr("a field of an unknown kind"));
}

// Cut anywhere, or with a bit turned: an error or a model, never more.
TEST(SentencePieceModel, DamagedFilesAreErrors) {
  const auto bytes = read_text_file(tokenizer_test::data("tokenizers/spm-llama/tokenizer.model"));
  ASSERT_TRUE(bytes);
  for (size_t size = 0; size < bytes->size(); size += 7) {
    EXPECT_THAT(refusal(std::string_view(*bytes).substr(0, size)),
                testing::AnyOf(HasSubstr("not a"), "no error"));
  }
  for (size_t i = 0; i < bytes->size(); i += 5) {
    std::string damaged = *bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
    EXPECT_THAT(refusal(damaged), testing::AnyOf(HasSubstr("not a"), "no error"));
  }
}

// And what is made of a file that still reads: a tokenizer that encodes, or an error. In the second model
// most of the bytes are the table of the normalizer.
TEST(SentencePieceModel, DamagedFilesMakeNoWildTokenizers) {
  for (const auto& [name, step] : {std::pair("spm-llama", 211), std::pair("spm-unigram", 5003)}) {
    const auto bytes = read_text_file(tokenizer_test::data("tokenizers") / name / "tokenizer.model");
    ASSERT_TRUE(bytes);
    for (size_t i = 0; i < bytes->size(); i += static_cast<size_t>(step)) {
      ModelFiles files;
      files.name = name;
      std::string damaged = *bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
      files.texts["tokenizer.model"] = std::move(damaged);
      const auto tokenizer = AutoTokenizer::from_files(files);
      if (!tokenizer) {
        EXPECT_FALSE(tokenizer.error().what.empty());
        continue;
      }
      const auto encoding =
          tokenizer->encode("Ｈello ½ wörld\n  \xF0\x9F\x99\x82 e\u0301", {.with_offsets = true});
      if (encoding) tokenizer->decode(encoding->ids);
    }
  }
}

}  // namespace
}  // namespace nibble
