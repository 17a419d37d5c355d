#include "nibble/tokenizer/pre_tokenizers.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/regex.h"
#include "nibble/tokenizer/script_runs.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

using PreTokenizerStep = std::function<Status(std::vector<Piece>&)>;
using CharPredicate = bool (*)(char32_t);

// What becomes of the delimiters that a pattern finds.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors = {{
    {"Removed", SplitBehavior::kRemoved},
    {"Isolated", SplitBehavior::kIsolated},
    {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
    {"MergedWithNext", SplitBehavior::kMergedWithNext},
    {"Contiguous", SplitBehavior::kContiguous},
}};

Expected<SplitBehavior> behavior_field(const Json& json, std::optional<std::string> fallback = {}) {
  NIBBLE_TRY(const std::string name, string_field(json, "behavior", std::move(fallback)));
  for (const auto& [known, behavior] : kBehaviors) {
    if (known == name) return behavior;
  }
  return fail(ErrorCode::kUnsupported, "behavior \"{}\" is not supported", name)
      .with_fix("Supported: Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous.");
}

// Joins neighbours and leaves out what the behavior removes.
void apply_behavior(SplitBehavior behavior, std::vector<Span>& spans) {
  if (behavior == SplitBehavior::kIsolated) return;
  std::vector<Span> out;
  out.reserve(spans.size());
  bool previous_matched = false;
  switch (behavior) {
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kRemoved:
      std::copy_if(spans.begin(), spans.end(), std::back_inserter(out),
                   [](const Span& s) { return !s.matched; });
      break;
    case SplitBehavior::kContiguous:
      for (const Span& span : spans) {
        if (span.matched == previous_matched && !out.empty()) {
          out.back().end = span.end;
        } else {
          out.push_back(span);
        }
        previous_matched = span.matched;
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Span& span : spans) {
        if (span.matched && !previous_matched && !out.empty()) {
          out.back().end = span.end;
        } else {
          out.push_back(span);
        }
        previous_matched = span.matched;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        if (span->matched && !previous_matched && !out.empty()) {
          out.back().begin = span->begin;
        } else {
          out.push_back(*span);
        }
        previous_matched = span->matched;
      }
      std::reverse(out.begin(), out.end());
      break;
  }
  spans = std::move(out);
}

// Calls cut(text, spans) for every piece of text and replaces the piece by the spans that it gives.
template <class Cut>
Status split_pieces(std::vector<Piece>& pieces, const Cut& cut) {
  std::vector<Piece> out;
  out.reserve(pieces.size());
  std::vector<Span> spans;
  for (Piece& piece : pieces) {
    if (piece.added_id != Piece::kText) {
      out.push_back(std::move(piece));
      continue;
    }
    NIBBLE_RETURN_IF_ERROR(cut(piece.text, spans));
    if (spans.size() == 1 && spans[0].begin == 0 && spans[0].end == piece.text.text().size()) {
      if (!piece.text.empty()) out.push_back(std::move(piece));
      continue;
    }
    for (const Span& span : spans) {
      if (span.begin < span.end) out.emplace_back(piece.text.slice(span.begin, span.end), Piece::kText);
    }
  }
  pieces = std::move(out);
  return {};
}

void whole_text(const AlignedText& text, std::vector<Span>& spans) {
  spans.assign(1, {0, text.text().size(), false});
}

PreTokenizerStep split_step(const Pattern& pattern, SplitBehavior behavior, bool invert) {
  return [pattern, behavior, invert](std::vector<Piece>& pieces) -> Status {
    return split_pieces(pieces, [&](const AlignedText& text, std::vector<Span>& spans) -> Status {
      NIBBLE_RETURN_IF_ERROR(pattern.find_all(text.text(), spans));
      for (Span& span : spans) span.matched = span.matched != invert;
      apply_behavior(behavior, spans);
      return {};
    });
  };
}

// Splits at single characters.
PreTokenizerStep split_at(CharPredicate is_delimiter, SplitBehavior behavior) {
  return [is_delimiter, behavior](std::vector<Piece>& pieces) -> Status {
    return split_pieces(pieces, [&](const AlignedText& aligned, std::vector<Span>& spans) -> Status {
      const std::string& text = aligned.text();
      spans.clear();
      size_t covered = 0;
      for (size_t i = 0; i < text.size();) {
        const CodePoint c = decode_utf8(text, i);
        if (is_delimiter(c.value)) {
          if (covered < i) spans.push_back({covered, i, false});
          covered = i + c.size;
          spans.push_back({i, covered, true});
        }
        i += c.size;
      }
      if (covered < text.size()) spans.push_back({covered, text.size(), false});
      apply_behavior(behavior, spans);
      return {};
    });
  };
}

