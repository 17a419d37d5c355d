#include "nibble/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/test_folder.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

Expected<std::shared_ptr<const Checkpoint>> open(const fs::path& folder) {
  return open_checkpoint({folder.string(), folder, {}, {}});
}

// The message that refuses the folder, or "accepted".
std::string folder_refusal(const fs::path& folder) {
  const auto checkpoint = open(folder);
  return checkpoint ? "accepted" : to_string(checkpoint.error());
}

fs::path fixture(const std::string& name) { return fs::path(NIBBLE_TEST_DATA) / "malformed" / name; }

// The bytes of a file with one tensor.
std::string weights(const std::string& tensor, float value) {
  const TestFolder folder;
  const std::map<std::string, Tensor> tensors = {{tensor, Tensor::of<float>(DType::kF32, {1}, {value})}};
  NIBBLE_CHECK(write_safetensors(folder / "x", tensors).has_value());
  return read_text_file(folder / "x").value();
}

float only_value(const Checkpoint& checkpoint, std::string_view name) {
  return copy_elements<float>(checkpoint.tensor(name).value()).at(0);
}

TEST(OpenCheckpoint, ControlsAreAccepted) {
  for (const char* name :
       {"valid-float", "valid-int8", "valid-gptq", "valid-awq", "valid-bnb4", "valid-sharded"}) {
    EXPECT_EQ(folder_refusal(fixture(name)), "accepted") << name;
  }
}

TEST(OpenCheckpoint, ShardsHoldTheTensorsOfOneModel) {
  const auto single = open(fixture("valid-float")).value();
  const auto sharded = open(fixture("valid-sharded")).value();
  EXPECT_EQ(single->tensors(), sharded->tensors());
  EXPECT_EQ(sharded->file_of("model.embed_tokens.weight"), "model-00001-of-00002.safetensors");
  EXPECT_EQ(sharded->metadata().at("format"), "pt");
  EXPECT_GT(sharded->file_bytes(), single->file_bytes());
  EXPECT_EQ(sharded->find("nothing"), nullptr);
  EXPECT_EQ(sharded->tensor("nothing").error().code, ErrorCode::kNotFound);
}

TEST(OpenCheckpoint, MalformedIndexesAreRefusedWithTheCause) {
  for (const auto& [name, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"index-absolute-path", "/etc/hostname"},
           {"index-duplicate-tensor", "model.embed_tokens.weight: the tensor is in"},
           {"index-missing-shard", "1 of 2 weight files are missing: model-00002-of-00002.safetensors"},
           {"index-not-object", "weight_map is a list"},
           {"index-parent-path", "../valid-float/model.safetensors"},
           {"index-value-number", "must be a file name"},
           {"index-wrong-shard", "is in model-00002-of-00002.safetensors, not in model-00001"},
           {"weights-missing-file", "no weights"}}) {
    EXPECT_THAT(folder_refusal(fixture(name)), HasSubstr(message)) << name;
    EXPECT_FALSE(open(fixture(name)).error().fix.empty()) << name;
  }
  EXPECT_EQ(open(fixture("weights-missing-file")).error().code, ErrorCode::kNotFound);
}

TEST(OpenCheckpoint, ATruncatedShardIsNamed) {
  const TestFolder folder;
  const std::string whole = weights("a", 1);
  folder.add("model-00001-of-00001.safetensors", whole.substr(0, whole.size() - 1));
  folder.add("model.safetensors.index.json", R"({"weight_map": {"a": "model-00001-of-00001.safetensors"}})");
  EXPECT_THAT(folder_refusal(folder.path()), HasSubstr("model-00001-of-00001.safetensors"));
  EXPECT_THAT(folder_refusal(folder.path()), HasSubstr("download is incomplete"));
}

TEST(OpenCheckpoint, ATensorOfTheIndexThatIsNowhereIsNamed) {
  const TestFolder folder;
  folder.add("s.safetensors", weights("a", 1));
  folder.add("model.safetensors.index.json",
             R"({"weight_map": {"a": "s.safetensors", "b": "s.safetensors"}})");
  EXPECT_THAT(folder_refusal(folder.path()), HasSubstr("b (said to be in s.safetensors) is in no file"));
}

