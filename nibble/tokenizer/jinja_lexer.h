#ifndef NIBBLE_TOKENIZER_JINJA_LEXER_H_
#define NIBBLE_TOKENIZER_JINJA_LEXER_H_

// Cuts a template into tokens, with the environment of Transformers: trim_blocks (a block tag eats
// the newline behind it) and lstrip_blocks (and the indentation before it).

#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/tokenizer/jinja_value.h"

namespace nibble::jinja {

enum class TokenType {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenType type = TokenType::kEnd;
  std::string text;  // data, name or operator as written; a string without quotes and escapes
  Value number;
  size_t line = 1;

  bool is(TokenType wanted, std::string_view spelling) const { return type == wanted && text == spelling; }
  bool is_name(std::string_view name) const { return is(TokenType::kName, name); }
  bool is_operator(std::string_view op) const { return is(TokenType::kOperator, op); }
};

// The last token is kEnd.
Expected<std::vector<Token>> tokenize(std::string_view source);

// An error in the template's text, at that line.
template <class... Args>
Failure syntax_error(size_t line, fmt::format_string<Args...> what, Args&&... args) {
  return fail(ErrorCode::kInvalidArgument, what, std::forward<Args>(args)...)
      .at(fmt::format("chat template line {}", line));
}

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_LEXER_H_
