#include "nibble/tokenizer/convert_vocabulary.h"

#include <array>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nibble/tokenizer/converted_parts.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/unicode.h"
#include "nibble/tokenizer/vocabulary.h"

namespace nibble {
namespace {

enum class Cut { kGpt2, kQwen2, kRoberta };

// Tokenizers with vocab.json and merges.txt: what they have by default where the configuration is silent.
struct ByteLevelClass {
  std::string_view name;
  Cut cut;
  std::string_view end_of_text;  // bos, eos and unk
};
constexpr std::array<ByteLevelClass, 5> kByteLevelClasses = {{
    {"GPT2Tokenizer", Cut::kGpt2, "<|endoftext|>"},
    {"", Cut::kGpt2, "<|endoftext|>"},
    {"Qwen2Tokenizer", Cut::kQwen2, "<|endoftext|>"},
    {"RobertaTokenizer", Cut::kRoberta, "</s>"},
    {"BartTokenizer", Cut::kRoberta, "</s>"},
}};

constexpr std::string_view kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
  }
  return lines;
}

Json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// RoBERTa's template, with offsets without the spaces around.
Expected<Json> roberta_processing(const NamedTokens& specials, const TokenIds& vocab, bool add_prefix_space) {
  Json json = {{"type", "RobertaProcessing"}, {"trim_offsets", true}, {"add_prefix_space", add_prefix_space}};
  for (const auto& [field, name] : {std::pair("sep", "sep_token"), std::pair("cls", "cls_token")}) {
    const std::string token = content_of(specials, name);
    const auto id = vocab.find(token);
    if (id == vocab.end()) {
      return fail(ErrorCode::kDataLoss, "the {} \"{}\" is not in the vocabulary", name, token);
    }
    json[field] = Json::array({token, id->second});
  }
  return json;
}

}  // namespace