Expected<PreTokenizerStep> parse_byte_level_pre_tokenizer(const Json& json) {
  // GPT-2's words.
  constexpr std::string_view kWords =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  NIBBLE_TRY(const bool add_prefix_space, bool_field(json, "add_prefix_space"));
  NIBBLE_TRY(const bool use_regex, bool_field(json, "use_regex", true));
  NIBBLE_RETURN_IF_ERROR(bool_field(json, "trim_offsets", true));  // the post-processor trims
  NIBBLE_TRY(const Regex words, Regex::compile(kWords));
  return [add_prefix_space, use_regex, words](std::vector<Piece>& pieces) -> Status {
    NIBBLE_RETURN_IF_ERROR(split_pieces(pieces, [&](AlignedText& text, std::vector<Span>& spans) -> Status {
      if (add_prefix_space && !text.text().starts_with(' ')) text.prepend(" ");
      whole_text(text, spans);
      return use_regex ? words.find_all(text.text(), spans) : Status();
    }));
    for (Piece& piece : pieces) {
      if (piece.added_id == Piece::kText) piece.text.to_byte_level();
    }
    return {};
  };
}

Expected<PreTokenizerStep> parse_split(const Json& json) {
  const Json* field = find_field(json, "pattern");
  NIBBLE_TRY(const Pattern pattern, Pattern::parse(field ? *field : Json()));
  NIBBLE_TRY(const SplitBehavior behavior, behavior_field(json));
  NIBBLE_TRY(const bool invert, bool_field(json, "invert"));
  return split_step(pattern, behavior, invert);
}

