#include <utility>

#include "nibble/tokenizer/tokenizer.h"
#include "nibble/tokenizer/tokenizer_state.h"

namespace nibble {

std::string StreamDecoder::push(int32_t id) {
  const Tokenizer::State& state = *tokenizer_.state_;
  const std::string* spelt = state.spelling(id);
  if (!spelt || (skip_special_tokens_ && state.added.is_special(*spelt)))
    return {};  // as decode() drops them
  ids_.push_back(id);
  return state.decoder.waits_for_next(*spelt) ? std::string() : take(/*all=*/false);
}

std::string StreamDecoder::finish() {
  std::string rest = take(/*all=*/true);
  ids_.clear();
  read_ = 0;
  read_text_.clear();
  return rest;
}

std::string StreamDecoder::take(bool all) {
  std::string text = tokenizer_.decode(ids_);
  // U+FFFD at the end may become a character with the next token; a text that has not grown, or
  // that begins in another way, has more to come.
  const bool complete = text.size() > read_text_.size() && !text.ends_with("\xEF\xBF\xBD");
  if ((!all && !complete) || !text.starts_with(read_text_)) return {};
  std::string piece = text.substr(read_text_.size());

  // The new tokens become the context, unless they decode to nothing by themselves: what is done
  // to the first characters of a text would then be done again.
  std::string context = tokenizer_.decode(std::span(ids_).subspan(read_));
  if (!context.empty()) {
    ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(read_));
    text = std::move(context);
  }
  read_ = ids_.size();
  read_text_ = std::move(text);
  return piece;
}

}  // namespace nibble
