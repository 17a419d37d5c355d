#include "nibble/base/json.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Json, KeepsTheOrderOfKeys) {
  const auto json = parse_json(R"({"b": 1, "a": [true, null, "x"]})");
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ(dump_json(*json, -1), R"({"b": 1, "a": [true, null, "x"]})");
}

TEST(Json, DuplicateKeysAreRefusedByName) {
  const auto json = parse_json(R"({"a": 1, "b": {"a": 2}, "a": 3})");
  ASSERT_FALSE(json.has_value());
  EXPECT_NE(json.error().what.find("\"a\" stands twice"), std::string::npos) << json.error().what;
}

TEST(Json, DepthIsBounded) {
  EXPECT_TRUE(parse_json(std::string(100, '[') + std::string(100, ']')).has_value());
  EXPECT_FALSE(parse_json(std::string(101, '[') + std::string(101, ']')).has_value());
  EXPECT_FALSE(parse_json(std::string(1000000, '[')).has_value());
}

TEST(Json, WhatIsNotJsonIsRefused) {
  for (const char* text : {"", "{", "{\"a\": 1} x", "[1,]", "\"\xC3\x28\"", "NaN", "[Infinity]"}) {
    const auto json = parse_json(text);
    EXPECT_FALSE(json.has_value()) << text;
  }
}

TEST(Json, NanLiteralsAreReadAsNullWhereAllowed) {
  const auto json =
      parse_json(R"({"a": NaN, "b": [-Infinity, Infinity], "c": "NaN\" NaN"})", {.allow_nan = true});
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ(dump_json(*json, -1), R"({"a": null, "b": [null, null], "c": "NaN\" NaN"})");
}

}  // namespace
}  // namespace nibble
