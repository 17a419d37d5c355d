#include "nibble/checkpoint/safetensors.h"

#include <cstring>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "nibble/checkpoint/test_folder.h"

namespace nibble {
namespace {

using testing::HasSubstr;

// A file made of a header and data.
std::string file_of(std::string_view header, std::string_view data = {}) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file.append(header).append(data);
}

Expected<SafetensorsHeader> parse(std::string_view file) {
  return parse_safetensors(std::as_bytes(std::span(file)));
}

// The message that refuses the file, or "accepted".
std::string refusal(std::string_view file) {
  const auto header = parse(file);
  return header ? "accepted" : to_string(header.error());
}

TEST(Safetensors, ReadsTypeShapeAndOffsets) {
  const auto header = parse(file_of(
      R"({"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]}})",
      std::string(16, 'x')));
  ASSERT_TRUE(header) << to_string(header.error());
  EXPECT_EQ(header->tensors.at("a"), (SafetensorsEntry{{DType::kI32, {}}, 0, 4}));
  EXPECT_EQ(header->tensors.at("b"), (SafetensorsEntry{{DType::kF16, {2, 3}}, 4, 16}));
}

TEST(Safetensors, EveryDTypeIsKnown) {
  for (const auto& [name, bytes] : std::initializer_list<std::pair<const char*, int>>{
           {"F64", 32},    {"F32", 16},    {"F16", 8},     {"BF16", 8},    {"I64", 32},
           {"I32", 16},    {"I16", 8},     {"I8", 4},      {"U64", 32},    {"U32", 16},
           {"U16", 8},     {"U8", 4},      {"BOOL", 4},    {"C64", 32},    {"F8_E4M3", 4},
           {"F8_E5M2", 4}, {"F8_E8M0", 4}, {"F6_E2M3", 3}, {"F6_E3M2", 3}, {"F4", 2}}) {
    const std::string header =
        fmt::format(R"({{"t":{{"dtype":"{}","shape":[4],"data_offsets":[0,{}]}}}})", name, bytes);
    const auto parsed = parse(file_of(header, std::string(static_cast<size_t>(bytes), '\0')));
    ASSERT_TRUE(parsed) << to_string(parsed.error());
    EXPECT_EQ(dtype_name(parsed->tensors.at("t").info.dtype), name);
  }
}

TEST(Safetensors, WhatTheReferenceReaderToleratesIsTolerated) {
  // Spaces around the header, unknown keys, null metadata, no tensors, an empty name.
  EXPECT_TRUE(
      parse(file_of("  {\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":[1]}} \n", "1")));
  EXPECT_TRUE(parse(file_of(R"({"__metadata__":null})")));
  EXPECT_TRUE(parse(file_of("{}")));
  EXPECT_TRUE(parse(file_of(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1")));
}

TEST(Safetensors, EmptyTensorsTakeNoPlace) {
  const auto header = parse(file_of(
      R"({"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"c":{"dtype":"F32","shape":[0],"data_offsets":[2,2]}})",
      "12"));
  ASSERT_TRUE(header) << to_string(header.error());
  EXPECT_EQ(header->tensors.size(), 3u);
}

TEST(Safetensors, SubByteElementsMustFillBytes) {
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "12")),
              HasSubstr("no number of bytes"));
}

TEST(Safetensors, ExtraOffsetsAreRefused) {
  EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", "1")),
              HasSubstr("data_offsets has 3 numbers"));
}

TEST(Safetensors, MetadataTwiceIsRefused) {
  EXPECT_THAT(refusal(file_of(R"({"__metadata__":{},"__metadata__":{}})")), HasSubstr("twice"));
}

