#include "nibble/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <csignal>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sys/resource.h>

#include "nibble/base/cancel.h"
#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/checkpoint/test_folder.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

TensorSource source(std::string name, const Tensor& tensor) {
  return {std::move(name), tensor.info(), [tensor]() -> Expected<Tensor> { return tensor; }};
}

Tensor bytes_tensor(size_t size, uint8_t value = 0) {
  return Tensor::of(DType::kU8, {size}, std::vector<uint8_t>(size, value));
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string content(const fs::path& path) { return read_text_file(path).value(); }

Expected<std::shared_ptr<const Checkpoint>> open_written(const fs::path& folder) {
  return open_checkpoint({folder.string(), folder, {}, {}});
}

// What the original library wrote is written again, byte for byte.
TEST(CheckpointWriter, BytesAreThoseOfTheReferenceWriter) {
  const TestFolder folder;
  size_t compared = 0;
  std::vector<fs::path> originals = {fs::path(NIBBLE_TEST_DATA) / "malformed/valid-float/model.safetensors"};
  for (const auto& entry : fs::directory_iterator(fs::path(NIBBLE_TEST_DATA) / "architectures")) {
    for (const char* file : {"model.safetensors", "goldens.safetensors"}) {  // goldens: of several types
      if (fs::exists(entry.path() / file)) originals.push_back(entry.path() / file);
    }
  }
  for (const char* name : {"bnb-int8", "bnb-nf4-dq", "tiny-llama"}) {
    originals.push_back(test::model_folder(name).value() / "model.safetensors");
  }
  for (const fs::path& original : originals) {
    const auto file = SafetensorsFile::open(original);
    ASSERT_TRUE(file) << to_string(file.error());
    if (file->header().metadata.size() > 1) continue;  // written in the order of a hash table
    std::map<std::string, Tensor> tensors;
    for (const auto& entry : file->header().tensors) {
      tensors.emplace(entry.first, file->tensor(entry.first).value());
    }
    ASSERT_TRUE(write_safetensors(folder / "x.safetensors", tensors, file->header().metadata));
    EXPECT_TRUE(content(folder / "x.safetensors") == content(original)) << original;
    ++compared;
  }
  EXPECT_GE(compared, 19u);
}

TEST(CheckpointWriter, NamesAreEscapedAndTheHeaderIsPadded) {
  const TestFolder folder;
  const Tensor one = bytes_tensor(1, 'x');
  const Tensor wide = Tensor::of<uint64_t>(DType::kI64, {1}, {0});
  ASSERT_TRUE(write_safetensors(folder / "x", {{"q\"\\\n\x01\u00e9\x7f", one}, {"wide", wide}}, {}));
  const std::string expected = R"({"wide":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"q\"\\\n\u0001)"
                               "\u00e9\x7f"
                               R"(":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})";
  const std::string file = content(folder / "x");
  EXPECT_EQ(file.substr(8, expected.size()), expected);
  const auto header = parse_safetensors(std::as_bytes(std::span(file)));
  ASSERT_TRUE(header);
  EXPECT_EQ(header->data_start % 8, 0u);
}

TEST(CheckpointWriter, ShardsAreFilledGreedilyInTheGivenOrder) {
  const TestFolder folder;
  // 9 does not fit beside 4; 25 is too large for any shard and gets its own, while the second goes on.
  const std::vector<TensorSource> tensors = {source("d", bytes_tensor(4)), source("c", bytes_tensor(9)),
                                             source("b", bytes_tensor(25)), source("a", bytes_tensor(1))};
  ASSERT_TRUE(write_checkpoint(folder.path(), tensors, {.max_shard_size = 10}));
  EXPECT_THAT(names_in(folder.path()),
              ElementsAre("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                          "model-00003-of-00003.safetensors", "model.safetensors.index.json"));
  const Json index = parse_json(content(folder / "model.safetensors.index.json")).value();
  EXPECT_EQ(index, parse_json(R"({"metadata": {"total_size": 39}, "weight_map": {
    "a": "model-00003-of-00003.safetensors", "b": "model-00002-of-00003.safetensors",
    "c": "model-00003-of-00003.safetensors", "d": "model-00001-of-00003.safetensors"}})")
                       .value());
  const auto checkpoint = open_written(folder.path());
  ASSERT_TRUE(checkpoint) << to_string(checkpoint.error());
  EXPECT_EQ((*checkpoint)->tensors().size(), 4u);
  EXPECT_EQ((*checkpoint)->metadata().at("format"), "pt");
}

TEST(CheckpointWriter, FilesOfAnEarlierModelAreRemoved) {
  const TestFolder folder;
  const std::vector<TensorSource> tensors = {source("a", bytes_tensor(4)), source("b", bytes_tensor(4)),
                                             source("c", bytes_tensor(4))};
  folder.add("tokenizer.json", "{}");
  folder.add("config.json", "{}");
  folder.add("quantize_config.json", "{}");
  ASSERT_TRUE(write_checkpoint(folder.path(), tensors, {.max_shard_size = 4}));
  ASSERT_TRUE(write_checkpoint(folder.path(), tensors, {.max_shard_size = 8}));
  EXPECT_THAT(names_in(folder.path()),
              ElementsAre("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                          "model.safetensors.index.json", "tokenizer.json"));
  ASSERT_TRUE(write_checkpoint(folder.path(), tensors));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("model.safetensors", "tokenizer.json"));
  EXPECT_TRUE(open_written(folder.path()));
}

TEST(CheckpointWriter, AFailureLeavesTheOldModel) {
  const TestFolder folder;
  ASSERT_TRUE(write_checkpoint(folder.path(), {source("a", bytes_tensor(4, 'o'))}));
  folder.add("config.json", "{}");
  const std::string before = content(folder / "model.safetensors");
  std::vector<TensorSource> tensors = {source("a", bytes_tensor(4, 'n')), source("b", bytes_tensor(4))};
  tensors[1].load = []() -> Expected<Tensor> { return fail(ErrorCode::kDataLoss, "broken"); };
  const Status status = write_checkpoint(folder.path(), tensors, {.max_shard_size = 4});
  ASSERT_FALSE(status);
  EXPECT_EQ(to_string(status.error()), "b: broken");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("config.json", "model.safetensors"));
  EXPECT_EQ(content(folder / "model.safetensors"), before);
}

