#include "nibble/tokenizer/jinja_parser.h"

#include <algorithm>
#include <initializer_list>

#include "nibble/tokenizer/jinja_expression_parser.h"

namespace nibble::jinja {
namespace {

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Expected<Block> parse() { return parse_block({}, "template", 1); }

 private:
  using Ends = std::initializer_list<std::string_view>;

  // Everything up to one of the tags `ends`, whose name is then the current token.
  Expected<Block> parse_block(Ends ends, std::string_view opener, size_t line) {
    const Nesting nesting(*this);
    NIBBLE_RETURN_IF_ERROR(check_depth());
    Block block;
    while (current().type != TokenType::kEnd) {
      Statement statement;
      statement.line = current().line;
      if (current().type == TokenType::kData) {
        statement.text = Value::constant(take().text);
      } else if (current().type == TokenType::kVariableBegin) {
        take();
        statement.kind = StatementKind::kOutput;
        NIBBLE_TRY(ExprPtr value, parse_tuple());
        statement.exprs.push_back(std::move(value));
        NIBBLE_RETURN_IF_ERROR(expect(TokenType::kVariableEnd));
      } else {
        take();  // {%
        const auto is_current = [&](std::string_view name) { return current().is_name(name); };
        if (std::any_of(ends.begin(), ends.end(), is_current)) return block;
        NIBBLE_TRY(statement, parse_statement());
        NIBBLE_RETURN_IF_ERROR(expect(TokenType::kBlockEnd));
      }
      block.push_back(std::move(statement));
    }
    if (ends.size() == 0) return block;
    return syntax_error(current().line, "the template ends inside the {} of line {}: {} is missing", opener,
                        line, *(ends.end() - 1));
  }

  // The block behind a tag: the rest of that tag, the content, and the name of the end tag. The last
  // of `ends` is the one that closes.
  Expected<Block> parse_body(Ends ends, std::string_view opener, size_t line) {
    skip_operator(":");
    NIBBLE_RETURN_IF_ERROR(expect(TokenType::kBlockEnd));
    return parse_block(ends, opener, line);
  }

  Expected<Block> parse_whole_body(std::string_view end, std::string_view opener, size_t line) {
    NIBBLE_TRY(Block body, parse_body({end}, opener, line));
    take();
    return body;
  }

  Expected<Statement> parse_statement() {
    struct Rule {
      std::string_view name;
      Status (Parser::*parse)(Statement&);
    };
    static constexpr Rule kRules[] = {
        {"for", &Parser::parse_for},         {"if", &Parser::parse_if},
        {"set", &Parser::parse_set},         {"macro", &Parser::parse_macro},
        {"call", &Parser::parse_call_block}, {"filter", &Parser::parse_filter_block},
        {"with", &Parser::parse_with},       {"generation", &Parser::parse_generation},
        {"break", &Parser::parse_jump},      {"continue", &Parser::parse_jump},
        {"print", &Parser::parse_print},
    };
    static constexpr std::string_view kUnsupported[] = {"block", "extends",    "include", "import",
                                                        "from",  "autoescape", "do",      "trans"};
    Statement statement;
    statement.line = current().line;
    for (const Rule& rule : kRules) {
      if (!current().is_name(rule.name)) continue;
      NIBBLE_RETURN_IF_ERROR((this->*rule.parse)(statement));
      return statement;
    }
    for (const std::string_view name : kUnsupported) {
      if (!current().is_name(name)) continue;
      return fail(ErrorCode::kUnsupported,
                  "the tag {} is not supported: a chat template is one file and only prints", name)
          .at(fmt::format("chat template line {}", statement.line));
    }
    if (current().type != TokenType::kName) return unexpected();
    return syntax_error(statement.line, "unknown tag {}", python_quoted(current().text));
  }

