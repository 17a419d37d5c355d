// tokenizer.model as Transformers 5 converts it. There are two ways: LlamaTokenizer builds its own pipeline
// and puts the dummy prefix before the first word of a text only; for every other class the model's own
// settings are followed, as SentencePiece itself does.

#include "nibble/tokenizer/convert_sentencepiece.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "nibble/tokenizer/base64.h"
#include "nibble/tokenizer/converted_parts.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

using PieceType = SentencePieceModel::PieceType;

constexpr std::string_view kPieceSpace = "\u2581";

Json replace_string(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

Json replace_regex(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", {{"Regex", from}}}, {"content", to}};
}

Json sequence(std::string_view members, Json list) {
  return {{"type", "Sequence"}, {std::string(members), std::move(list)}};
}

bool is_llama_class(const TokenizerSettings& settings) {
  const std::string name = tokenizer_class(settings.tokenizer_config);
  return (name == "LlamaTokenizer" || name == "CodeLlamaTokenizer") &&
         (settings.model_type.empty() || settings.model_type == "llama");
}

// Every way to join two pieces to a third; [left, right], the ones that apply first in front. `order`: by
// piece; what is smaller goes first.
template <class Order>
Json make_merges(const TokenIds& vocab, const std::vector<bool>& mergeable, const Order& order) {
  using Row =
      std::pair<decltype(order(0, std::string(), std::string())), std::pair<std::string, std::string>>;
  std::vector<Row> rows;
  const auto usable = [&](const std::string& token) {
    const auto found = vocab.find(token);
    return found != vocab.end() && mergeable[static_cast<size_t>(found->second)];
  };
  for (const auto& [token, id] : vocab) {
    if (!mergeable[static_cast<size_t>(id)]) continue;
    for (size_t cut = 1; cut < token.size(); ++cut) {
      if (is_utf8_continuation(token[cut])) continue;
      std::string left = token.substr(0, cut);
      std::string right = token.substr(cut);
      if (!usable(left) || !usable(right)) continue;
      auto rank = order(id, left, right);
      rows.push_back({std::move(rank), {std::move(left), std::move(right)}});
    }
  }
  std::sort(rows.begin(), rows.end());
  Json merges = Json::array();
  for (auto& [rank, pair] : rows) merges.push_back(Json::array({pair.first, pair.second}));
  return merges;
}

Json bpe(const TokenIds& vocab, Json merges, bool byte_fallback, Json unk_token, bool ignore_merges) {
  return {{"type", "BPE"},
          {"vocab", vocab_json(vocab)},
          {"merges", std::move(merges)},
          {"unk_token", std::move(unk_token)},
          {"fuse_unk", true},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", ignore_merges}};
}

// The regular expression that matches any of the texts, the longest first.
std::string any_of(std::vector<std::string> texts) {
  std::stable_sort(texts.begin(), texts.end(),
                   [](const std::string& a, const std::string& b) { return count_utf8(a) > count_utf8(b); });
  std::string pattern;
  for (const std::string& text : texts) {
    if (!pattern.empty()) pattern += '|';
    for (const char c : text) {
      if (std::string_view("\\^$.|?*+()[]{}&#-~ \t\n\r\v\f").find(c) != std::string_view::npos)
        pattern += '\\';
      pattern += c;
    }
  }
  return pattern;
}

Json decoder_of(bool byte_fallback, bool strips_prefix) {
  Json list = Json::array({replace_string(kPieceSpace, " ")});
  if (byte_fallback) list.push_back({{"type", "ByteFallback"}});
  if (byte_fallback || strips_prefix) list.push_back({{"type", "Fuse"}});
  if (strips_prefix) list.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return sequence("decoders", std::move(list));
}

Json metaspace(std::string_view scheme) {
  return {{"type", "Metaspace"}, {"replacement", kPieceSpace}, {"prepend_scheme", scheme}, {"split", false}};
}

// The pieces, where a token of the configuration takes the name of the placeholder that has its id.
TokenIds vocabulary_of(const SentencePieceModel& model, const AddedEntries& added) {
  TokenIds vocab;
  for (size_t id = 0; id < model.pieces.size(); ++id) vocab[model.pieces[id].text] = static_cast<int32_t>(id);
  for (const auto& [id, entry] : added) {
    const std::string name = entry["content"].get<std::string>();
    if (static_cast<size_t>(id) >= model.pieces.size() || vocab.contains(name)) continue;
    vocab.erase(model.pieces[static_cast<size_t>(id)].text);
    vocab[name] = id;
  }
  return vocab;
}

Json unigram(const SentencePieceModel& model, const TokenIds& vocab) {
  Json list = Json::array();
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    list.push_back(Json::array({piece.text, static_cast<double>(piece.score)}));
  }
  for (const auto& [token, id] : vocab) list[static_cast<size_t>(id)][0] = token;  // renamed ones
  return {{"type", "Unigram"},
          {"vocab", std::move(list)},
          {"unk_id", model.unk_id},
          {"byte_fallback", model.byte_fallback}};
}

Json generic_normalizer(const SentencePieceModel& model, bool legacy) {
  Json list = Json::array();
  if (!model.precompiled_charsmap.empty()) {
    list.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(model.precompiled_charsmap)}});
  }
  if (model.remove_extra_whitespaces) {
    list.push_back(replace_regex(R"(\A +| +\z)", ""));
    list.push_back(replace_regex(" {2,}", " "));
  }
  if (model.escape_whitespaces) list.push_back(replace_string(" ", kPieceSpace));
  // Metaspace gives no prefix to a text that begins like one; SentencePiece does.
  if (model.add_dummy_prefix && legacy) {
    list.push_back(replace_regex(fmt::format("\\A{}", kPieceSpace), fmt::format("{0}{0}", kPieceSpace)));
  }
  return sequence("normalizers", std::move(list));
}

}  // namespace