TEST(Safetensors, ACutFileIsCalledAnIncompleteDownload) {
  const std::string whole = file_of(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", "123456789");
  for (size_t length = 0; length < whole.size(); ++length) {
    const std::string message = refusal(std::string_view(whole).substr(0, length));
    EXPECT_THAT(message, HasSubstr("download is incomplete")) << length;
  }
  EXPECT_EQ(refusal(whole), "accepted");
}

TEST(Safetensors, AGitLfsPointerIsNamed) {
  EXPECT_THAT(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
              HasSubstr("git lfs pull"));
}

TEST(Safetensors, TensorsAreViewsOfTheMappedFileEvenUnaligned) {
  const TestFolder folder;
  const std::string bytes = file_of(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
      std::string("7\0\0\x80\x3F", 5));
  auto file = SafetensorsFile::open(folder.add("x.safetensors", bytes));
  ASSERT_TRUE(file) << to_string(file.error());
  const auto once = file->tensor("b");
  const auto again = file->tensor("b");
  EXPECT_EQ(once->bytes.data(), again->bytes.data());
  EXPECT_EQ(copy_elements<float>(*once), std::vector<float>{1.0f});
  EXPECT_EQ(file->tensor("c").error().code, ErrorCode::kNotFound);
}

TEST(Safetensors, AMissingFileIsNotFound) {
  EXPECT_EQ(SafetensorsFile::open("/nonexistent/x.safetensors").error().code, ErrorCode::kNotFound);
}

// The fixtures: one thing is wrong in each.
struct Malformed {
  const char* name;
  const char* message;  // a part of what must be said
};

class MalformedSafetensors : public testing::TestWithParam<Malformed> {};

INSTANTIATE_TEST_SUITE_P(
    Fixtures, MalformedSafetensors,
    testing::Values(
        Malformed{"bad-utf8", "UTF-8"}, Malformed{"data-cut", "download is incomplete"},
        Malformed{"deep-json", "nested deeper"}, Malformed{"duplicate-key", "twice"},
        Malformed{"empty-file", "0 bytes"}, Malformed{"header-beyond-file", "download is incomplete"},
        Malformed{"header-cut", "download is incomplete"}, Malformed{"header-huge", "9223372036854775807"},
        Malformed{"header-over-limit", "at most 100000000"}, Malformed{"header-zero", "not valid JSON"},
        Malformed{"hole", "hole"}, Malformed{"json-array", "a list where an object"},
        Malformed{"metadata-number", "must be a string"}, Malformed{"missing-field", "dtype is missing"},
        Malformed{"not-json", "not valid JSON"}, Malformed{"offsets-2pow64", "1.8446744073709552e+19"},
        Malformed{"offsets-beyond", "needs"}, Malformed{"offsets-float", "holds 0.5"},
        Malformed{"offsets-negative", "holds -32"}, Malformed{"offsets-reversed", "end before they begin"},
        Malformed{"overlap", "overlaps"}, Malformed{"seven-bytes", "7 bytes"},
        Malformed{"shape-mismatch", "needs"}, Malformed{"shape-negative", "holds -1"},
        Malformed{"shape-overflow", "no number of bytes"}, Malformed{"trailing-bytes", "37 bytes follow"},
        Malformed{"unknown-dtype", "F17"}, Malformed{"wrong-dtype-size", "needs"}),
    [](const auto& param) {
      std::string name = param.param.name;
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

TEST_P(MalformedSafetensors, IsRefusedWithTheCause) {
  const auto path = std::filesystem::path(NIBBLE_TEST_DATA) / "malformed" /
                    (std::string("safetensors-") + GetParam().name) / "model.safetensors";
  const auto file = SafetensorsFile::open(path);
  ASSERT_FALSE(file);
  EXPECT_THAT(to_string(file.error()), HasSubstr(GetParam().message));
  EXPECT_THAT(to_string(file.error()), HasSubstr("model.safetensors")) << "names the file";
  EXPECT_FALSE(file.error().fix.empty());
}

// Flipping or cutting anything in a small file never crashes, and what is accepted lies inside.
RC_GTEST_PROP(SafetensorsProperty, DamagedFilesAreRefusedOrConsistent, ()) {
  std::string file = file_of(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
      "0123456789a");
  const auto edits = *rc::gen::container<std::vector<std::pair<size_t, char>>>(
      rc::gen::pair(rc::gen::inRange<size_t>(0, file.size()), rc::gen::arbitrary<char>()));
  for (const auto& [position, value] : edits) file[position] = value;
  file.resize(*rc::gen::inRange<size_t>(0, file.size() + 1));
  const auto header = parse(file);
  if (!header) {
    RC_ASSERT(!header.error().what.empty());
    return;
  }
  for (const auto& tensor : header->tensors) {
    RC_ASSERT(header->data_start + tensor.second.end <= file.size());
    RC_ASSERT(num_bytes(tensor.second.info) == tensor.second.end - tensor.second.begin);
  }
}

}  // namespace
}  // namespace nibble