TEST(OpenCheckpoint, IndexNamesMustBePlain) {
  const TestFolder folder;
  folder.add("sub/s.safetensors", weights("a", 1));
  for (const char* shard :
       {"sub/s.safetensors", "..", "", "s.bin", "a\\\\s.safetensors", "s\\u0000.safetensors"}) {
    folder.add("model.safetensors.index.json", fmt::format(R"({{"weight_map": {{"a": "{}"}}}})", shard));
    EXPECT_THAT(folder_refusal(folder.path()), HasSubstr("not the name of a .safetensors file")) << shard;
  }
}

TEST(OpenCheckpoint, TheSingleFileWinsOverAnIndex) {
  const TestFolder folder;
  folder.add("model.safetensors", weights("a", 1));
  folder.add("model.safetensors.index.json", "broken");
  EXPECT_EQ(folder_refusal(folder.path()), "accepted");
}

TEST(OpenCheckpoint, OldGptqNamesAreFound) {
  const TestFolder folder;
  folder.add("gptq_model-4bit-128g.safetensors", weights("a", 2));
  folder.add("adapter_model.safetensors", "not looked at");
  const auto checkpoint = open(folder.path());
  ASSERT_TRUE(checkpoint) << to_string(checkpoint.error());
  EXPECT_EQ(only_value(**checkpoint, "a"), 2);
  EXPECT_EQ((*checkpoint)->file_of("a"), "gptq_model-4bit-128g.safetensors");
}

TEST(OpenCheckpoint, OldGptqShardsAreFound) {
  const TestFolder folder;
  const std::string base = "gptq_model-4bit--1g";
  folder.add(base + "-00001-of-00002.safetensors", weights("a", 1));
  folder.add(base + "-00002-of-00002.safetensors", weights("b", 2));
  folder.add(base + ".safetensors.index.json",
             fmt::format(R"({{"weight_map": {{"a": "{0}-00001-of-00002.safetensors",
                                             "b": "{0}-00002-of-00002.safetensors"}}}})",
                         base));
  const auto checkpoint = open(folder.path());
  ASSERT_TRUE(checkpoint) << to_string(checkpoint.error());
  EXPECT_EQ(only_value(**checkpoint, "b"), 2);
}

TEST(OpenCheckpoint, SeveralCandidatesAreListed) {
  const TestFolder folder;
  folder.add("gptq_model-4bit-128g.safetensors", weights("a", 1));
  folder.add("gptq_model-8bit-128g.safetensors", weights("a", 1));
  EXPECT_THAT(folder_refusal(folder.path()),
              HasSubstr("gptq_model-4bit-128g.safetensors, gptq_model-8bit-128g.safetensors"));
}

TEST(OpenCheckpoint, ShardsWithoutAnIndexAreAnIncompleteDownload) {
  const TestFolder folder;
  folder.add("model-00001-of-00002.safetensors", weights("a", 1));
  EXPECT_THAT(folder_refusal(folder.path()), HasSubstr("no model.safetensors.index.json"));
}

TEST(OpenCheckpoint, PickleFilesAreUnsupportedWithTheWayOut) {
  const TestFolder folder;
  folder.add("pytorch_model.bin", "\x80\x02");
  const auto checkpoint = open(folder.path());
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(to_string(checkpoint.error()), HasSubstr("pytorch_model.bin"));
  EXPECT_THAT(checkpoint.error().fix, HasSubstr("save_pretrained(OUT, safe_serialization=True)"));
}

// Snapshot folders of the Hugging Face cache hold links.
TEST(OpenCheckpoint, LinkedFilesAreFollowed) {
  const TestFolder folder;
  folder.add("blobs/0123", weights("a", 3));
  folder.add("snapshots/abc/model.safetensors.index.json", R"({"weight_map": {"a": "s.safetensors"}})");
  fs::create_symlink("../../blobs/0123", folder / "snapshots/abc/s.safetensors");
  const auto checkpoint = open(folder / "snapshots/abc");
  ASSERT_TRUE(checkpoint) << to_string(checkpoint.error());
  EXPECT_EQ(only_value(**checkpoint, "a"), 3);
  fs::remove(folder / "blobs/0123");
  EXPECT_THAT(folder_refusal(folder / "snapshots/abc"), HasSubstr("weight files are missing"));
}

}  // namespace
}  // namespace nibble