Expected<ConvertedTokenizer> convert_vocab_and_merges(std::string_view vocab_text,
                                                      std::string_view merges_text,
                                                      const TokenizerSettings& settings) {
  const std::string name = tokenizer_class(settings.tokenizer_config);
  const ByteLevelClass* kind = nullptr;
  for (const ByteLevelClass& row : kByteLevelClasses) {
    if (row.name == name) kind = &row;
  }
  if (!kind) {
    return fail(ErrorCode::kUnsupported, "a tokenizer of class {} is not read from these files", name)
        .with_fix("Supported: GPT2Tokenizer, Qwen2Tokenizer, RobertaTokenizer, BartTokenizer.");
  }
  NIBBLE_TRY(const Json parsed, at("vocab.json", parse_json(vocab_text)));
  NIBBLE_TRY(const Vocabulary checked, at("vocab.json", Vocabulary::parse(parsed)));
  TokenIds vocab;
  for (const auto& [token, id] : parsed.get_ref<const Json::object_t&>())
    vocab.emplace(token, id.get<int32_t>());
  Json merges = Json::array();
  for (const std::string_view line : lines_of(merges_text)) {
    if (line.empty() || line.starts_with("#version")) continue;
    if (!is_valid_utf8(line)) return fail(ErrorCode::kDataLoss, "is not UTF-8").at("merges.txt");
    merges.push_back(line);
  }
  const bool roberta = kind->cut == Cut::kRoberta;
  NIBBLE_TRY(const bool add_prefix_space, bool_field(settings.tokenizer_config, "add_prefix_space", false));
  NIBBLE_TRY(const bool add_bos, bool_field(settings.tokenizer_config, "add_bos_token", false));
  NIBBLE_TRY(const bool add_eos, bool_field(settings.tokenizer_config, "add_eos_token", false));

  Json defaults = {{"eos_token", kind->end_of_text}, {"unk_token", kind->end_of_text}};
  if (kind->cut == Cut::kGpt2) defaults["bos_token"] = kind->end_of_text;
  if (kind->cut == Cut::kQwen2) defaults["pad_token"] = kind->end_of_text;
  if (roberta) {
    defaults = {{"bos_token", "<s>"}, {"eos_token", "</s>"},  {"sep_token", "</s>"},
                {"cls_token", "<s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
    Json mask = added_token_entry("<mask>", true, false);
    mask["lstrip"] = true;
    defaults["mask_token"] = std::move(mask);
  }
  const NamedTokens specials = named_special_tokens(settings, defaults);
  NIBBLE_TRY(AddedEntries added, added_token_entries(settings));
  const Json added_tokens = make_added_tokens(std::move(added), specials, vocab);

  Json normalizer;
  Json pre_tokenizer = byte_level(add_prefix_space, /*use_regex=*/true);
  if (kind->cut == Cut::kQwen2) {
    normalizer = {{"type", "NFC"}};
    const Json words = {{"type", "Split"},
                        {"pattern", {{"Regex", kQwen2Words}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    pre_tokenizer = {{"type", "Sequence"},
                     {"pretokenizers", Json::array({words, byte_level(add_prefix_space, false)})}};
  }
  Json post_processor =
      surround_with(add_bos ? content_of(specials, "bos_token") : std::string(),
                    add_eos ? content_of(specials, "eos_token") : std::string(), added_tokens, vocab);
  if (roberta) {
    NIBBLE_TRY(post_processor, roberta_processing(specials, vocab, add_prefix_space));
  }
  ConvertedTokenizer converted;
  converted.tokenizer =
      tokenizer_json(std::move(normalizer), std::move(pre_tokenizer),
                     {{"type", "BPE"}, {"vocab", vocab_json(vocab)}, {"merges", std::move(merges)}},
                     std::move(post_processor), byte_level(/*add_prefix_space=*/true, true), added_tokens);
  converted.tokenizer_config = config_with(specials, settings.tokenizer_config);
  return converted;
}

Expected<ConvertedTokenizer> convert_vocab_txt(std::string_view text, const TokenizerSettings& settings) {
  if (!is_valid_utf8(text)) return fail(ErrorCode::kDataLoss, "is not UTF-8");
  const std::string name = tokenizer_class(settings.tokenizer_config);
  if (!name.empty() && name != "BertTokenizer" && name != "DistilBertTokenizer" &&
      name != "ElectraTokenizer") {
    return fail(ErrorCode::kUnsupported, "a tokenizer of class {} is not read from this file", name)
        .with_fix("Supported: BertTokenizer, DistilBertTokenizer, ElectraTokenizer.");
  }
  TokenIds vocab;
  int32_t id = 0;
  for (const std::string_view line : lines_of(text)) {
    if (id >= kMaxTokenId) return fail(ErrorCode::kDataLoss, "more than {} tokens", kMaxTokenId);
    vocab[std::string(line)] = id++;
  }
  const Json& config = settings.tokenizer_config;
  NIBBLE_TRY(const bool lowercase, bool_field(config, "do_lower_case", true));
  NIBBLE_TRY(const bool chinese, bool_field(config, "tokenize_chinese_chars", true));
  const Json* accents = find_field(config, "strip_accents");
  const Json defaults = {{"unk_token", "[UNK]"},
                         {"sep_token", "[SEP]"},
                         {"pad_token", "[PAD]"},
                         {"cls_token", "[CLS]"},
                         {"mask_token", "[MASK]"}};
  const NamedTokens specials = named_special_tokens(settings, defaults);
  NIBBLE_TRY(AddedEntries added, added_token_entries(settings));
  const Json added_tokens = make_added_tokens(std::move(added), specials, vocab);
  ConvertedTokenizer converted;
  converted.tokenizer =
      tokenizer_json({{"type", "BertNormalizer"},
                      {"clean_text", true},
                      {"handle_chinese_chars", chinese},
                      {"strip_accents", accents ? *accents : Json()},
                      {"lowercase", lowercase}},
                     {{"type", "BertPreTokenizer"}},
                     {{"type", "WordPiece"},
                      {"vocab", vocab_json(vocab)},
                      {"unk_token", content_of(specials, "unk_token")},
                      {"continuing_subword_prefix", "##"},
                      {"max_input_chars_per_word", 100}},
                     surround_with(content_of(specials, "cls_token"), content_of(specials, "sep_token"),
                                   added_tokens, vocab),
                     {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}, added_tokens);
  converted.tokenizer_config = config_with(specials, settings.tokenizer_config);
  return converted;
}

}  // namespace nibble