  Status parse_for(Statement& statement) {
    statement.kind = StatementKind::kFor;
    take();
    NIBBLE_TRY(Target target, parse_target(false, "in"));
    statement.targets.push_back(std::move(target));
    if (!skip_name("in")) return unexpected();
    NIBBLE_TRY(ExprPtr items, parse_tuple(false, "recursive"));
    statement.exprs.push_back(std::move(items));
    ExprPtr condition;
    if (skip_name("if")) {
      NIBBLE_TRY(condition, parse_expression());
    }
    statement.exprs.push_back(std::move(condition));
    statement.recursive = skip_name("recursive");
    const size_t outer_loops = open_loops_;
    ++open_loops_;
    NIBBLE_TRY(statement.body, parse_body({"else", "endfor"}, "for", statement.line));
    open_loops_ = statement.recursive ? 0 : outer_loops;
    if (take().text == "else") {
      NIBBLE_TRY(statement.otherwise, parse_whole_body("endfor", "for", statement.line));
    }
    open_loops_ = outer_loops;
    return {};
  }

  Status parse_if(Statement& statement) {
    statement.kind = StatementKind::kIf;
    while (true) {
      const bool has_condition = take().text != "else";
      ExprPtr condition;
      if (has_condition) {
        NIBBLE_TRY(condition, parse_tuple(false));
        NIBBLE_TRY(Block body, parse_body({"elif", "else", "endif"}, "if", statement.line));
        statement.branches.emplace_back(std::move(condition), std::move(body));
      } else {
        NIBBLE_TRY(Block body, parse_body({"endif"}, "if", statement.line));
        statement.branches.emplace_back(nullptr, std::move(body));
      }
      if (skip_name("endif")) return {};
    }
  }

  Status parse_set(Statement& statement) {
    statement.kind = StatementKind::kSet;
    take();
    NIBBLE_TRY(Target target, parse_target(true, {}));
    statement.targets.push_back(std::move(target));
    if (skip_operator("=")) {
      NIBBLE_TRY(ExprPtr value, parse_tuple());
      statement.exprs.push_back(std::move(value));
      return {};
    }
    statement.kind = StatementKind::kSetBlock;
    NIBBLE_TRY(ExprPtr filter, parse_filters(nullptr));
    statement.exprs.push_back(std::move(filter));
    NIBBLE_TRY(statement.body, parse_whole_body("endset", "set", statement.line));
    return {};
  }

  Status parse_with(Statement& statement) {
    statement.kind = StatementKind::kWith;
    take();
    while (current().type != TokenType::kBlockEnd && !current().is_operator(":")) {
      if (!statement.targets.empty()) NIBBLE_RETURN_IF_ERROR(expect_operator(","));
      NIBBLE_TRY(Target target, parse_target(false, {}));
      statement.targets.push_back(std::move(target));
      NIBBLE_RETURN_IF_ERROR(expect_operator("="));
      NIBBLE_TRY(ExprPtr value, parse_expression());
      statement.exprs.push_back(std::move(value));
    }
    NIBBLE_TRY(statement.body, parse_whole_body("endwith", "with", statement.line));
    return {};
  }

  Status parse_macro(Statement& statement) {
    statement.kind = StatementKind::kMacro;
    take();
    auto macro = std::make_shared<Macro>();
    NIBBLE_TRY(macro->name, expect_assignable_name());
    NIBBLE_RETURN_IF_ERROR(parse_parameters(*macro));
    NIBBLE_RETURN_IF_ERROR(parse_macro_body(*macro, "endmacro", "macro", statement.line));
    statement.macro = std::move(macro);
    return {};
  }

  Status parse_call_block(Statement& statement) {
    statement.kind = StatementKind::kCallBlock;
    take();
    auto macro = std::make_shared<Macro>();
    if (current().is_operator("(")) NIBBLE_RETURN_IF_ERROR(parse_parameters(*macro));
    NIBBLE_TRY(ExprPtr call, parse_expression());
    if (call->kind != ExprKind::kCall) return syntax_error(statement.line, "expected a call behind {{% call");
    statement.exprs.push_back(std::move(call));
    NIBBLE_RETURN_IF_ERROR(parse_macro_body(*macro, "endcall", "call", statement.line));
    statement.macro = std::move(macro);
    return {};
  }

