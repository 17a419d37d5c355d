#include "nibble/tokenizer/jinja_expression_parser.h"

#include <algorithm>

namespace nibble::jinja {
namespace {

// A tree may be higher than what the author nested: x.a.b.c is three nodes on top of each other.
constexpr size_t kHeightPerDepth = 2;

std::string describe(const Token& token) {
  return token.type == TokenType::kEnd ? token.text : python_quoted(token.text);
}

}  // namespace

Failure ExpressionParser::unexpected() const {
  return syntax_error(current().line, "unexpected {}", describe(current()));
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  take();
  return true;
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  take();
  return true;
}

Status ExpressionParser::expect_operator(std::string_view op) {
  if (skip_operator(op)) return {};
  return syntax_error(current().line, "expected '{}', got {}", op, describe(current()));
}

Status ExpressionParser::expect(TokenType type) {
  if (current().type == type) {
    take();
    return {};
  }
  const std::string_view what = type == TokenType::kBlockEnd      ? "%}"
                                : type == TokenType::kVariableEnd ? "}}"
                                                                  : "a name";
  return syntax_error(current().line, "expected {}, got {}", what, describe(current()));
}

Expected<std::string> ExpressionParser::expect_name() {
  const Token& token = current();
  NIBBLE_RETURN_IF_ERROR(expect(TokenType::kName));
  return token.text;
}

Status ExpressionParser::check_depth() const {
  if (depth_ <= max_depth_) return {};
  return syntax_error(current().line, "blocks or brackets are nested more than {} deep", max_depth_);
}

ExprPtr ExpressionParser::make(ExprKind kind, size_t line) {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

Expected<ExprPtr> ExpressionParser::finish(ExprPtr node) const {
  const auto raise_height = [&](const ExprPtr& child) {
    if (child) node->height = std::max(node->height, child->height + 1);
  };
  std::for_each(node->children.begin(), node->children.end(), raise_height);
  std::for_each(node->arguments.positional.begin(), node->arguments.positional.end(), raise_height);
  for (const auto& argument : node->arguments.named) raise_height(argument.second);
  raise_height(node->arguments.star);
  raise_height(node->arguments.double_star);
  if (node->height <= max_depth_ * kHeightPerDepth) return node;
  return syntax_error(node->line, "an expression is nested more than {} deep", max_depth_ * kHeightPerDepth);
}

void ExpressionParser::note_name(const std::string& name) {
  for (Macro* macro : open_macros_) {
    if (name == "caller") macro->uses_caller = true;
    if (name == "varargs") macro->uses_varargs = true;
    if (name == "kwargs") macro->uses_kwargs = true;
  }
}

Expected<ExprPtr> ExpressionParser::parse_expression(bool with_if_else) {
  const Nesting nesting(*this);
  NIBBLE_RETURN_IF_ERROR(check_depth());
  const size_t line = current().line;
  NIBBLE_TRY(ExprPtr value, parse_or());
  while (with_if_else && skip_name("if")) {
    ExprPtr node = make(ExprKind::kIfElse, line);
    node->children.push_back(std::move(value));
    NIBBLE_TRY(ExprPtr condition, parse_or());
    node->children.push_back(std::move(condition));
    ExprPtr other;
    if (skip_name("else")) {
      NIBBLE_TRY(other, parse_expression());
    }
    node->children.push_back(std::move(other));
    NIBBLE_TRY(value, finish(std::move(node)));
  }
  return value;
}

Expected<ExprPtr> ExpressionParser::parse_tuple(bool with_if_else, std::string_view end,
                                                bool in_parentheses) {
  ExprPtr tuple = make(ExprKind::kTuple, current().line);
  bool is_tuple = false;
  while (true) {
    const TokenType type = current().type;
    if (type == TokenType::kVariableEnd || type == TokenType::kBlockEnd || current().is_operator(")") ||
        (!end.empty() && current().is_name(end))) {
      break;
    }
    NIBBLE_TRY(ExprPtr item, parse_expression(with_if_else));
    tuple->children.push_back(std::move(item));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!tuple->children.empty()) return std::move(tuple->children[0]);
    if (!in_parentheses) {
      return syntax_error(current().line, "expected an expression, got {}", describe(current()));
    }
  }
  return finish(std::move(tuple));
}

Expected<ExprPtr> ExpressionParser::parse_chain(ExprKind kind, std::initializer_list<std::string_view> ops,
                                                Operand operand) {
  ExprPtr chain = make(kind, current().line);
  while (true) {
    NIBBLE_TRY(ExprPtr child, (this->*operand)());
    chain->children.push_back(std::move(child));
    const auto is_current = [&](std::string_view op) { return current().is_operator(op); };
    if (kind == ExprKind::kCompare && current().is_name("in")) {
      chain->ops.push_back("in");
    } else if (kind == ExprKind::kCompare && current().is_name("not") && following().is_name("in")) {
      take();
      chain->ops.push_back("not in");
    } else if (std::any_of(ops.begin(), ops.end(), is_current)) {
      chain->ops.push_back(current().text);
    } else {
      break;
    }
    take();
  }
  if (chain->children.size() == 1) return std::move(chain->children[0]);
  return finish(std::move(chain));
}

Expected<ExprPtr> ExpressionParser::parse_names(ExprKind kind, std::string_view name, Operand operand) {
  ExprPtr chain = make(kind, current().line);
  do {
    NIBBLE_TRY(ExprPtr child, (this->*operand)());
    chain->children.push_back(std::move(child));
  } while (skip_name(name));
  if (chain->children.size() == 1) return std::move(chain->children[0]);
  return finish(std::move(chain));
}

Expected<ExprPtr> ExpressionParser::parse_or() {
  return parse_names(ExprKind::kOr, "or", &ExpressionParser::parse_and);
}

Expected<ExprPtr> ExpressionParser::parse_and() {
  return parse_names(ExprKind::kAnd, "and", &ExpressionParser::parse_not);
}

Expected<ExprPtr> ExpressionParser::parse_not() {
  const size_t line = current().line;
  if (!skip_name("not")) return parse_compare();
  const Nesting nesting(*this);
  NIBBLE_RETURN_IF_ERROR(check_depth());
  ExprPtr node = make(ExprKind::kNot, line);
  NIBBLE_TRY(ExprPtr operand, parse_not());
  node->children.push_back(std::move(operand));
  return finish(std::move(node));
}

Expected<ExprPtr> ExpressionParser::parse_compare() {
  return parse_chain(ExprKind::kCompare, {"==", "!=", "<", "<=", ">", ">="}, &ExpressionParser::parse_sum);
}

Expected<ExprPtr> ExpressionParser::parse_sum() {
  return parse_chain(ExprKind::kArithmetic, {"+", "-"}, &ExpressionParser::parse_concat);
}

Expected<ExprPtr> ExpressionParser::parse_concat() {
  return parse_chain(ExprKind::kConcat, {"~"}, &ExpressionParser::parse_product);
}

Expected<ExprPtr> ExpressionParser::parse_product() {
  return parse_chain(ExprKind::kArithmetic, {"*", "/", "//", "%"}, &ExpressionParser::parse_power);
}

// From left to right, unlike in Python: 2 ** 3 ** 2 is 64.
Expected<ExprPtr> ExpressionParser::parse_power() {
  return parse_chain(ExprKind::kArithmetic, {"**"}, &ExpressionParser::parse_unary);
}

Expected<ExprPtr> ExpressionParser::parse_signed(bool with_filters) {
  ExprPtr node;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Nesting nesting(*this);
    NIBBLE_RETURN_IF_ERROR(check_depth());
    ExprPtr sign = make(current().text == "-" ? ExprKind::kNegate : ExprKind::kPlus, current().line);
    take();
    NIBBLE_TRY(ExprPtr operand, parse_signed(false));
    sign->children.push_back(std::move(operand));
    NIBBLE_TRY(node, finish(std::move(sign)));
  } else {
    NIBBLE_TRY(node, parse_primary());
  }
  NIBBLE_TRY(node, parse_postfix(std::move(node)));
  if (with_filters) return parse_filters_and_tests(std::move(node));
  return node;
}

