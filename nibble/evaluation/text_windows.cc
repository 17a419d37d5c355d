#include "nibble/evaluation/text_windows.h"

#include <algorithm>

#include "nibble/base/sha256.h"

namespace nibble {
namespace {

// Byte positions of the code points of a text, and its size behind them.
std::vector<size_t> code_point_bytes(std::string_view text) {
  std::vector<size_t> begins;
  begins.reserve(text.size() + 1);
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) begins.push_back(i);
  }
  begins.push_back(text.size());
  return begins;
}

// begins[i]: where token i begins in the text, in bytes; the last one is where the text ends.
std::vector<size_t> token_bytes(std::string_view text, const Encoding& encoding) {
  const std::vector<size_t> points = code_point_bytes(text);
  std::vector<size_t> begins;
  begins.reserve(encoding.offsets.size() + 1);
  for (const auto& [begin, end] : encoding.offsets) {
    // Spaces that a token left out belong to the token behind them, so that no byte is lost.
    const size_t at = points[std::min(begin, points.size() - 1)];
    begins.push_back(begins.empty() ? at : std::max(at, begins.back()));
  }
  begins.push_back(text.size());
  return begins;
}

size_t count_words(std::string_view text, size_t begin, size_t end) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  size_t words = 0;
  for (size_t i = begin; i < end; ++i) {
    words += !is_space(text[i]) && (i == 0 || is_space(text[i - 1])) ? 1 : 0;
  }
  return words;
}

// Whether the tokenizer puts its BOS token before a text by itself.
Expected<bool> adds_bos(const Tokenizer& tokenizer) {
  NIBBLE_TRY(const Encoding encoding, tokenizer.encode("a"));
  return !encoding.ids.empty() && tokenizer.bos_token_id() == encoding.ids.front();
}

Status check_tokens(const std::vector<int32_t>& tokens, std::string_view name,
                    const PretrainedConfig& config) {
  if (tokens.size() < 2) {
    return fail(ErrorCode::kInvalidArgument, "{} tokens, but at least 2 are needed", tokens.size())
        .at(name)
        .with_fix("Give a longer text: some thousand words make a number that means something.");
  }
  for (const int32_t token : tokens) {
    if (static_cast<size_t>(token) < config.vocab_size) continue;
    return fail(ErrorCode::kInvalidArgument, "token {} of the text is outside the model's vocabulary of {}",
                token, config.vocab_size)
        .at(name)
        .with_fix("The tokenizer in the model's folder belongs to another model.");
  }
  return {};
}

}  // namespace

Expected<TextWindows> cut_text(std::string_view text, std::string_view name, const TextProtocol& protocol,
                               const ModelFiles& files, const PretrainedConfig& config) {
  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_files(files));
  NIBBLE_TRY(const std::string tokenizer_json, files.read_required("tokenizer.json"));
  EncodeOptions plain;
  plain.add_special_tokens = false;
  plain.with_offsets = true;
  NIBBLE_TRY(Encoding encoding, at(name, tokenizer.encode(text, plain)));
  const std::vector<size_t> begins = token_bytes(text, encoding);
  std::vector<int32_t>& tokens = encoding.ids;
  if (protocol.max_tokens > 0 && tokens.size() > protocol.max_tokens) tokens.resize(protocol.max_tokens);
  NIBBLE_RETURN_IF_ERROR(check_tokens(tokens, name, config));

  TextWindows out;
  out.name = name;
  out.text_sha256 = sha256(text);
  out.tokenizer_sha256 = sha256(tokenizer_json);
  out.tokens = tokens.size();
  NIBBLE_TRY(const bool by_itself, adds_bos(tokenizer));
  out.bos = protocol.bos.value_or(by_itself);
  std::vector<int32_t> front;
  if (out.bos) {
    const std::optional<int32_t> bos = tokenizer.bos_token_id();
    if (!bos) {
      return fail(ErrorCode::kInvalidArgument, "a BOS token is asked for, but the tokenizer has none")
          .at(files.name)
          .with_fix("Leave --bos out.");
    }
    front = {*bos};
  }
  out.window = protocol.window;
  if (config.max_position_embeddings > 0) out.window = std::min(out.window, config.max_position_embeddings);
  if (out.window < front.size() + 2) {
    return fail(ErrorCode::kInvalidArgument, "a window of {} tokens scores nothing", out.window);
  }
  const size_t room = out.window - front.size();
  out.stride = protocol.stride == 0 ? room : protocol.stride;
  if (out.stride > room) {
    return fail(ErrorCode::kInvalidArgument, "a stride of {} would leave out text between windows of {}",
                out.stride, out.window)
        .with_fix("The stride is at most the window.");
  }

  size_t scored_until = 0;  // tokens of the text that are scored, or can't be
  for (size_t begin = 0; begin < tokens.size(); begin += out.stride) {
    const size_t end = std::min(begin + room, tokens.size());
    if (end - begin < room && !out.windows.empty()) break;
    // The very first token of a window has nothing before it, unless there is a BOS.
    const size_t first = std::max(scored_until, begin + (front.empty() ? 1 : 0));
    TextWindow window;
    window.tokens = front;
    for (size_t i = begin; i < end; ++i) window.tokens.push_back(tokens[i]);
    window.first_scored = front.size() + first - begin;
    out.positions += window.num_scored();
    out.bytes += begins[end] - begins[first];
    out.words += count_words(text, begins[first], begins[end]);
    out.windows.push_back(std::move(window));
    scored_until = end;
    if (end == tokens.size()) break;
  }
  return out;
}

Json to_json(const TextWindows& text) {
  return {{"text", text.name},
          {"text_sha256", text.text_sha256},
          {"tokenizer_sha256", text.tokenizer_sha256},
          {"window", text.window},
          {"stride", text.stride},
          {"bos", text.bos},
          {"windows", text.windows.size()},
          {"tokens", text.tokens},
          {"positions", text.positions},
          {"bytes", text.bytes},
          {"words", text.words}};
}

}  // namespace nibble
