#include "nibble/hub/file_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<RemoteFile> files_of(const std::vector<std::string>& paths) {
  std::vector<RemoteFile> files;
  for (const std::string& path : paths) files.push_back({path, 1, {}});
  return files;
}

std::vector<std::string> paths_of(const Expected<FileChoice>& choice) {
  std::vector<std::string> paths;
  if (!choice) return {to_string(choice.error())};
  for (const RemoteFile& file : choice->files) paths.push_back(file.path);
  return paths;
}

TEST(ChooseFiles, TakesWhatAModelNeeds) {
  const auto choice = choose_files(
      files_of({".gitattributes", "README.md", "additional_chat_templates/rag.jinja", "chat_template.jinja",
                "config.json", "figure.png", "merges.txt", "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors", "model.safetensors.index.json", "onnx/config.json",
                "original/tokenizer.model", "tokenizer.json", "tokenizer.model", "vocab.txt"}),
      {}, {});
  EXPECT_THAT(
      paths_of(choice),
      ElementsAre("additional_chat_templates/rag.jinja", "chat_template.jinja", "config.json", "merges.txt",
                  "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                  "model.safetensors.index.json", "tokenizer.json", "tokenizer.model", "vocab.txt"));
  EXPECT_THAT(choice->notes, IsEmpty());
}

TEST(ChooseFiles, LeavesTheSameWeightsInOtherFormsOutAndSaysSo) {
  const auto choice =
      choose_files(files_of({"config.json", "consolidated.safetensors", "model-Q4_0.gguf",
                             "model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"}),
                   {}, {});
  EXPECT_THAT(paths_of(choice), ElementsAre("config.json", "model.safetensors"));
  EXPECT_THAT(choice->notes, ElementsAre(HasSubstr("model-Q4_0.gguf"), HasSubstr("can run code"),
                                         HasSubstr("consolidated.safetensors")));
}

TEST(ChooseFiles, TakesWeightsUnderAnotherNameIfTheyAreAllThereIs) {
  EXPECT_THAT(paths_of(choose_files(files_of({"config.json", "consolidated.safetensors"}), {}, {})),
              ElementsAre("config.json", "consolidated.safetensors"));
  EXPECT_THAT(paths_of(choose_files(files_of({"README.md", "model-Q4_0.gguf"}), {}, {})),
              ElementsAre("model-Q4_0.gguf"));
}

TEST(ChooseFiles, AsksWhichOfSeveralGgufFiles) {
  const auto files = files_of({"config.json", "m-Q4_0.gguf", "m-Q8_0.gguf"});
  const auto choice = choose_files(files, {}, {});
  ASSERT_FALSE(choice);
  EXPECT_EQ(choice.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(choice.error().what, HasSubstr("2 GGUF files to choose from: m-Q4_0.gguf, m-Q8_0.gguf"));
  EXPECT_THAT(choice.error().fix, HasSubstr("MODEL:Q4_0"));
  EXPECT_THAT(paths_of(choose_files(files, {}, {"*Q4*"})), ElementsAre("config.json", "m-Q8_0.gguf"));
}

TEST(ChooseFiles, AWordOfItsNameNamesAGgufFile) {
  const auto files = files_of({"config.json", "m-Q4_0-00001-of-00002.gguf", "m-Q4_0-00002-of-00002.gguf",
                               "m-Q8_0.gguf", "mmproj-m-Q8_0.gguf", "model.safetensors", "sub/m-Q2_K.gguf"});
  EXPECT_THAT(paths_of(choose_files(files, {}, {}, "q8_0")), ElementsAre("m-Q8_0.gguf"));
  EXPECT_THAT(paths_of(choose_files(files, {}, {}, "Q4_0")),
              ElementsAre("m-Q4_0-00001-of-00002.gguf", "m-Q4_0-00002-of-00002.gguf"));
  EXPECT_THAT(paths_of(choose_files(files, {"*.json"}, {}, "Q8_0")),
              ElementsAre("config.json", "m-Q8_0.gguf"));
  EXPECT_THAT(paths_of(choose_files(files, {}, {"*8*"}, "Q8_0")),
              ElementsAre(HasSubstr("no GGUF file has \"Q8_0\" in its name; there are m-Q4_0-00001")));
  EXPECT_THAT(paths_of(choose_files(files, {}, {}, "Q2_K")), ElementsAre("sub/m-Q2_K.gguf"));
  EXPECT_EQ(choose_files(files, {}, {}, "Q3_K").error().code, ErrorCode::kNotFound);
}

TEST(ChooseFiles, WhatIsLeftOutDecidesNothing) {
  const auto files = files_of({"config.json", "m-Q8_0.gguf", "model.safetensors"});
  const auto choice = choose_files(files, {}, {"*.safetensors"});
  EXPECT_THAT(paths_of(choice), ElementsAre("config.json", "m-Q8_0.gguf"));
  EXPECT_THAT(choice->notes, IsEmpty());
}

TEST(ChooseFiles, GgufFilesOfSubfoldersAreNamed) {
  const auto files = files_of({"config.json", "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf",
                               "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", "Q8_0/m-Q8_0.gguf"});
  const auto choice = choose_files(files, {}, {});
  ASSERT_FALSE(choice);
  EXPECT_EQ(to_string(choice.error()),
            "the GGUF files are in subfolders: Q4_K_M/m-Q4_K_M-00001-of-00002.gguf, Q8_0/m-Q8_0.gguf\n"
            "  Name one by a word of its name, for example MODEL:Q4_K_M");
  EXPECT_THAT(paths_of(choose_files(files, {}, {}, "q4_k_m")),
              ElementsAre("Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf"));
}

TEST(ChooseFiles, PartsOfAGgufFileStayTogether) {
  const auto files = files_of({"config.json", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"});
  EXPECT_THAT(paths_of(choose_files(files, {}, {})),
              ElementsAre("config.json", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"));
  for (const char* const part : {"m-Q8_0-00001*", "m-Q8_0-00002-of-00002.gguf"}) {
    EXPECT_THAT(paths_of(choose_files(files, {part}, {})),
                ElementsAre("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"));
  }
  EXPECT_THAT(paths_of(choose_files(files, {"m-Q8_0-00001*"}, {"*-00002-*"})),
              ElementsAre("m-Q8_0-00001-of-00002.gguf"));

  // Several models, one of them whole; folders are told apart.
  const auto more =
      files_of({"Q4/m-00001-of-00002.gguf", "Q4/m-00002-of-00002.gguf", "Q8/m-00001-of-00002.gguf",
                "a-00001-of-00003.gguf", "a-00002-of-00003.gguf", "a-00003-of-00003.gguf", "b.gguf"});
  const auto choice = choose_files(more, {}, {});
  ASSERT_FALSE(choice);
  EXPECT_THAT(choice.error().what, HasSubstr("2 GGUF files to choose from: a-00001-of-00003.gguf, b.gguf"));
  EXPECT_THAT(paths_of(choose_files(more, {"Q4/m-00001*"}, {})),
              ElementsAre("Q4/m-00001-of-00002.gguf", "Q4/m-00002-of-00002.gguf"));
}

TEST(ChooseFiles, RefusesAModelOfPickleFilesUnlessTheyAreNamed) {
  const auto files = files_of({"config.json", "pytorch_model.bin"});
  const auto choice = choose_files(files, {}, {});
  ASSERT_FALSE(choice);
  EXPECT_EQ(choice.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(paths_of(choose_files(files, {"*.bin"}, {})), ElementsAre("pytorch_model.bin"));
}

TEST(ChooseFiles, PatternsAreThoseOfHuggingfaceHub) {
  const auto files = files_of({"a.json", "sub/b.json", "sub/deep/c.json", "x.txt"});
  EXPECT_THAT(paths_of(choose_files(files, {"*.json"}, {})),
              ElementsAre("a.json", "sub/b.json", "sub/deep/c.json"));
  EXPECT_THAT(paths_of(choose_files(files, {"sub/"}, {})), ElementsAre("sub/b.json", "sub/deep/c.json"));
  EXPECT_THAT(paths_of(choose_files(files, {"*"}, {"sub/*", "[x-z].txt"})), ElementsAre("a.json"));
  EXPECT_THAT(paths_of(choose_files(files, {"A.json"}, {})),
              ElementsAre(HasSubstr("no file is left of 4: a.json")));
}

}  // namespace
}  // namespace nibble
