#include "nibble/tokenizer/decoders.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "nibble/tokenizer/byte_level.h"
#include "nibble/tokenizer/json_fields.h"
#include "nibble/tokenizer/regex.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

using Tokens = std::vector<std::string>;
using DecoderStep = std::function<void(Tokens&)>;

// text with every `from` replaced; an empty `from` changes nothing.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t begin = 0;
  for (size_t at = from.empty() ? text.npos : text.find(from); at != text.npos; at = text.find(from, begin)) {
    out += text.substr(begin, at - begin);
    out += to;
    begin = at + from.size();
  }
  out += text.substr(begin);
  return out;
}

void fuse(Tokens& tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  tokens.assign(1, std::move(all));
}

// The bytes that `token` is written for, or its own bytes if it has other characters in it.
std::string bytes_of(const std::string& token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const CodePoint c = decode_utf8(token, i);
    const auto byte = byte_level_byte(c.value);
    if (!byte) return token;
    bytes += static_cast<char>(*byte);
    i += c.size;
  }
  return bytes;
}

Expected<DecoderStep> parse_byte_level_decoder(const Json&) {
  return [](Tokens& tokens) {
    for (std::string& token : tokens) token = bytes_of(token);
    fuse(tokens);
    tokens[0] = to_valid_utf8(tokens[0]);
  };
}

// The byte of "<0x41>".
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  unsigned byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(static_cast<unsigned char>(byte));
}

Expected<DecoderStep> parse_byte_fallback(const Json&) {
  return [](Tokens& tokens) {
    Tokens out;
    std::string bytes;
    const auto flush = [&] {
      if (is_valid_utf8(bytes)) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const auto byte = fallback_byte(token)) {
        bytes += *byte;
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  };
}

Expected<DecoderStep> parse_fuse(const Json&) { return fuse; }

Expected<DecoderStep> parse_strip_decoder(const Json& json) {
  NIBBLE_TRY(const char32_t content, char_field(json, "content"));
  NIBBLE_TRY(const size_t start, size_field(json, "start"));
  NIBBLE_TRY(const size_t stop, size_field(json, "stop"));
  return [content, start, stop](Tokens& tokens) {
    for (std::string& token : tokens) {
      size_t begin = 0;
      for (size_t i = 0; i < start && begin < token.size() && decode_utf8(token, begin).value == content;
           ++i) {
        begin += decode_utf8(token, begin).size;
      }
      size_t end = token.size();
      for (size_t i = 0; i < stop && end > begin; ++i) {
        const CodePoint c = decode_utf8_before(token, end);
        if (c.value != content) break;
        end -= c.size;
      }
      token = token.substr(begin, end - begin);
    }
  };
}

Expected<DecoderStep> parse_replace_decoder(const Json& json) {
  const Json* field = find_field(json, "pattern");
  NIBBLE_TRY(const Pattern pattern, Pattern::parse(field ? *field : Json()));
  NIBBLE_TRY(const std::string content, string_field(json, "content"));
  return [pattern, content](Tokens& tokens) {
    std::vector<Span> spans;
    for (std::string& token : tokens) {
      // A pattern that runs away leaves its token as it is.
      if (!pattern.find_all(token, spans)) continue;
      std::string out;
      for (const Span& span : spans) {
        out += span.matched ? std::string_view(content)
                            : std::string_view(token).substr(span.begin, span.end - span.begin);
      }
      token = std::move(out);
    }
  };
}

Expected<DecoderStep> parse_metaspace_decoder(const Json& json) {
  NIBBLE_TRY(const char32_t replacement_char, char_field(json, "replacement"));
  NIBBLE_TRY(const std::string scheme, string_field(json, "prepend_scheme", "always"));
  NIBBLE_TRY(const bool add_prefix_space, bool_field(json, "add_prefix_space", true));
  std::string replacement;
  append_utf8(replacement, replacement_char);
  const bool drops_first = scheme != "never" && add_prefix_space;
  return [replacement, drops_first](Tokens& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replace_all(tokens[i], replacement, i == 0 && drops_first ? "" : " ");
    }
  };
}

// Undoes the spaces that were put around English punctuation.
std::string clean_up(std::string text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kRules = {{{" .", "."},
                                                                                     {" ?", "?"},
                                                                                     {" !", "!"},
                                                                                     {" ,", ","},
                                                                                     {" ' ", "'"},
                                                                                     {" n't", "n't"},
                                                                                     {" 'm", "'m"},
                                                                                     {" do not", " don't"},
                                                                                     {" 's", "'s"},
                                                                                     {" 've", "'ve"},
                                                                                     {" 're", "'re"}}};
  for (const auto& [from, to] : kRules) text = replace_all(text, from, to);
  return text;
}

Expected<DecoderStep> parse_word_piece(const Json& json) {
  NIBBLE_TRY(const std::string prefix, string_field(json, "prefix"));
  NIBBLE_TRY(const bool cleanup, bool_field(json, "cleanup"));
  return [prefix, cleanup](Tokens& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0)
        tokens[i] = tokens[i].starts_with(prefix) ? tokens[i].substr(prefix.size()) : " " + tokens[i];
      if (cleanup) tokens[i] = clean_up(std::move(tokens[i]));
    }
  };
}

Expected<DecoderStep> parse_bpe_decoder(const Json& json) {
  NIBBLE_TRY(const std::string suffix, string_field(json, "suffix"));
  return [suffix](Tokens& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replace_all(tokens[i], suffix, i + 1 == tokens.size() ? "" : " ");
    }
  };
}

Expected<DecoderStep> parse_ctc(const Json& json) {
  NIBBLE_TRY(const std::string pad, string_field(json, "pad_token"));
  NIBBLE_TRY(const std::string delimiter, string_field(json, "word_delimiter_token"));
  NIBBLE_TRY(const bool cleanup, bool_field(json, "cleanup"));
  return [pad, delimiter, cleanup](Tokens& tokens) {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (std::string& token : tokens) {
      token = replace_all(token, pad, "");
      if (cleanup) token = replace_all(clean_up(std::move(token)), delimiter, " ");
    }
  };
}

constexpr std::array<ComponentParser<DecoderStep>, 9> kDecoders = {{
    {"ByteLevel", parse_byte_level_decoder},
    {"ByteFallback", parse_byte_fallback},
    {"Fuse", parse_fuse},
    {"Strip", parse_strip_decoder},
    {"Replace", parse_replace_decoder},
    {"Metaspace", parse_metaspace_decoder},
    {"WordPiece", parse_word_piece},
    {"BPEDecoder", parse_bpe_decoder},
    {"CTC", parse_ctc},
}};

}  // namespace

Expected<TokenDecoder> TokenDecoder::parse(const Json& json) {
  TokenDecoder decoder;
  decoder.join_with_spaces_ = json.is_null();
  if (json.is_null()) return decoder;
  NIBBLE_RETURN_IF_ERROR(for_each_component(json, "decoders", [&](const Json& one) -> Status {
    NIBBLE_TRY(DecoderStep step, parse_component<DecoderStep>("decoder", one, kDecoders));
    decoder.steps_.push_back(std::move(step));
    if (*find_field(one, "type") == "ByteFallback") decoder.byte_fallback_ = true;
    return {};
  }));
  return decoder;
}

bool TokenDecoder::waits_for_next(std::string_view token) const {
  return byte_fallback_ && fallback_byte(token);
}

std::string TokenDecoder::decode(std::vector<std::string> tokens) const {
  for (const auto& step : steps_) step(tokens);
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && join_with_spaces_) text += ' ';
    text += tokens[i];
  }
  return text;
}

}  // namespace nibble