Expected<ExprPtr> ExpressionParser::parse_primary() {
  const Token& token = current();
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  if (skip_operator("(")) {
    NIBBLE_TRY(ExprPtr inner, parse_tuple(true, {}, true));
    NIBBLE_RETURN_IF_ERROR(expect_operator(")"));
    return inner;
  }
  ExprPtr node = make(ExprKind::kConstant, token.line);
  switch (token.type) {
    case TokenType::kName:
      if (token.text == "true" || token.text == "True") {
        node->constant = true;
      } else if (token.text == "false" || token.text == "False") {
        node->constant = false;
      } else if (token.text != "none" && token.text != "None") {
        node->kind = ExprKind::kName;
        node->name = token.text;
        note_name(token.text);
      }
      take();
      return node;
    case TokenType::kString: {
      std::string text;
      while (current().type == TokenType::kString) text += take().text;
      node->constant = Value::constant(std::move(text));
      return node;
    }
    case TokenType::kInteger:
    case TokenType::kFloat:
      node->constant = take().number;
      return node;
    default:
      return unexpected();
  }
}

Expected<ExprPtr> ExpressionParser::parse_list() {
  ExprPtr node = make(ExprKind::kList, take().line);
  while (!skip_operator("]")) {
    if (!node->children.empty()) {
      NIBBLE_RETURN_IF_ERROR(expect_operator(","));
      if (skip_operator("]")) break;
    }
    NIBBLE_TRY(ExprPtr item, parse_expression());
    node->children.push_back(std::move(item));
  }
  return finish(std::move(node));
}

