#include "nibble/tokenizer/post_processors.h"

#include <algorithm>
#include <array>
#include <string>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/unicode.h"
#include "nibble/tokenizer/vocabulary.h"

namespace nibble {
namespace {

using PostProcessorStep = std::function<void(TokenList&, bool)>;

// Ids that are put around or between, all with the offsets (0, 0), or the text's own.
struct TemplatePiece {
  bool is_text = false;
  std::vector<int32_t> ids = {};
  std::vector<OuterSpaces> spaces = {};
};

void apply_template(const std::vector<TemplatePiece>& pieces, TokenList& tokens, bool add_special_tokens) {
  TokenList out;
  out.with_offsets = tokens.with_offsets;
  for (const TemplatePiece& piece : pieces) {
    if (piece.is_text) {
      out.ids.insert(out.ids.end(), tokens.ids.begin(), tokens.ids.end());
      out.offsets.insert(out.offsets.end(), tokens.offsets.begin(), tokens.offsets.end());
      out.spaces.insert(out.spaces.end(), tokens.spaces.begin(), tokens.spaces.end());
    } else if (add_special_tokens) {
      out.ids.insert(out.ids.end(), piece.ids.begin(), piece.ids.end());
      if (!tokens.with_offsets) continue;
      out.offsets.resize(out.ids.size());
      out.spaces.insert(out.spaces.end(), piece.spaces.begin(), piece.spaces.end());
    }
  }
  tokens = std::move(out);
}

// Spaces at the ends of a token do not count as its text.
void trim_offsets(TokenList& tokens, bool add_prefix_space) {
  for (size_t i = 0; i < tokens.offsets.size(); ++i) {
    auto& [begin, end] = tokens.offsets[i];
    auto [leading, trailing] = tokens.spaces[i];
    // A single space at the very beginning was not in the text: add_prefix_space put it there.
    if ((i == 0 || begin == 0) && add_prefix_space && leading == 1) leading = 0;
    begin = std::min(begin + leading, end);
    if (end >= trailing) end = std::max(end - trailing, begin);
  }
}

Expected<PostProcessorStep> parse_byte_level_processor(const Json& json) {
  NIBBLE_TRY(const bool trim, bool_field(json, "trim_offsets"));
  NIBBLE_TRY(const bool add_prefix_space, bool_field(json, "add_prefix_space"));
  return [trim, add_prefix_space](TokenList& tokens, bool) {
    if (trim) trim_offsets(tokens, add_prefix_space);
  };
}

Expected<int32_t> checked_id(const Json& id) {
  if (!id.is_number_integer() || id < 0 || id > kMaxTokenId) {
    return fail(ErrorCode::kDataLoss, "the id {} is not one from 0 to {}", id.dump(), kMaxTokenId);
  }
  return id.get<int32_t>();
}

// {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
Expected<TemplatePiece> parse_special_token(const Json& json) {
  TemplatePiece piece;
  NIBBLE_TRY(const Json* ids, list_field(json, "ids"));
  NIBBLE_TRY(const Json* tokens, list_field(json, "tokens"));
  if (ids->size() != tokens->size()) {
    return fail(ErrorCode::kDataLoss, "{} ids, but {} tokens", ids->size(), tokens->size());
  }
  for (size_t i = 0; i < ids->size(); ++i) {
    NIBBLE_TRY(const int32_t id, checked_id((*ids)[i]));
    if (!(*tokens)[i].is_string()) return fail(ErrorCode::kDataLoss, "tokens[{}] is not a string", i);
    piece.ids.push_back(id);
    piece.spaces.push_back(outer_spaces((*tokens)[i].get_ref<const std::string&>()));
  }
  return piece;
}

Expected<std::vector<TemplatePiece>> parse_template(const Json& json, std::string_view name) {
  NIBBLE_TRY(const Json* list, list_field(json, name));
  const Json* special_tokens = find_field(json, "special_tokens");
  std::vector<TemplatePiece> pieces;
  for (const Json& item : *list) {
    const Json* sequence = find_field(item, "Sequence");
    const Json* special = find_field(item, "SpecialToken");
    const Json* body = sequence ? sequence : special;
    if (!body)
      return fail(ErrorCode::kDataLoss, "\"{}\" has a part that is no Sequence and no SpecialToken", name);
    NIBBLE_TRY(const std::string id, string_field(*body, "id"));
    if (sequence) {
      const std::string_view which = id;
      if (which != "A" && (which != "B" || name == "single")) {
        return fail(ErrorCode::kDataLoss, "\"{}\" uses the sequence \"{}\"", name, id);
      }
      pieces.push_back({.is_text = true});
      continue;
    }
    const Json* entry = special_tokens ? find_field(*special_tokens, id) : nullptr;
    if (!entry) {
      return fail(ErrorCode::kDataLoss, "\"{}\" uses \"{}\", which \"special_tokens\" does not define", name,
                  id);
    }
    NIBBLE_TRY(TemplatePiece piece, at(id, parse_special_token(*entry)));
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

Expected<PostProcessorStep> parse_template_processing(const Json& json) {
  NIBBLE_TRY(const std::vector<TemplatePiece> pieces, parse_template(json, "single"));
  NIBBLE_RETURN_IF_ERROR(parse_template(json, "pair"));  // never applied, but a fault in it is one
  return [pieces](TokenList& tokens, bool add_special_tokens) {
    apply_template(pieces, tokens, add_special_tokens);
  };
}

// ["</s>", 2]
Expected<TemplatePiece> parse_token_pair(const Json& json, std::string_view name) {
  NIBBLE_TRY(const Json* pair, list_field(json, name));
  if (pair->size() != 2 || !(*pair)[0].is_string()) {
    return fail(ErrorCode::kDataLoss, "\"{}\" must be a token and its id", name);
  }
  NIBBLE_TRY(const int32_t id, at(name, checked_id((*pair)[1])));
  return TemplatePiece{.ids = {id}, .spaces = {outer_spaces((*pair)[0].get_ref<const std::string&>())}};
}

// cls text sep
Expected<std::vector<TemplatePiece>> parse_cls_sep(const Json& json) {
  NIBBLE_TRY(TemplatePiece cls, parse_token_pair(json, "cls"));
  NIBBLE_TRY(TemplatePiece sep, parse_token_pair(json, "sep"));
  return std::vector<TemplatePiece>{std::move(cls), {.is_text = true}, std::move(sep)};
}

Expected<PostProcessorStep> parse_bert_processor(const Json& json) {
  NIBBLE_TRY(const std::vector<TemplatePiece> pieces, parse_cls_sep(json));
  return [pieces](TokenList& tokens, bool add_special_tokens) {
    apply_template(pieces, tokens, add_special_tokens);
  };
}

Expected<PostProcessorStep> parse_roberta(const Json& json) {
  NIBBLE_TRY(const std::vector<TemplatePiece> pieces, parse_cls_sep(json));
  NIBBLE_TRY(const PostProcessorStep trim, parse_byte_level_processor(json));
  return [pieces, trim](TokenList& tokens, bool add_special_tokens) {
    trim(tokens, add_special_tokens);
    apply_template(pieces, tokens, add_special_tokens);
  };
}

constexpr std::array<ComponentParser<PostProcessorStep>, 4> kPostProcessors = {{
    {"ByteLevel", parse_byte_level_processor},
    {"TemplateProcessing", parse_template_processing},
    {"RobertaProcessing", parse_roberta},
    {"BertProcessing", parse_bert_processor},
}};

}  // namespace

OuterSpaces outer_spaces(std::string_view token) {
  const auto is_space = [](char32_t c) { return c == 0x120 || is_whitespace(c); };
  OuterSpaces spaces;
  for (size_t i = 0; i < token.size() && is_space(decode_utf8(token, i).value);
       i += decode_utf8(token, i).size) {
    ++spaces.leading;
  }
  for (size_t end = token.size(); end > 0;) {
    const CodePoint c = decode_utf8_before(token, end);
    if (!is_space(c.value)) break;
    ++spaces.trailing;
    end -= c.size;
  }
  return spaces;
}

Expected<PostProcessor> PostProcessor::parse(const Json& json) {
  PostProcessor processor;
  if (json.is_null()) return processor;
  NIBBLE_RETURN_IF_ERROR(for_each_component(json, "processors", [&](const Json& one) -> Status {
    NIBBLE_TRY(PostProcessorStep step,
               parse_component<PostProcessorStep>("post_processor", one, kPostProcessors));
    processor.steps_.push_back(std::move(step));
    return {};
  }));
  return processor;
}

PostProcessor PostProcessor::bos_eos(std::vector<int32_t> bos, std::vector<int32_t> eos) {
  std::vector<TemplatePiece> pieces(3);
  pieces[0] = {.spaces = std::vector<OuterSpaces>(bos.size())};
  pieces[0].ids = std::move(bos);
  pieces[1].is_text = true;
  pieces[2] = {.spaces = std::vector<OuterSpaces>(eos.size())};
  pieces[2].ids = std::move(eos);
  PostProcessor processor;
  processor.steps_.emplace_back([pieces](TokenList& tokens, bool add_special_tokens) {
    apply_template(pieces, tokens, add_special_tokens);
  });
  return processor;
}

void PostProcessor::apply(TokenList& tokens, bool add_special_tokens) const {
  for (const auto& step : steps_) step(tokens, add_special_tokens);
}

}  // namespace nibble
