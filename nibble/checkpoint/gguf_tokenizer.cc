#include "nibble/checkpoint/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "nibble/base/log.h"
#include "nibble/checkpoint/gguf_architectures.h"
#include "nibble/checkpoint/utf8.h"

namespace nibble {
namespace {

// tokenizer.ggml.token_type.
enum class TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

constexpr std::string_view kSpace = "\u2581";  // SentencePiece's

// The work for the merges of a token grows with the square of its length.
constexpr size_t kMaxTokenBytes = 256;
constexpr double kBestScore = 0;  // of a SentencePiece vocabulary: others are negative

struct Vocabulary {
  std::vector<std::string> tokens;  // by id
  std::vector<TokenType> types;     // as many
  std::vector<double> scores;       // as many, or none
  std::unordered_map<std::string_view, size_t> ids;
  std::optional<uint64_t> bos, eos, unk, pad;
};

Expected<std::vector<std::string>> read_strings(const Json& list) {
  std::vector<std::string> strings;
  for (const Json& item : list) {
    if (!item.is_string() || !is_utf8(item.get_ref<const std::string&>())) {
      return fail(ErrorCode::kDataLoss, "element {} is not a string of valid UTF-8", strings.size());
    }
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

// A list that, if it is there, has one number per token.
template <class T>
Expected<std::vector<T>> read_per_token(const GgufHeader& header, std::string_view key, size_t num_tokens) {
  NIBBLE_TRY(const Json* const list, gguf_array(header, key));
  std::vector<T> values;
  if (list == nullptr) return values;
  if (list->size() != num_tokens) {
    return fail(ErrorCode::kDataLoss, "{} elements for {} tokens", list->size(), num_tokens).at(key);
  }
  for (const Json& item : *list) {
    if (!item.is_number())
      return fail(ErrorCode::kDataLoss, "{} in a list of numbers", json_type_name(item)).at(key);
    values.push_back(item.get<T>());
  }
  return values;
}

// What a SentencePiece vocabulary looked like before the file was made: user-defined tokens of spaces were of
// U+2581, those and the tab had the best score, and the tab was a character.
void restore_sentencepiece(const GgufArchitecture& architecture, Vocabulary& vocabulary) {
  std::vector<std::pair<size_t, std::string>> renamed;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    const bool is_spaces = token.find_first_not_of(' ') == token.npos;
    if (vocabulary.types[id] == TokenType::kUserDefined) {
      if (!vocabulary.scores.empty()) vocabulary.scores[id] = kBestScore;
      if (!is_spaces || token.empty() || token.size() > kMaxTokenBytes) continue;
      std::string text;
      for (size_t i = 0; i < token.size(); ++i) text += kSpace;
      renamed.emplace_back(id, std::move(text));
    } else if (architecture.byte_token_is_tab && token == "<0x09>") {
      renamed.emplace_back(id, "\t");
    }
  }
  if (renamed.empty()) return;
  const std::set<std::string, std::less<>> in_file(vocabulary.tokens.begin(), vocabulary.tokens.end());
  for (auto& [id, text] : renamed) {
    if (in_file.contains(text)) continue;  // it is a token of its own
    vocabulary.tokens[id] = std::move(text);
    if (!vocabulary.scores.empty()) vocabulary.scores[id] = kBestScore;
  }
}

Expected<Vocabulary> read_vocabulary(const GgufHeader& header, const GgufConfig& config,
                                     bool is_sentencepiece) {
  constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
  Vocabulary vocabulary;
  NIBBLE_TRY(const Json* const list, gguf_array(header, kTokens));
  if (list == nullptr) return fail(ErrorCode::kDataLoss, "the list of tokens is missing").at(kTokens);
  if (list->size() > config.vocab_size) {
    return fail(ErrorCode::kDataLoss, "{} tokens, but the embedding has {} rows", list->size(),
                config.vocab_size)
        .at(kTokens);
  }
  NIBBLE_TRY(vocabulary.tokens, at(kTokens, read_strings(*list)));
  const size_t count = vocabulary.tokens.size();
  NIBBLE_TRY(const auto types, read_per_token<int64_t>(header, "tokenizer.ggml.token_type", count));
  vocabulary.types.assign(count, TokenType::kNormal);
  for (size_t id = 0; id < types.size(); ++id) vocabulary.types[id] = static_cast<TokenType>(types[id]);
  NIBBLE_TRY(vocabulary.scores, read_per_token<double>(header, "tokenizer.ggml.scores", count));
  if (is_sentencepiece) restore_sentencepiece(*config.architecture, vocabulary);
  for (size_t id = 0; id < count; ++id) {
    const auto [position, is_new] = vocabulary.ids.emplace(vocabulary.tokens[id], id);
    if (!is_new) {
      return fail(ErrorCode::kDataLoss, "tokens {} and {} are both \"{}\"", position->second, id,
                  vocabulary.tokens[id])
          .at(kTokens);
    }
  }
  NIBBLE_TRY(vocabulary.bos, gguf_token_id(header, "bos", count));
  NIBBLE_TRY(vocabulary.eos, gguf_token_id(header, "eos", count));
  NIBBLE_TRY(vocabulary.unk, gguf_token_id(header, "unknown", count));
  NIBBLE_TRY(vocabulary.pad, gguf_token_id(header, "padding", count));
  return vocabulary;
}

using Merge = std::pair<std::string, std::string>;

// "a b": the first space behind the first character divides the two parts.
Expected<std::vector<Merge>> read_merges(const Json& list) {
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  NIBBLE_TRY(const auto lines, at(kMerges, read_strings(list)));
  std::vector<Merge> merges;
  for (const std::string& line : lines) {
    const size_t space = line.find(' ', 1);
    if (line.empty() || space == std::string::npos || space + 1 == line.size()) {
      return fail(ErrorCode::kDataLoss, "\"{}\" is not two parts with a space between them", line)
          .at(kMerges);
    }
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

// A SentencePiece vocabulary has scores instead of merges: what may be merged is every pair of
// tokens whose concatenation is a token, best score first. The order among equals is that of
// generate_merges in Transformers: longer left part, longer right part, then the order of the
// tokens and of the ids of the parts.
Expected<std::vector<Merge>> derive_merges(const Vocabulary& vocabulary) {
  struct Candidate {
    std::string_view left, right;
    size_t left_characters, right_characters;
    double score;
  };
  std::vector<Candidate> candidates;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string_view token = vocabulary.tokens[id];
    if (token.size() > kMaxTokenBytes) {
      return fail(ErrorCode::kUnsupported, "token {} has {} bytes; at most {} are expected", id, token.size(),
                  kMaxTokenBytes);
    }
    if (std::isnan(vocabulary.scores[id]))
      return fail(ErrorCode::kDataLoss, "the score of token {} is NaN", id);
    std::vector<size_t> starts;  // of the characters
    for (size_t i = 0; i < token.size(); i += utf8_character_bytes(token.substr(i))) starts.push_back(i);
    const auto first_of_token = static_cast<ptrdiff_t>(candidates.size());
    for (size_t i = 1; i < starts.size(); ++i) {
      const std::string_view left = token.substr(0, starts[i]);
      const std::string_view right = token.substr(starts[i]);
      if (!vocabulary.ids.contains(left) || !vocabulary.ids.contains(right)) continue;
      candidates.push_back({left, right, i, starts.size() - i, vocabulary.scores[id]});
    }
    std::sort(candidates.begin() + first_of_token, candidates.end(),
              [&](const Candidate& a, const Candidate& b) {
                return std::pair(vocabulary.ids.at(a.left), vocabulary.ids.at(a.right)) <
                       std::pair(vocabulary.ids.at(b.left), vocabulary.ids.at(b.right));
              });
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.score, a.left_characters, a.right_characters) >
           std::tie(b.score, b.left_characters, b.right_characters);
  });
  std::vector<Merge> merges;
  for (const Candidate& candidate : candidates) merges.emplace_back(candidate.left, candidate.right);
  return merges;
}

// How text is cut before the merges, by tokenizer.ggml.pre.
struct PreTokenizer {
  std::string_view name;
  std::string_view split;  // a regular expression; "": that of GPT-2
  bool split_digits;       // each digit on its own, before everything else
  bool nfc;
  // A piece that is a token is taken as it is, even if no sequence of merges makes it.
  bool ignore_merges;
  bool adds_bos;  // where tokenizer.ggml.add_bos_token is missing
};

constexpr std::string_view kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oSplit =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenSplit =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::array kPreTokenizers = {
    PreTokenizer{"default", "", false, false, false, false},
    PreTokenizer{"gpt-2", "", false, false, false, false},
    PreTokenizer{"smollm", "", true, false, false, false},
    PreTokenizer{"starcoder", "", true, false, false, false},
    PreTokenizer{"refact", "", true, false, false, false},
    PreTokenizer{"llama3", kLlama3Split, false, false, true, true},
    PreTokenizer{"llama-v3", kLlama3Split, false, false, true, true},
    PreTokenizer{"llama-bpe", kLlama3Split, false, false, true, true},
    PreTokenizer{"falcon3", kLlama3Split, false, false, true, true},
    PreTokenizer{"dbrx", kLlama3Split, false, false, false, false},   // Phi-4
    PreTokenizer{"gpt-4o", kGpt4oSplit, false, false, false, false},  // Phi-4 mini
    PreTokenizer{"qwen2", kQwen2Split, false, true, false, false},
    PreTokenizer{"deepseek-r1-qwen", kQwen2Split, false, true, false, false},
    PreTokenizer{"tekken", kTekkenSplit, false, false, true, true},
};

Expected<const PreTokenizer*> find_pre_tokenizer(const GgufHeader& header) {
  constexpr std::string_view kKey = "tokenizer.ggml.pre";
  NIBBLE_TRY(const auto name, gguf_string(header, kKey));
  if (!name || *name == "default") {
    warn(
        "the GGUF file does not say how its tokenizer splits text (tokenizer.ggml.pre): splitting as GPT-2 "
        "does");
  }
  std::vector<std::string_view> known;
  for (const PreTokenizer& row : kPreTokenizers) {
    if (row.name == name.value_or("default")) return &row;
    known.push_back(row.name);
  }
  return fail(ErrorCode::kUnsupported, "pre-tokenizer \"{}\"; known are {}", *name, fmt::join(known, ", "))
      .at(kKey)
      .with_fix("Use the model's safetensors files with their tokenizer.json.");
}

Json byte_level(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

Json pre_tokenizer_json(const PreTokenizer& row) {
  Json first;
  if (row.split_digits) first = {{"type", "Digits"}, {"individual_digits", true}};
  if (!row.split.empty()) {
    first = {
        {"type", "Split"}, {"pattern", {{"Regex", row.split}}}, {"behavior", "Isolated"}, {"invert", false}};
  }
  Json bytes = byte_level(false, true, /*use_regex=*/row.split.empty());
  if (first.is_null()) return bytes;
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({std::move(first), std::move(bytes)})}};
}

// [BOS] text [EOS]
Json template_processing(const Vocabulary& vocabulary, std::optional<uint64_t> bos,
                         std::optional<uint64_t> eos) {
  Json special_tokens = Json::object();
  Json single = Json::array();
  Json pair = Json::array();
  for (const int sequence : {0, 1}) {
    const auto add = [&](Json piece) {
      if (sequence == 0) single.push_back(piece);
      pair.push_back(std::move(piece));
    };
    const auto add_special = [&](uint64_t id) {
      const std::string& token = vocabulary.tokens[id];
      add({{"SpecialToken", {{"id", token}, {"type_id", sequence}}}});
      special_tokens[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
    };
    if (bos) add_special(*bos);
    add({{"Sequence", {{"id", sequence == 0 ? "A" : "B"}, {"type_id", sequence}}}});
    if (eos) add_special(*eos);
  }
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special_tokens)}};
}