Expected<ConvertedTokenizer> convert_sentencepiece(const SentencePieceModel& model,
                                                   const TokenizerSettings& settings) {
  const bool is_bpe = model.model_type == SentencePieceModel::ModelType::kBpe;
  if (!is_bpe && model.model_type != SentencePieceModel::ModelType::kUnigram) {
    return fail(ErrorCode::kUnsupported, "a SentencePiece model of words or characters is not supported")
        .with_fix("Supported: BPE, Unigram.");
  }
  const bool llama = is_bpe && is_llama_class(settings);
  const Json& config = settings.tokenizer_config;
  NIBBLE_TRY(const bool legacy, bool_field(config, "legacy", !llama));
  NIBBLE_TRY(const bool add_prefix_space, bool_field(config, "add_prefix_space", true));
  NIBBLE_TRY(const bool add_bos, bool_field(config, "add_bos_token", llama));
  NIBBLE_TRY(const bool add_eos, bool_field(config, "add_eos_token", false));

  Json defaults = Json::object();
  if (model.unk_id >= 0) defaults["unk_token"] = model.unk_piece;
  if (model.bos_id >= 0) defaults["bos_token"] = model.bos_piece;
  if (model.eos_id >= 0) defaults["eos_token"] = model.eos_piece;
  const NamedTokens specials = named_special_tokens(settings, defaults);
  NIBBLE_TRY(AddedEntries added, added_token_entries(settings));
  const TokenIds vocab = vocabulary_of(model, added);
  if (!llama && model.add_dummy_prefix) {
    for (auto& [id, entry] : added) entry["normalized"] = false;  // so that text behind gets its own prefix
  }

  std::vector<std::string> user_defined;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    if (piece.type == PieceType::kUserDefined) user_defined.push_back(piece.text);
    const bool control = piece.type == PieceType::kControl;
    if ((control || (llama && piece.type == PieceType::kUserDefined)) && vocab.contains(piece.text)) {
      added.emplace(static_cast<int32_t>(id), added_token_entry(piece.text, control, false));
    }
  }
  const Json added_tokens = make_added_tokens(std::move(added), specials, vocab);

  Json normalizer;
  Json pre_tokenizer;
  Json token_model;
  Json decoder;
  if (llama) {
    const auto order = [](int id, const std::string& left, const std::string& right) {
      return std::tuple(id, count_utf8(left), count_utf8(right));
    };
    const std::vector<bool> all(model.pieces.size(), true);
    token_model = bpe(vocab, make_merges(vocab, all, order), /*byte_fallback=*/true, Json(), false);
    pre_tokenizer = metaspace(!add_prefix_space ? "never" : legacy ? "always" : "first");
    decoder = decoder_of(/*byte_fallback=*/true, add_prefix_space);
  } else {
    if (is_bpe) {
      const auto order = [&](int id, const std::string& left, const std::string& right) {
        return std::tuple(-model.pieces[static_cast<size_t>(id)].score, id, left, right);
      };
      std::vector<bool> normal;
      for (const auto& piece : model.pieces) normal.push_back(piece.type == PieceType::kNormal);
      token_model = bpe(vocab, make_merges(vocab, normal, order), model.byte_fallback, model.unk_piece,
                        !user_defined.empty());
    } else {
      token_model = unigram(model, vocab);
    }
    normalizer = generic_normalizer(model, legacy);
    Json cuts = Json::array();
    if (model.add_dummy_prefix) cuts.push_back(metaspace(legacy ? "always" : "first"));
    if (!user_defined.empty()) {
      cuts.push_back({{"type", "Split"},
                      {"pattern", {{"Regex", any_of(user_defined)}}},
                      {"behavior", "Isolated"},
                      {"invert", false}});
    }
    if (!cuts.empty()) pre_tokenizer = sequence("pretokenizers", std::move(cuts));
    decoder = decoder_of(model.byte_fallback, model.add_dummy_prefix);
  }

  const auto named = [&](const char* name, bool wanted) {
    return wanted ? content_of(specials, name) : std::string();
  };
  ConvertedTokenizer converted;
  converted.tokenizer = tokenizer_json(
      std::move(normalizer), std::move(pre_tokenizer), std::move(token_model),
      surround_with(named("bos_token", add_bos), named("eos_token", add_eos), added_tokens, vocab),
      std::move(decoder), added_tokens);
  converted.tokenizer_config = config_with(specials, config);
  return converted;
}

}  // namespace nibble