Expected<ExprPtr> ExpressionParser::parse_dict() {
  ExprPtr node = make(ExprKind::kDict, take().line);
  while (!skip_operator("}")) {
    if (!node->children.empty()) {
      NIBBLE_RETURN_IF_ERROR(expect_operator(","));
      if (skip_operator("}")) break;
    }
    NIBBLE_TRY(ExprPtr key, parse_expression());
    node->children.push_back(std::move(key));
    NIBBLE_RETURN_IF_ERROR(expect_operator(":"));
    NIBBLE_TRY(ExprPtr value, parse_expression());
    node->children.push_back(std::move(value));
  }
  return finish(std::move(node));
}

Expected<ExprPtr> ExpressionParser::parse_postfix(ExprPtr node) {
  while (true) {
    if (current().is_operator(".") || current().is_operator("[")) {
      NIBBLE_TRY(node, parse_subscript(std::move(node)));
    } else if (current().is_operator("(")) {
      NIBBLE_TRY(node, parse_call(std::move(node)));
    } else {
      return node;
    }
  }
}

Expected<ExprPtr> ExpressionParser::parse_filters_and_tests(ExprPtr node) {
  while (true) {
    if (current().is_operator("|")) {
      NIBBLE_TRY(node, parse_filters(std::move(node)));
    } else if (current().is_name("is")) {
      NIBBLE_TRY(node, parse_test(std::move(node)));
    } else if (current().is_operator("(")) {
      NIBBLE_TRY(node, parse_call(std::move(node)));
    } else {
      return node;
    }
  }
}

Expected<ExprPtr> ExpressionParser::parse_subscript(ExprPtr node) {
  const size_t line = current().line;
  if (skip_operator(".")) {
    ExprPtr access = make(ExprKind::kAttribute, line);
    access->children.push_back(std::move(node));
    if (current().type == TokenType::kInteger) {  // list.0
      access->kind = ExprKind::kItem;
      access->children.push_back(make(ExprKind::kConstant, line));
      access->children.back()->constant = take().number;
    } else {
      NIBBLE_TRY(access->name, expect_name());
    }
    return finish(std::move(access));
  }
  take();
  ExprPtr access = make(ExprKind::kItem, line);
  access->children.push_back(std::move(node));
  // Up to three parts between colons, each of which may be missing.
  while (true) {
    ExprPtr part;
    if (!current().is_operator(":") && !current().is_operator("]")) {
      NIBBLE_TRY(part, parse_expression());
    }
    access->children.push_back(std::move(part));
    if (access->children.size() > 3 || !skip_operator(":")) break;
    access->kind = ExprKind::kSlice;
  }
  if (access->kind == ExprKind::kItem) {
    if (!access->children[1]) return unexpected();
    if (current().is_operator(",")) {
      ExprPtr tuple = make(ExprKind::kTuple, line);
      tuple->children.push_back(std::move(access->children[1]));
      while (skip_operator(",")) {
        NIBBLE_TRY(ExprPtr item, parse_expression());
        tuple->children.push_back(std::move(item));
      }
      NIBBLE_TRY(access->children[1], finish(std::move(tuple)));
    }
  }
  NIBBLE_RETURN_IF_ERROR(expect_operator("]"));
  if (access->kind == ExprKind::kSlice) access->children.resize(4);
  return finish(std::move(access));
}