// Phi-3: its files do not say that most added tokens take the white space behind them. As in llama.cpp, it is
// all of them but these.
constexpr std::array<std::string_view, 3> kKeepWhiteSpace = {"<unk>", "<s>", "<|endoftext|>"};

Json added_tokens(const Vocabulary& vocabulary, bool strips_white_space) {
  Json list = Json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    // What begins and ends a text is special in every model, even if an old file does not say so.
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown || vocabulary.bos == id ||
                         vocabulary.eos == id;
    if (!special && type != TokenType::kUserDefined) continue;
    const std::string& token = vocabulary.tokens[id];
    const bool keeps =
        std::find(kKeepWhiteSpace.begin(), kKeepWhiteSpace.end(), token) != kKeepWhiteSpace.end();
    list.push_back({{"id", id},
                    {"content", token},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", strips_white_space && !keeps},
                    {"normalized", false},
                    {"special", special}});
  }
  return list;
}

struct BpeOptions {
  Json unk_token;  // null: none
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

Json bpe_model(const Vocabulary& vocabulary, const std::vector<Merge>& merges, const BpeOptions& options) {
  Json vocab = Json::object();
  auto& entries = vocab.get_ref<Json::object_t&>();
  // The tokens are known to differ: no search for each.
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    entries.push_back({vocabulary.tokens[id], Json(id)});
  Json merge_list = Json::array();
  for (const auto& [left, right] : merges) merge_list.push_back(Json::array({left, right}));
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", options.unk_token},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", options.fuse_unk},
          {"byte_fallback", options.byte_fallback},
          {"ignore_merges", options.ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merge_list)}};
}

