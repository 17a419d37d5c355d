#ifndef NIBBLE_TOKENIZER_JINJA_AST_H_
#define NIBBLE_TOKENIZER_JINJA_AST_H_

// A parsed chat template. Chains (a + b + c, a and b and c) are flat, so that the depth of the tree,
// and with it the recursion of the interpreter, is what the author nested.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nibble/tokenizer/jinja_value.h"

namespace nibble::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  kConstant,    // constant
  kName,        // name
  kTuple,       // children
  kList,        // children
  kDict,        // children: key, value, key, value...
  kArithmetic,  // children[0] ops[0] children[1] ops[1] children[2]..., from left to right
  kCompare,     // the same, as a chain of comparisons
  kConcat,      // children joined by ~
  kAnd,         // children
  kOr,          // children
  kNot,         // children[0]
  kNegate,      // children[0]
  kPlus,        // children[0]
  kIfElse,      // children: value, condition, other value or null
  kAttribute,   // children[0].name
  kItem,        // children[0][children[1]]
  kSlice,       // children[0][children[1]:children[2]:children[3]], each of the last three may be null
  kCall,        // children[0](arguments)
  kFilter,      // children[0] | name(arguments); children[0] is null in a filter block
  kTest,        // children[0] is name(arguments)
};

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;         // *args
  ExprPtr double_star;  // **kwargs
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  size_t line = 1;
  size_t height = 1;
  std::string name;
  Value constant;
  std::vector<ExprPtr> children;
  std::vector<std::string> ops;
  Arguments arguments;
};

// What is assigned to: a name, an attribute of a namespace, or several of them.
struct Target {
  std::string name;
  std::string attribute;      // name.attribute, if not empty
  std::vector<Target> items;  // if is_tuple
  bool is_tuple = false;
};

struct Statement;
using Block = std::vector<Statement>;

struct Macro {
  struct Parameter {
    std::string name;
    ExprPtr fallback;
  };

  std::string name;
  std::vector<Parameter> parameters;
  Block body;
  // Whether the body mentions these: only then may a call pass more than the parameters.
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

enum class StatementKind {
  kText,       // text
  kOutput,     // exprs[0]
  kFor,        // target in exprs[0] if exprs[1] (or null): body, else otherwise
  kIf,         // branches in turn; the condition of else is null
  kSet,        // target = exprs[0]
  kSetBlock,   // target = what body prints, through the filter exprs[0] or null
  kWith,       // targets = exprs: body
  kMacro,      // macro
  kCallBlock,  // exprs[0], a kCall, with macro as its caller
  kFilter,     // what body prints through exprs[0]
  kScope,      // body with its own variables: {% generation %}
  kBreak,
  kContinue,
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  size_t line = 1;
  Value text;
  std::vector<ExprPtr> exprs;
  std::vector<Target> targets;
  std::vector<std::pair<ExprPtr, Block>> branches;
  Block body;
  Block otherwise;
  bool recursive = false;
  std::shared_ptr<const Macro> macro;
};

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_AST_H_