Expected<Arguments> ExpressionParser::parse_arguments() {
  const size_t line = take().line;  // the parenthesis
  Arguments arguments;
  bool comma = true;
  while (!skip_operator(")")) {
    if (!comma) return unexpected();
    const bool star = current().is_operator("*");
    if (star || current().is_operator("**")) {
      ExprPtr& slot = star ? arguments.star : arguments.double_star;
      if (slot || arguments.double_star)
        return syntax_error(line, "invalid syntax for function call expression");
      take();
      NIBBLE_TRY(slot, parse_expression());
    } else if (current().type == TokenType::kName && following().is_operator("=")) {
      if (arguments.double_star) return syntax_error(line, "invalid syntax for function call expression");
      std::string name = take().text;
      take();
      NIBBLE_TRY(ExprPtr value, parse_expression());
      arguments.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (arguments.star || arguments.double_star || !arguments.named.empty()) {
        return syntax_error(line, "invalid syntax for function call expression");
      }
      NIBBLE_TRY(ExprPtr value, parse_expression());
      arguments.positional.push_back(std::move(value));
    }
    comma = skip_operator(",");
  }
  return arguments;
}

Expected<ExprPtr> ExpressionParser::parse_call(ExprPtr node) {
  ExprPtr call = make(ExprKind::kCall, current().line);
  call->children.push_back(std::move(node));
  NIBBLE_TRY(call->arguments, parse_arguments());
  return finish(std::move(call));
}

Expected<ExprPtr> ExpressionParser::parse_filters(ExprPtr node, bool first_without_pipe) {
  while (first_without_pipe || skip_operator("|")) {
    first_without_pipe = false;
    ExprPtr filter = make(ExprKind::kFilter, current().line);
    filter->children.push_back(std::move(node));
    NIBBLE_TRY(filter->name, expect_name());
    while (skip_operator(".")) {
      NIBBLE_TRY(const std::string part, expect_name());
      filter->name += "." + part;
    }
    if (current().is_operator("(")) {
      NIBBLE_TRY(filter->arguments, parse_arguments());
    }
    NIBBLE_TRY(node, finish(std::move(filter)));
  }
  return node;
}

Expected<ExprPtr> ExpressionParser::parse_test(ExprPtr node) {
  const size_t line = take().line;  // is
  const bool negated = skip_name("not");
  ExprPtr test = make(ExprKind::kTest, line);
  test->children.push_back(std::move(node));
  NIBBLE_TRY(test->name, expect_name());
  const Token& token = current();
  const bool value_follows = token.type == TokenType::kName || token.type == TokenType::kString ||
                             token.type == TokenType::kInteger || token.type == TokenType::kFloat ||
                             token.is_operator("[") || token.is_operator("{");
  if (token.is_operator("(")) {
    NIBBLE_TRY(test->arguments, parse_arguments());
  } else if (value_follows && !token.is_name("else") && !token.is_name("or") && !token.is_name("and")) {
    if (token.is_name("is")) return syntax_error(token.line, "tests cannot be chained with is");
    NIBBLE_TRY(ExprPtr argument, parse_primary());
    NIBBLE_TRY(argument, parse_postfix(std::move(argument)));
    test->arguments.positional.push_back(std::move(argument));
  }
  NIBBLE_TRY(ExprPtr finished, finish(std::move(test)));
  if (!negated) return finished;
  ExprPtr inverted = make(ExprKind::kNot, line);
  inverted->children.push_back(std::move(finished));
  return finish(std::move(inverted));
}

}  // namespace nibble::jinja