// The parts of tokenizer.json that depend on the kind of tokenizer.
struct Pipeline {
  Json normalizer, pre_tokenizer, post_processor, decoder, model;
};

// Whether BOS and EOS are put around a text.
struct Specials {
  std::optional<uint64_t> bos, eos;
};

Expected<Specials> read_specials(const GgufHeader& header, const Vocabulary& vocabulary, bool adds_bos) {
  NIBBLE_TRY(const auto add_bos, gguf_bool(header, "tokenizer.ggml.add_bos_token"));
  NIBBLE_TRY(const auto add_eos, gguf_bool(header, "tokenizer.ggml.add_eos_token"));
  Specials specials;
  if (add_bos.value_or(adds_bos)) specials.bos = vocabulary.bos;
  if (add_eos.value_or(false)) specials.eos = vocabulary.eos;
  return specials;
}

// tokenizer.ggml.model "gpt2": byte-level BPE.
Expected<Pipeline> byte_level_pipeline(const GgufHeader& header, const Vocabulary& vocabulary) {
  NIBBLE_TRY(const PreTokenizer* const row, find_pre_tokenizer(header));
  NIBBLE_TRY(const Json* const list, gguf_array(header, "tokenizer.ggml.merges"));
  if (list == nullptr) return fail(ErrorCode::kDataLoss, "the list is missing").at("tokenizer.ggml.merges");
  NIBBLE_TRY(const auto merges, read_merges(*list));
  NIBBLE_TRY(const Specials specials, read_specials(header, vocabulary, row->adds_bos));

  Pipeline pipeline;
  if (row->nfc) pipeline.normalizer = {{"type", "NFC"}};
  pipeline.pre_tokenizer = pre_tokenizer_json(*row);
  pipeline.post_processor = byte_level(true, /*trim_offsets=*/false, true);
  if (specials.bos || specials.eos) {
    pipeline.post_processor = {
        {"type", "Sequence"},
        {"processors", Json::array({byte_level(true, true, true),
                                    template_processing(vocabulary, specials.bos, specials.eos)})}};
  }
  pipeline.decoder = byte_level(true, true, true);
  pipeline.model = bpe_model(vocabulary, merges, {.unk_token = nullptr, .ignore_merges = row->ignore_merges});
  return pipeline;
}