  Status parse_parameters(Macro& macro) {
    NIBBLE_RETURN_IF_ERROR(expect_operator("("));
    while (!skip_operator(")")) {
      if (!macro.parameters.empty()) {
        NIBBLE_RETURN_IF_ERROR(expect_operator(","));
      }
      Macro::Parameter parameter;
      NIBBLE_TRY(parameter.name, expect_assignable_name());
      if (skip_operator("=")) {
        NIBBLE_TRY(parameter.fallback, parse_expression());
      } else if (!macro.parameters.empty() && macro.parameters.back().fallback) {
        return syntax_error(current().line, "non-default argument follows default argument");
      }
      macro.parameters.push_back(std::move(parameter));
    }
    return {};
  }

  Status parse_macro_body(Macro& macro, std::string_view end, std::string_view opener, size_t line) {
    open_macros_.push_back(&macro);
    const size_t outer_loops = std::exchange(open_loops_, 0);
    NIBBLE_TRY(macro.body, parse_whole_body(end, opener, line));
    open_loops_ = outer_loops;
    open_macros_.pop_back();
    for (const Macro::Parameter& parameter : macro.parameters) {
      if (parameter.name == "caller") macro.uses_caller = false;
      if (parameter.name == "varargs") macro.uses_varargs = false;
      if (parameter.name == "kwargs") macro.uses_kwargs = false;
    }
    return {};
  }

  Status parse_filter_block(Statement& statement) {
    statement.kind = StatementKind::kFilter;
    take();
    NIBBLE_TRY(ExprPtr filter, parse_filters(nullptr, true));
    statement.exprs.push_back(std::move(filter));
    NIBBLE_TRY(statement.body, parse_whole_body("endfilter", "filter", statement.line));
    return {};
  }

  // Marks what the assistant says, for training; here it is a block like any other.
  Status parse_generation(Statement& statement) {
    statement.kind = StatementKind::kScope;
    take();
    const size_t outer_loops = std::exchange(open_loops_, 0);
    NIBBLE_TRY(statement.body, parse_whole_body("endgeneration", "generation", statement.line));
    open_loops_ = outer_loops;
    return {};
  }

  Status parse_jump(Statement& statement) {
    const std::string name = take().text;
    statement.kind = name == "break" ? StatementKind::kBreak : StatementKind::kContinue;
    if (open_loops_ == 0) return syntax_error(statement.line, "{} outside a loop", name);
    return {};
  }

  Status parse_print(Statement& statement) {
    statement.kind = StatementKind::kOutput;
    take();
    NIBBLE_TRY(ExprPtr value, parse_expression());
    statement.exprs.push_back(std::move(value));
    return {};
  }

  Expected<std::string> expect_assignable_name() {
    static constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
    NIBBLE_TRY(std::string name, expect_name());
    if (std::find(std::begin(kConstants), std::end(kConstants), name) == std::end(kConstants)) return name;
    return syntax_error(current().line, "can't assign to {}", python_quoted(name));
  }

  Expected<Target> parse_target(bool with_attributes, std::string_view end) {
    const Nesting nesting(*this);
    NIBBLE_RETURN_IF_ERROR(check_depth());
    Target tuple;
    while (!current().is_operator(")") && !current().is_operator("=") &&
           current().type != TokenType::kBlockEnd && (end.empty() || !current().is_name(end))) {
      Target item;
      if (skip_operator("(")) {
        NIBBLE_TRY(item, parse_target(false, {}));
        NIBBLE_RETURN_IF_ERROR(expect_operator(")"));
      } else {
        NIBBLE_TRY(item.name, expect_assignable_name());
        if (with_attributes && skip_operator(".")) {
          NIBBLE_TRY(item.attribute, expect_name());
        } else if (item.name == "loop" && end == "in") {
          return syntax_error(current().line, "can't assign to the special variable loop");
        }
      }
      tuple.items.push_back(std::move(item));
      if (!skip_operator(",")) break;
      tuple.is_tuple = true;
    }
    if (tuple.items.empty()) return unexpected();
    if (!tuple.is_tuple) return Target(std::move(tuple.items[0]));
    return tuple;
  }

  size_t open_loops_ = 0;
};

}  // namespace

Expected<Block> parse_template(std::string_view source, size_t max_depth) {
  NIBBLE_TRY(std::vector<Token> tokens, tokenize(source));
  return Parser(std::move(tokens), max_depth).parse();
}

}  // namespace nibble::jinja