// A limit on the size of files fails in write(), as a full disk does.
TEST(CheckpointWriter, AFullDiskLeavesNothingHalfWritten) {
  const TestFolder folder;
  rlimit old = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  auto* const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = old;
  limit.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const Status status =
      write_checkpoint(folder.path(), {source("a", bytes_tensor(2000)), source("b", bytes_tensor(8000))},
                       {.max_shard_size = 8000});
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(to_string(status.error()), HasSubstr("model-00002-of-00002.safetensors"));
  EXPECT_THAT(names_in(folder.path()), ElementsAre());
}

TEST(CheckpointWriter, CancellingStopsBetweenTensors) {
  const TestFolder folder;
  std::vector<TensorSource> tensors = {source("a", bytes_tensor(4)), source("b", bytes_tensor(4))};
  tensors[0].load = []() -> Expected<Tensor> {
    request_cancel();
    return bytes_tensor(4);
  };
  const Status status = write_checkpoint(folder.path(), tensors);
  reset_cancel();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
  EXPECT_THAT(names_in(folder.path()), ElementsAre());
}

TEST(CheckpointWriter, WhatCannotBeReadBackIsRefused) {
  const TestFolder folder;
  const auto refused = [&](const std::vector<TensorSource>& tensors) {
    return !write_checkpoint(folder.path(), tensors) && names_in(folder.path()).empty();
  };
  EXPECT_TRUE(refused({source("a", bytes_tensor(1)), source("a", bytes_tensor(2))}));
  EXPECT_TRUE(refused({source("__metadata__", bytes_tensor(1))}));
  EXPECT_TRUE(refused({source("\xC3(", bytes_tensor(1))}));
  EXPECT_TRUE(refused({{"a", {DType::kU8, {size_t{1} << 63, 4}}, {}}}));
  TensorSource other = source("a", bytes_tensor(3));
  other.info.shape = {4};
  EXPECT_TRUE(refused({other}));
}

TEST(CheckpointWriter, AModelWithoutTensorsIsAFile) {
  const TestFolder folder;
  ASSERT_TRUE(write_checkpoint(folder.path(), {}));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("model.safetensors"));
  EXPECT_TRUE(open_written(folder.path()));
}

// Names of any characters that UTF-8 has, by way of a few awkward ones.
rc::Gen<std::string> any_text() {
  return rc::gen::map(
      rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>(
          "a", ".", "\"", "\\", "\n", std::string(1, '\0'), "\u00e9", "\u4e2d", "\U0001F600", "{")),
      [](const std::vector<std::string>& parts) {
        std::string text;
        for (const std::string& part : parts) text += part;
        return text;
      });
}

// Some type, some shape (empty ones too), any bytes.
Tensor make_tensor() {
  Tensor tensor;
  tensor.dtype = *rc::gen::element(DType::kU8, DType::kF16, DType::kBF16, DType::kI32, DType::kF64);
  tensor.shape = *rc::gen::resize(4, rc::gen::container<Shape>(rc::gen::inRange<size_t>(0, 4)));
  const size_t bytes = num_bytes(tensor.info()).value_or(0);
  const auto owner = std::make_shared<const std::vector<uint8_t>>(
      *rc::gen::container<std::vector<uint8_t>>(bytes, rc::gen::arbitrary<uint8_t>()));
  tensor.bytes = std::as_bytes(std::span(*owner));
  tensor.owner = owner;
  return tensor;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.info() == b.info() && std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

RC_GTEST_PROP(CheckpointWriterProperty, AnyTensorsComeBackFromAnyShards, ()) {
  const auto names = *rc::gen::resize(8, rc::gen::unique<std::vector<std::string>>(any_text()));
  std::map<std::string, Tensor> tensors;
  std::vector<TensorSource> sources;
  for (const std::string& name : names) {
    if (name == "__metadata__") continue;
    const Tensor tensor = make_tensor();
    tensors.emplace(name, tensor);
    sources.push_back(source(name, tensor));
  }
  const TestFolder folder;
  const auto limit = *rc::gen::inRange<size_t>(1, 200);
  RC_ASSERT(write_checkpoint(folder.path(), sources, {.max_shard_size = limit}).has_value());
  const auto checkpoint = open_written(folder.path());
  RC_ASSERT(checkpoint.has_value());
  RC_ASSERT((*checkpoint)->tensors().size() == tensors.size());
  for (const auto& entry : tensors) {
    RC_ASSERT(same_bytes((*checkpoint)->tensor(entry.first).value(), entry.second));
  }
}

RC_GTEST_PROP(CheckpointWriterProperty, AnyMetadataComesBack, ()) {
  const auto metadata =
      *rc::gen::resize(8, rc::gen::container<std::map<std::string, std::string>>(any_text(), any_text()));
  const TestFolder folder;
  RC_ASSERT(write_safetensors(folder / "x", {{"a", bytes_tensor(1)}}, metadata).has_value());
  RC_ASSERT(SafetensorsFile::open(folder / "x")->header().metadata == metadata);
}

}  // namespace
}  // namespace nibble