// tokenizer.ggml.model "llama": SentencePiece BPE, whose spaces are "▁" and whose unknown
// characters fall back to the tokens <0x00> to <0xFF>.
Expected<Pipeline> sentencepiece_pipeline(const GgufHeader& header, const Vocabulary& vocabulary) {
  std::vector<Merge> merges;
  NIBBLE_TRY(const Json* const list, gguf_array(header, "tokenizer.ggml.merges"));
  if (list != nullptr) {
    NIBBLE_TRY(merges, read_merges(*list));
  } else if (vocabulary.scores.empty()) {
    return fail(ErrorCode::kDataLoss, "the file has neither scores nor merges").at("tokenizer.ggml.scores");
  } else {
    NIBBLE_TRY(merges, at("tokenizer.ggml.tokens", derive_merges(vocabulary)));
  }
  NIBBLE_TRY(const Specials specials, read_specials(header, vocabulary, /*adds_bos=*/true));
  NIBBLE_TRY(const auto add_space_prefix, gguf_bool(header, "tokenizer.ggml.add_space_prefix"));

  Json normalizers = Json::array();
  Json decoders = Json::array({{{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}},
                               {{"type", "ByteFallback"}},
                               {{"type", "Fuse"}}});
  if (add_space_prefix.value_or(true)) {
    normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}});

  Pipeline pipeline;
  pipeline.normalizer = {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}};
  pipeline.post_processor = template_processing(vocabulary, specials.bos, specials.eos);
  pipeline.decoder = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
  const uint64_t unk = vocabulary.unk.value_or(0);
  Json unk_token = unk < vocabulary.tokens.size() ? Json(vocabulary.tokens[unk]) : Json();
  pipeline.model = bpe_model(vocabulary, merges,
                             {.unk_token = std::move(unk_token), .fuse_unk = true, .byte_fallback = true});
  return pipeline;
}

