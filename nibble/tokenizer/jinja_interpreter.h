#ifndef NIBBLE_TOKENIZER_JINJA_INTERPRETER_H_
#define NIBBLE_TOKENIZER_JINJA_INTERPRETER_H_

// Runs a parsed template: statements print into a Text, expressions make values. The tree is walked
// directly; three files hold statements and macros, expressions, and loops.

#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/tokenizer/jinja_ast.h"
#include "nibble/tokenizer/jinja_runtime.h"
#include "nibble/tokenizer/jinja_value.h"

namespace nibble::jinja {

using Names = std::vector<std::pair<std::string, Value>>;

// What the template prints. `context`: the names it can read, beside the global functions.
Expected<Text> render(const Block& program, const Names& context, const ChatTemplateLimits& limits,
                      std::time_t now);

// The variables of a block. `set` writes to the innermost one; macros keep the one they stand in.
struct Scope {
  Names names;
  std::shared_ptr<Scope> parent;

  void set(const std::string& name, Value value) {
    for (auto& entry : names) {
      if (entry.first == name) {
        entry.second = std::move(value);
        return;
      }
    }
    names.emplace_back(name, std::move(value));
  }
};
using ScopePtr = std::shared_ptr<Scope>;

enum class Flow { kNext, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(const Names& context, const ChatTemplateLimits& limits, std::time_t now)
      : context_(context), run_(limits, now) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  Expected<Text> run(const Block& program);

 private:
  class MacroObject;
  class Loop;

  // Replaces a member until the end of a block.
  template <class T>
  struct Restore {
    Restore(T& member, T value) : place(member), saved(std::exchange(member, std::move(value))) {}
    ~Restore() { place = std::move(saved); }
    Restore(const Restore&) = delete;
    Restore& operator=(const Restore&) = delete;
    T& place;
    T saved;
  };

  ScopePtr inner_scope(ScopePtr parent) const {
    auto scope = std::make_shared<Scope>();
    scope->parent = std::move(parent);
    return scope;
  }

  Status enter();
  Value lookup(const std::string& name);
  Status assign(const Target& target, const Value& value);

  // An error of the template gets the line of the innermost part that it comes from.
  template <class T>
  static Expected<T> at_line(size_t line, Expected<T> result) {
    if (result || !result.error().where.empty()) return result;
    return Failure(std::move(result).error().at(fmt::format("chat template line {}", line)));
  }

  // Statements and macros: jinja_interpreter.cc.
  Expected<Flow> execute(const Block& block);
  Expected<Flow> execute(const Statement& statement);
  Status print(const Text& text);
  Expected<Flow> output(const Expr& expr);
  Expected<Flow> execute_if(const Statement& statement);
  // Runs the body with its own variables and returns what it prints.
  Expected<Flow> capture(const Block& body, Text& printed);
  Expected<Flow> execute_capture(const Statement& statement);
  Expected<Flow> execute_with(const Statement& statement);
  Expected<Flow> execute_call_block(const Statement& statement);
  Value make_macro(const std::shared_ptr<const Macro>& macro);
  Expected<Value> call_macro(const Macro& macro, const ScopePtr& scope, CallArguments arguments);

  // Loops: jinja_loop.cc.
  Expected<Flow> execute_for(const Statement& statement);
  Expected<Flow> run_loop(const Statement& statement, const Value& items, size_t depth0);
  // The printed text of one more level of a recursive loop.
  Expected<Value> recurse(const Statement& statement, const Value& items, size_t depth0);
  void forget_changes();

  // Expressions: jinja_evaluate.cc.
  Expected<Value> evaluate(const Expr& expr);
  // The value of a part that may be missing.
  Expected<Value> evaluate_optional(const ExprPtr& expr);
  Expected<Value> evaluate_node(const Expr& expr);
  Expected<Value> evaluate_list(const Expr& expr);
  Expected<Value> evaluate_dict(const Expr& expr);
  Expected<Value> evaluate_arithmetic(const Expr& expr);
  Expected<Value> evaluate_compare(const Expr& expr);
  Expected<Value> evaluate_concat(const Expr& expr);
  Expected<Value> evaluate_logic(const Expr& expr);
  Expected<Value> evaluate_if_else(const Expr& expr);
  Expected<Value> evaluate_access(const Expr& expr);
  // `captured`: what a filter block printed; it stands in for the innermost operand.
  Expected<Value> apply_filter(const Expr& expr, const Value* captured);
  Expected<Value> evaluate_call(const Expr& expr);
  Expected<Value> call(const Value& callee, CallArguments arguments);
  Expected<CallArguments> evaluate_arguments(const Arguments& arguments);

  const Names& context_;
  Run run_;
  ScopePtr scope_;
  std::vector<ScopePtr> captured_;               // scopes that a macro keeps
  std::vector<std::shared_ptr<Loop>> changing_;  // loops that remember what `changed` saw
  Text out_;
  size_t depth_ = 0;  // of nested statements and expressions
  size_t calls_ = 0;
};

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_INTERPRETER_H_
