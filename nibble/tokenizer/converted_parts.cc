#include "nibble/tokenizer/converted_parts.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/vocabulary.h"

namespace nibble {
namespace {

bool flag(const Json& json, std::string_view name, bool fallback) {
  const Json* field = find_field(json, name);
  return field && field->is_boolean() ? field->get<bool>() : fallback;
}

// A token as a configuration gives it: a string, or an object with "content".
Json entry_of(const Json& token) {
  if (token.is_string()) return added_token_entry(token.get<std::string>(), true, false);
  const Json* content = find_field(token, "content");
  if (!content || !content->is_string()) return Json();
  Json entry = added_token_entry(content->get<std::string>(), true, flag(token, "normalized", false));
  for (const char* name : {"single_word", "lstrip", "rstrip"}) entry[name] = flag(token, name, false);
  return entry;
}

}  // namespace

Json vocab_json(const TokenIds& vocab) {
  std::vector<std::pair<int32_t, const std::string*>> rows;
  rows.reserve(vocab.size());
  for (const auto& [token, id] : vocab) rows.emplace_back(id, &token);
  std::sort(rows.begin(), rows.end());
  Json::object_t object;
  object.reserve(rows.size());
  for (const auto& [id, token] : rows) object.push_back({*token, id});
  return object;
}

std::string tokenizer_class(const Json& tokenizer_config) {
  const Json* field = find_field(tokenizer_config, "tokenizer_class");
  if (!field || !field->is_string()) return {};
  std::string name = field->get<std::string>();
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

Json added_token_entry(std::string_view content, bool special, bool normalized) {
  return {{"content", content}, {"single_word", false},     {"lstrip", false},
          {"rstrip", false},    {"normalized", normalized}, {"special", special}};
}

NamedTokens named_special_tokens(const TokenizerSettings& settings, const Json& defaults) {
  NamedTokens tokens;
  for (const Json* json : {&settings.tokenizer_config, &settings.special_tokens_map, &defaults}) {
    if (!json->is_object()) continue;
    for (const auto& [name, value] : json->items()) {
      if (!name.ends_with("_token") || value.is_boolean()) continue;
      // "pad_token": null means that there is none.
      if (json == &defaults && settings.tokenizer_config.is_object() &&
          settings.tokenizer_config.contains(name)) {
        continue;
      }
      Json entry = entry_of(value);
      if (!entry.is_null()) tokens.emplace(name, std::move(entry));
    }
  }
  return tokens;
}

Expected<AddedEntries> added_token_entries(const TokenizerSettings& settings) {
  AddedEntries entries;
  if (const Json* decoder = find_field(settings.tokenizer_config, "added_tokens_decoder")) {
    if (!decoder->is_object()) {
      return fail(ErrorCode::kDataLoss, "\"added_tokens_decoder\" must be an object, not {}",
                  json_type_name(*decoder));
    }
    for (const auto& [key, token] : decoder->items()) {
      int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      Json entry = entry_of(token);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kMaxTokenId ||
          entry.is_null()) {
        return fail(ErrorCode::kDataLoss, "\"added_tokens_decoder\" has the entry \"{}\"", key);
      }
      entry["special"] = flag(token, "special", false);
      entry["normalized"] = flag(token, "normalized", !flag(token, "special", false));
      entries.emplace(id, std::move(entry));
    }
    return entries;
  }
  if (settings.added_tokens.is_null()) return entries;
  if (!settings.added_tokens.is_object()) {
    return fail(ErrorCode::kDataLoss, "must hold an object, not {}", json_type_name(settings.added_tokens))
        .at("added_tokens.json");
  }
  const NamedTokens named = named_special_tokens(settings, Json());
  for (const auto& [content, id] : settings.added_tokens.items()) {
    if (!id.is_number_integer() || id < 0 || id > kMaxTokenId) {
      return fail(ErrorCode::kDataLoss, "the token \"{}\" has the id {}", content, id.dump())
          .at("added_tokens.json");
    }
    const std::string& spelling = content;
    const bool special = std::any_of(named.begin(), named.end(),
                                     [&](const auto& one) { return one.second["content"] == spelling; });
    entries.emplace(id.get<int32_t>(), added_token_entry(content, special, !special));
  }
  return entries;
}

Json make_added_tokens(AddedEntries found, const NamedTokens& specials, const TokenIds& vocab) {
  int32_t next_id = 0;
  for (const auto& [token, id] : vocab) next_id = std::max(next_id, id + 1);
  if (!found.empty()) next_id = std::max(next_id, found.rbegin()->first + 1);
  for (const auto& [name, entry] : specials) {
    const std::string content = entry["content"].get<std::string>();
    const auto listed =
        std::find_if(found.begin(), found.end(), [&](auto& one) { return one.second["content"] == content; });
    if (listed != found.end()) {
      listed->second["special"] = true;
      continue;
    }
    const auto known = vocab.find(content);
    found.emplace(known != vocab.end() ? known->second : next_id++, entry);
  }
  Json list = Json::array();
  for (auto& [id, entry] : found) {
    entry["id"] = id;
    list.push_back(std::move(entry));
  }
  return list;
}

Json surround_with(const std::string& first, const std::string& last, const Json& added_tokens,
                   const TokenIds& vocab) {
  Json special_tokens = Json::object();
  Json single = Json::array();
  const auto add = [&](const std::string& token) {
    if (token.empty()) return;
    const auto known = vocab.find(token);
    Json id = known != vocab.end() ? Json(known->second) : Json();
    for (const Json& entry : added_tokens) {
      if (entry["content"] == token) id = entry["id"];
    }
    if (id.is_null()) return;
    special_tokens[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
  };
  add(first);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(last);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", single},
          {"special_tokens", special_tokens}};
}

std::string content_of(const NamedTokens& tokens, const std::string& name) {
  const auto found = tokens.find(name);
  return found == tokens.end() ? std::string() : found->second["content"].get<std::string>();
}

Json config_with(const NamedTokens& tokens, const Json& tokenizer_config) {
  Json config = tokenizer_config.is_object() ? tokenizer_config : Json::object();
  for (const auto& [name, entry] : tokens) {
    if (!config.contains(name)) config[name] = entry["content"];
  }
  return config;
}

Json tokenizer_json(Json normalizer, Json pre_tokenizer, Json model, Json post_processor, Json decoder,
                    Json added_tokens) {
  return {{"version", "1.0"},
          {"added_tokens", std::move(added_tokens)},
          {"normalizer", std::move(normalizer)},
          {"pre_tokenizer", std::move(pre_tokenizer)},
          {"model", std::move(model)},
          {"post_processor", std::move(post_processor)},
          {"decoder", std::move(decoder)}};
}

}  // namespace nibble