Json tokenizer_config(const Vocabulary& vocabulary, const Json& model_config) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"model_max_length", model_config["max_position_embeddings"]}};
  const auto add = [&](const char* key, std::optional<uint64_t> id) {
    if (id) config[key] = vocabulary.tokens[*id];
  };
  add("bos_token", vocabulary.bos);
  add("eos_token", vocabulary.eos);
  add("unk_token", vocabulary.unk);
  add("pad_token", vocabulary.pad);
  return config;
}

}  // namespace

Expected<std::map<std::string, std::string>> make_gguf_tokenizer(const GgufHeader& header,
                                                                 const GgufConfig& config) {
  std::map<std::string, std::string> texts;
  constexpr std::string_view kModel = "tokenizer.ggml.model";
  NIBBLE_TRY(const auto model, gguf_string(header, kModel));
  if (!model || *model == "none" || *model == "no_vocab") return texts;
  if (*model != "gpt2" && *model != "llama") {
    return fail(ErrorCode::kUnsupported, "tokenizer \"{}\"; gpt2 and llama can be imported", *model)
        .at(kModel)
        .with_fix("Use the model's safetensors files with their tokenizer.json.");
  }
  const bool is_sentencepiece = *model == "llama";
  NIBBLE_TRY(const Vocabulary vocabulary, read_vocabulary(header, config, is_sentencepiece));
  NIBBLE_TRY(Pipeline pipeline, is_sentencepiece ? sentencepiece_pipeline(header, vocabulary)
                                                 : byte_level_pipeline(header, vocabulary));
  const bool strips_white_space = is_sentencepiece && config.architecture->tokens_strip_white_space;
  const Json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", added_tokens(vocabulary, strips_white_space)},
                          {"normalizer", std::move(pipeline.normalizer)},
                          {"pre_tokenizer", std::move(pipeline.pre_tokenizer)},
                          {"post_processor", std::move(pipeline.post_processor)},
                          {"decoder", std::move(pipeline.decoder)},
                          {"model", std::move(pipeline.model)}};
  texts["tokenizer.json"] = dump_json(tokenizer, 1) + "\n";
  texts["tokenizer_config.json"] = dump_json(tokenizer_config(vocabulary, config.config)) + "\n";
  NIBBLE_TRY(auto chat_template, gguf_string(header, "tokenizer.chat_template"));
  if (chat_template) texts["chat_template.jinja"] = std::move(*chat_template);
  return texts;
}

}  // namespace nibble
