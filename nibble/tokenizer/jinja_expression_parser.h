#ifndef NIBBLE_TOKENIZER_JINJA_EXPRESSION_PARSER_H_
#define NIBBLE_TOKENIZER_JINJA_EXPRESSION_PARSER_H_

// The expressions inside the tags of a chat template.

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/tokenizer/jinja_ast.h"
#include "nibble/tokenizer/jinja_lexer.h"

namespace nibble::jinja {

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, size_t max_depth)
      : tokens_(std::move(tokens)), max_depth_(max_depth) {}

 protected:
  const Token& current() const { return tokens_[next_]; }
  const Token& following() const { return tokens_[std::min(next_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return next_ + 1 < tokens_.size() ? tokens_[next_++] : tokens_.back(); }
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  Status expect_operator(std::string_view op);
  Status expect(TokenType type);
  Expected<std::string> expect_name();
  Failure unexpected() const;

  Expected<ExprPtr> parse_expression(bool with_if_else = true);
  // Expressions with commas between them are a tuple. `end`: a name that ends it.
  Expected<ExprPtr> parse_tuple(bool with_if_else = true, std::string_view end = {},
                                bool in_parentheses = false);
  // The filters behind `node`, which is null at the start of a filter block.
  Expected<ExprPtr> parse_filters(ExprPtr node, bool first_without_pipe = false);

  // Counts what recurses: `const Nesting nesting(*this); NIBBLE_RETURN_IF_ERROR(check_depth());`
  struct Nesting {
    explicit Nesting(ExpressionParser& parser) : depth(parser.depth_) { ++depth; }
    ~Nesting() { --depth; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    size_t& depth;
  };
  Status check_depth() const;

  // Names that were read; macros want to know about caller, varargs and kwargs.
  std::vector<Macro*> open_macros_;

 private:
  using Operand = Expected<ExprPtr> (ExpressionParser::*)();

  Expected<ExprPtr> parse_or();
  Expected<ExprPtr> parse_and();
  Expected<ExprPtr> parse_not();
  Expected<ExprPtr> parse_compare();
  Expected<ExprPtr> parse_sum();
  Expected<ExprPtr> parse_concat();
  Expected<ExprPtr> parse_product();
  Expected<ExprPtr> parse_power();
  Expected<ExprPtr> parse_unary() { return parse_signed(true); }
  Expected<ExprPtr> parse_signed(bool with_filters);
  Expected<ExprPtr> parse_primary();
  Expected<ExprPtr> parse_list();
  Expected<ExprPtr> parse_dict();
  Expected<ExprPtr> parse_postfix(ExprPtr node);
  Expected<ExprPtr> parse_filters_and_tests(ExprPtr node);
  Expected<ExprPtr> parse_subscript(ExprPtr node);
  Expected<ExprPtr> parse_call(ExprPtr node);
  Expected<ExprPtr> parse_test(ExprPtr node);
  Expected<Arguments> parse_arguments();
  // operand (op operand)*, flat.
  Expected<ExprPtr> parse_chain(ExprKind kind, std::initializer_list<std::string_view> ops, Operand operand);
  Expected<ExprPtr> parse_names(ExprKind kind, std::string_view name, Operand operand);

  static ExprPtr make(ExprKind kind, size_t line);
  Expected<ExprPtr> finish(ExprPtr node) const;
  void note_name(const std::string& name);

  const std::vector<Token> tokens_;
  const size_t max_depth_;
  size_t next_ = 0;
  size_t depth_ = 0;
};

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_EXPRESSION_PARSER_H_
