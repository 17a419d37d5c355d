#ifndef NIBBLE_TOKENIZER_TOKENIZER_TEST_SUPPORT_H_
#define NIBBLE_TOKENIZER_TOKENIZER_TEST_SUPPORT_H_

// What the tests of this folder share: tokenizers from tests/data and from a few lines of JSON.

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble::tokenizer_test {

inline std::filesystem::path data(std::string_view path) {
  return std::filesystem::path(NIBBLE_TEST_DATA) / path;
}

// The tokenizers that have goldens.
inline constexpr std::array<const char*, 14> kGoldenTokenizers = {
    "bert-wordpiece", "deepseek-v2", "deepseek-v3",       "gemma", "gpt-4o-style",         "gpt2",
    "llama2-legacy",  "llama3",      "mistral-metaspace", "qwen2", "roberta-prefix-space", "smollm2",
    "t5-unigram",     "xlmr-unigram"};

// Those that have no tokenizer.json, only what older models have.
inline constexpr std::array<const char*, 10> kOlderTokenizers = {
    "spm-llama",         "spm-llama-added", "spm-mistral", "spm-mistral-renamed", "spm-unigram",
    "spm-unigram-bytes", "gpt2-files",      "qwen2-files", "roberta-files",       "bert-files"};

// A folder's name as GoogleTest takes it.
inline std::string test_name(std::string folder) {
  for (char& c : folder) c = c == '-' ? '_' : c;
  return folder;
}

inline Json read_json_file(const std::filesystem::path& path) {
  const auto text = read_text_file(path);
  return text ? parse_json(*text).value() : Json();
}

inline Expected<Tokenizer> load(const std::filesystem::path& folder) {
  NIBBLE_TRY(const std::string text, read_text_file(folder / "tokenizer.json"));
  return Tokenizer::from_json(text, read_json_file(folder / "tokenizer_config.json"), Json(), {});
}

inline Expected<Tokenizer> load_golden(std::string_view name) {
  return load(data("tokenizers") / std::filesystem::path(name));
}

// A tokenizer.json whose model knows the given tokens, in this order, and joins them by `merges`.
inline Json small_tokenizer(const std::vector<std::string>& tokens,
                            const std::vector<std::string>& merges = {}) {
  Json vocab = Json::object();
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", {{"type", "Fuse"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

// One token for every character of printable ASCII, so that ids show how a text was cut.
inline std::vector<std::string> ascii_tokens() {
  std::vector<std::string> tokens;
  for (char c = ' '; c <= '~'; ++c) tokens.emplace_back(1, c);
  return tokens;
}

inline Json added_token(int id, std::string_view content, bool special = true) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

inline Expected<Tokenizer> build(const Json& json, const Json& config = Json()) {
  return Tokenizer::from_json(dump_json(json), config, Json(), {});
}

// The spellings of a text's tokens.
inline std::vector<std::string> spell(const Tokenizer& tokenizer, std::string_view text,
                                      const EncodeOptions& options = {}) {
  std::vector<std::string> tokens;
  const auto encoding = tokenizer.encode(text, options);
  if (!encoding) return {to_string(encoding.error())};
  for (const int32_t id : encoding->ids) tokens.push_back(tokenizer.id_to_token(id).value_or("?"));
  return tokens;
}

}  // namespace nibble::tokenizer_test

#endif  // NIBBLE_TOKENIZER_TOKENIZER_TEST_SUPPORT_H_