Expected<PreTokenizerStep> parse_digits(const Json& json) {
  NIBBLE_TRY(const bool individual, bool_field(json, "individual_digits"));
  return split_at(is_numeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

Expected<PreTokenizerStep> parse_punctuation(const Json& json) {
  NIBBLE_TRY(const SplitBehavior behavior, behavior_field(json, "Isolated"));
  return split_at(is_punctuation, behavior);
}

Expected<PreTokenizerStep> parse_whitespace_split(const Json&) {
  return split_at(is_whitespace, SplitBehavior::kRemoved);
}

Expected<PreTokenizerStep> parse_whitespace(const Json&) {
  // Runs of word characters, and runs of what is neither that nor a space.
  return [](std::vector<Piece>& pieces) -> Status {
    return split_pieces(pieces, [](const AlignedText& aligned, std::vector<Span>& spans) -> Status {
      const std::string& text = aligned.text();
      spans.clear();
      enum class Kind { kSpace, kWord, kOther } last = Kind::kSpace;
      for (size_t i = 0; i < text.size();) {
        const CodePoint c = decode_utf8(text, i);
        const Kind kind = is_word(c.value)         ? Kind::kWord
                          : is_whitespace(c.value) ? Kind::kSpace
                                                   : Kind::kOther;
        if (kind != Kind::kSpace) {
          if (kind != last) spans.push_back({i, i, false});
          spans.back().end = i + c.size;
        }
        last = kind;
        i += c.size;
      }
      return {};
    });
  };
}

Expected<PreTokenizerStep> parse_metaspace_pre_tokenizer(const Json& json) {
  enum class Prepend { kAlways, kFirst, kNever };
  constexpr std::array<std::pair<std::string_view, Prepend>, 3> kSchemes = {
      {{"always", Prepend::kAlways}, {"first", Prepend::kFirst}, {"never", Prepend::kNever}}};
  NIBBLE_TRY(const char32_t replacement_char, char_field(json, "replacement"));
  NIBBLE_TRY(const std::string scheme, string_field(json, "prepend_scheme", "always"));
  NIBBLE_TRY(const bool split, bool_field(json, "split", true));
  NIBBLE_TRY(const bool add_prefix_space,
             bool_field(json, "add_prefix_space", scheme != "never"));  // older files
  const auto known =
      std::find_if(kSchemes.begin(), kSchemes.end(), [&](const auto& row) { return row.first == scheme; });
  if (known == kSchemes.end()) {
    return fail(ErrorCode::kUnsupported, "prepend_scheme \"{}\" is not supported", scheme)
        .with_fix("Supported: always, first, never.");
  }
  if (!add_prefix_space && known->second != Prepend::kNever && find_field(json, "prepend_scheme")) {
    return fail(ErrorCode::kDataLoss, "add_prefix_space is false, but prepend_scheme is \"{}\"", scheme);
  }
  const Prepend prepend = add_prefix_space ? known->second : Prepend::kNever;
  std::string replacement;
  append_utf8(replacement, replacement_char);
  return [prepend, split, replacement](std::vector<Piece>& pieces) -> Status {
    const Pattern space = Pattern::of_string(" ");
    const Pattern delimiter = Pattern::of_string(replacement);
    return split_pieces(pieces, [&](AlignedText& text, std::vector<Span>& spans) -> Status {
      NIBBLE_RETURN_IF_ERROR(space.find_all(text.text(), spans));
      NIBBLE_RETURN_IF_ERROR(text.replace(spans, replacement));
      if (prepend == Prepend::kAlways || (prepend == Prepend::kFirst && text.input_begin() == 0)) {
        if (!text.text().starts_with(replacement)) text.prepend(replacement);
      }
      whole_text(text, spans);
      if (!split) return {};
      NIBBLE_RETURN_IF_ERROR(delimiter.find_all(text.text(), spans));
      apply_behavior(SplitBehavior::kMergedWithNext, spans);
      return {};
    });
  };
}

Expected<PreTokenizerStep> parse_bert_pre_tokenizer(const Json&) {
  return [spaces = split_at(is_whitespace, SplitBehavior::kRemoved),
          marks = split_at(is_punctuation, SplitBehavior::kIsolated)](std::vector<Piece>& pieces) -> Status {
    NIBBLE_RETURN_IF_ERROR(spaces(pieces));
    return marks(pieces);
  };
}

Expected<PreTokenizerStep> parse_char_delimiter_split(const Json& json) {
  NIBBLE_TRY(const char32_t delimiter, char_field(json, "delimiter"));
  std::string text;
  append_utf8(text, delimiter);
  return split_step(Pattern::of_string(std::move(text)), SplitBehavior::kRemoved, /*invert=*/false);
}

// Words of `length` characters, whatever they are.
Expected<PreTokenizerStep> parse_fixed_length(const Json& json) {
  NIBBLE_TRY(const size_t length, size_field(json, "length", 5));
  if (length == 0) return fail(ErrorCode::kDataLoss, "\"length\" is 0");
  return [length](std::vector<Piece>& pieces) -> Status {
    return split_pieces(pieces, [&](const AlignedText& aligned, std::vector<Span>& spans) -> Status {
      const std::string& text = aligned.text();
      spans.clear();
      size_t count = 0;
      for (size_t i = 0; i < text.size(); ++count) {
        const size_t end = i + decode_utf8(text, i).size;
        if (count % length == 0) spans.push_back({i, i, false});
        spans.back().end = end;
        i = end;
      }
      return {};
    });
  };
}

// A new word wherever the script changes. Hiragana, Katakana and Han count as one; a space, and what is
// not assigned, go with the word before it.
Expected<PreTokenizerStep> parse_unicode_scripts(const Json&) {
  NIBBLE_TRY(const Regex words, script_runs());
  return split_step(Pattern::of_regex(words), SplitBehavior::kIsolated, /*invert=*/false);
}

constexpr std::array<ComponentParser<PreTokenizerStep>, 11> kPreTokenizers = {{
    {"ByteLevel", parse_byte_level_pre_tokenizer},
    {"Split", parse_split},
    {"Digits", parse_digits},
    {"Metaspace", parse_metaspace_pre_tokenizer},
    {"Whitespace", parse_whitespace},
    {"WhitespaceSplit", parse_whitespace_split},
    {"Punctuation", parse_punctuation},
    {"BertPreTokenizer", parse_bert_pre_tokenizer},
    {"CharDelimiterSplit", parse_char_delimiter_split},
    {"FixedLength", parse_fixed_length},
    {"UnicodeScripts", parse_unicode_scripts},
}};

}  // namespace

Expected<PreTokenizer> PreTokenizer::parse(const Json& json) {
  PreTokenizer pre_tokenizer;
  if (json.is_null()) return pre_tokenizer;
  NIBBLE_RETURN_IF_ERROR(for_each_component(json, "pretokenizers", [&](const Json& one) -> Status {
    NIBBLE_TRY(PreTokenizerStep step,
               parse_component<PreTokenizerStep>("pre_tokenizer", one, kPreTokenizers));
    pre_tokenizer.steps_.push_back(std::move(step));
    const Json* scheme = find_field(one, "prepend_scheme");
    if (scheme && *scheme == "first") pre_tokenizer.needs_input_ranges_ = true;
    return {};
  }));
  return pre_tokenizer;
}

Status PreTokenizer::apply(std::vector<Piece>& pieces) const {
  for (const auto& step : steps_) NIBBLE_RETURN_IF_ERROR(step(pieces));
  return {};
}

}  // namespace nibble
