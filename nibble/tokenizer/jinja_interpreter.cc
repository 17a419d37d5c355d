#include "nibble/tokenizer/jinja_interpreter.h"

#include <algorithm>

namespace nibble::jinja {
namespace {

// max_depth bounds calls of macros and recursive loops; each may nest this many blocks and
// expressions on average.
constexpr size_t kLevelsPerCall = 10;

class Function : public Object {
 public:
  explicit Function(const Builtin& builtin) : builtin_(builtin) {}
  std::string type_name() const override { return "function"; }
  std::string repr() const override { return fmt::format("<function {}>", builtin_.name); }
  Expected<Value> call(Run& run, CallArguments arguments) override {
    NIBBLE_TRY(const BoundArguments bound,
               bind(builtin_.name, builtin_.parameters, builtin_.required, std::move(arguments)));
    return builtin_.function(run, Value(), bound);
  }

 private:
  const Builtin& builtin_;
};

}  // namespace

Interpreter::~Interpreter() {
  // Macros refer to the scopes that hold them, and loops can be shown to their own `changed`.
  for (const ScopePtr& scope : captured_) scope->names.clear();
  forget_changes();
}

Expected<Text> Interpreter::run(const Block& program) {
  scope_ = std::make_shared<Scope>();
  NIBBLE_RETURN_IF_ERROR(execute(program));
  return std::move(out_);
}

Status Interpreter::enter() {
  run_.budget.use(1);
  NIBBLE_RETURN_IF_ERROR(run_.budget.check());
  if (depth_ <= run_.budget.limits().max_depth * kLevelsPerCall) return {};
  return raise("macros or loops call themselves without end");
}

Value Interpreter::lookup(const std::string& name) {
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get()) {
    for (const auto& entry : scope->names) {
      if (entry.first == name) return entry.second;
    }
  }
  for (const auto& entry : context_) {
    if (entry.first == name) return entry.second;
  }
  if (const Builtin* function = find_builtin(functions(), name)) {
    return Value(std::shared_ptr<Object>(std::make_shared<Function>(*function)));
  }
  return Value::undefined(fmt::format("{} is undefined", python_quoted(name)));
}

Status Interpreter::assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    NIBBLE_TRY(const auto parts, to_sequence(run_.budget, value));
    if (parts->items.size() != target.items.size()) {
      return raise("{} values to unpack (expected {}, got {})",
                   parts->items.size() < target.items.size() ? "not enough" : "too many", target.items.size(),
                   parts->items.size());
    }
    for (size_t i = 0; i < target.items.size(); ++i) {
      NIBBLE_RETURN_IF_ERROR(assign(target.items[i], parts->items[i]));
    }
    return {};
  }
  if (target.attribute.empty()) {
    scope_->set(target.name, value);
    return {};
  }
  const Value holder = lookup(target.name);
  auto* names = dynamic_cast<Namespace*>(holder.object());
  if (!names) return raise("cannot assign attribute on non-namespace object");
  return names->set(target.attribute, value);
}

Expected<Flow> Interpreter::execute(const Block& block) {
  for (const Statement& statement : block) {
    Expected<Flow> flow = execute(statement);
    if (!flow) return at_line(statement.line, std::move(flow));
    if (*flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Expected<Flow> Interpreter::execute(const Statement& statement) {
  const Restore<size_t> level(depth_, depth_ + 1);
  NIBBLE_RETURN_IF_ERROR(enter());
  switch (statement.kind) {
    case StatementKind::kText:
      NIBBLE_RETURN_IF_ERROR(print(*statement.text.text()));
      return Flow::kNext;
    case StatementKind::kOutput:
      return output(*statement.exprs[0]);
    case StatementKind::kIf:
      return execute_if(statement);
    case StatementKind::kFor:
      return execute_for(statement);
    case StatementKind::kSet: {
      NIBBLE_TRY(const Value value, evaluate(*statement.exprs[0]));
      NIBBLE_RETURN_IF_ERROR(assign(statement.targets[0], value));
      return Flow::kNext;
    }
    case StatementKind::kSetBlock:
    case StatementKind::kFilter:
      return execute_capture(statement);
    case StatementKind::kWith:
      return execute_with(statement);
    case StatementKind::kMacro:
      scope_->set(statement.macro->name, make_macro(statement.macro));
      return Flow::kNext;
    case StatementKind::kCallBlock:
      return execute_call_block(statement);
    case StatementKind::kScope: {
      const Restore<ScopePtr> scope(scope_, inner_scope(scope_));
      return execute(statement.body);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Status Interpreter::print(const Text& text) {
  NIBBLE_RETURN_IF_ERROR(run_.budget.check_text(out_.size() + text.size()));
  run_.budget.use_bytes(text.size());
  out_.append(text);
  return {};
}

Expected<Flow> Interpreter::output(const Expr& expr) {
  NIBBLE_TRY(const Value value, evaluate(expr));
  if (const Text* text = value.text()) {
    NIBBLE_RETURN_IF_ERROR(print(*text));
  } else {
    NIBBLE_TRY(const Text printed, to_text(run_.budget, value));
    NIBBLE_RETURN_IF_ERROR(print(printed));
  }
  return Flow::kNext;
}

Expected<Flow> Interpreter::execute_if(const Statement& statement) {
  for (const auto& branch : statement.branches) {
    if (branch.first) {
      NIBBLE_TRY(const Value condition, evaluate(*branch.first));
      if (!is_true(condition)) continue;
    }
    return execute(branch.second);
  }
  return Flow::kNext;
}

Expected<Flow> Interpreter::capture(const Block& body, Text& printed) {
  const Restore<ScopePtr> scope(scope_, inner_scope(scope_));
  Text saved = std::exchange(out_, Text());
  const Expected<Flow> flow = execute(body);
  printed = std::exchange(out_, std::move(saved));
  return flow;
}

Expected<Flow> Interpreter::execute_capture(const Statement& statement) {
  Text printed;
  NIBBLE_TRY(const Flow flow, capture(statement.body, printed));
  if (flow != Flow::kNext) return flow;
  NIBBLE_TRY(Value value, run_.budget.text(std::move(printed)));
  if (statement.exprs[0]) {
    NIBBLE_TRY(value, apply_filter(*statement.exprs[0], &value));
  }
  if (statement.kind == StatementKind::kSetBlock) {
    NIBBLE_RETURN_IF_ERROR(assign(statement.targets[0], value));
    return Flow::kNext;
  }
  NIBBLE_TRY(const Text text, to_text(run_.budget, value));
  NIBBLE_RETURN_IF_ERROR(print(text));
  return Flow::kNext;
}

Expected<Flow> Interpreter::execute_with(const Statement& statement) {
  std::vector<Value> values;
  for (const ExprPtr& expr : statement.exprs) {
    NIBBLE_TRY(Value value, evaluate(*expr));
    values.push_back(std::move(value));
  }
  const Restore<ScopePtr> scope(scope_, inner_scope(scope_));
  for (size_t i = 0; i < values.size(); ++i) NIBBLE_RETURN_IF_ERROR(assign(statement.targets[i], values[i]));
  return execute(statement.body);
}

Expected<Flow> Interpreter::execute_call_block(const Statement& statement) {
  const Expr& expr = *statement.exprs[0];
  NIBBLE_TRY(const Value callee, evaluate(*expr.children[0]));
  NIBBLE_TRY(CallArguments arguments, evaluate_arguments(expr.arguments));
  arguments.named.emplace_back("caller", make_macro(statement.macro));
  NIBBLE_TRY(const Value value, call(callee, std::move(arguments)));
  NIBBLE_TRY(const Text text, to_text(run_.budget, value));
  NIBBLE_RETURN_IF_ERROR(print(text));
  return Flow::kNext;
}

class Interpreter::MacroObject : public Object {
 public:
  MacroObject(Interpreter& interpreter, std::shared_ptr<const Macro> macro, ScopePtr scope)
      : interpreter_(interpreter), macro_(std::move(macro)), scope_(std::move(scope)) {}
  std::string type_name() const override { return "Macro"; }
  std::string repr() const override {
    return fmt::format("<Macro {}>", macro_->name.empty() ? "anonymous" : python_quoted(macro_->name));
  }
  Expected<std::optional<Value>> attribute(Run&, std::string_view name) override {
    if (name == "name") return std::optional<Value>(Value::constant(macro_->name));
    return std::optional<Value>();
  }
  Expected<Value> call(Run&, CallArguments arguments) override {
    return interpreter_.call_macro(*macro_, scope_, std::move(arguments));
  }

 private:
  Interpreter& interpreter_;
  const std::shared_ptr<const Macro> macro_;
  const ScopePtr scope_;
};

Value Interpreter::make_macro(const std::shared_ptr<const Macro>& macro) {
  if (captured_.empty() || captured_.back() != scope_) captured_.push_back(scope_);
  return Value(std::shared_ptr<Object>(std::make_shared<MacroObject>(*this, macro, scope_)));
}

Expected<Value> Interpreter::call_macro(const Macro& macro, const ScopePtr& scope, CallArguments arguments) {
  const Restore<ScopePtr> restore(scope_, inner_scope(scope));
  auto& named = arguments.named;
  const auto take_named = [&named](std::string_view name) -> std::optional<Value> {
    const auto found =
        std::find_if(named.begin(), named.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == named.end()) return std::nullopt;
    Value value = std::move(found->second);
    named.erase(found);
    return value;
  };
  const size_t count = macro.parameters.size();
  for (size_t i = 0; i < count; ++i) {
    const Macro::Parameter& parameter = macro.parameters[i];
    std::optional<Value> value;
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else {
      value = take_named(parameter.name);
    }
    if (!value && parameter.fallback) {
      NIBBLE_TRY(value, evaluate(*parameter.fallback));
    }
    if (!value)
      value = Value::undefined(fmt::format("parameter {} was not provided", python_quoted(parameter.name)));
    scope_->set(parameter.name, *value);
  }
  if (macro.uses_caller) {
    scope_->set("caller", take_named("caller").value_or(Value::undefined("No caller defined")));
  }
  if (macro.uses_kwargs) {
    std::vector<std::pair<Value, Value>> items;
    for (auto& [name, value] : named) items.emplace_back(Value::constant(name), std::move(value));
    named.clear();
    NIBBLE_TRY(const Value kwargs, run_.budget.dict(std::move(items)));
    scope_->set("kwargs", kwargs);
  }
  if (!named.empty()) {
    return raise("macro {} takes no keyword argument {}", python_quoted(macro.name),
                 python_quoted(named[0].first));
  }
  std::vector<Value> extra;
  for (size_t i = count; i < arguments.positional.size(); ++i) extra.push_back(arguments.positional[i]);
  if (macro.uses_varargs) {
    NIBBLE_TRY(const Value varargs, run_.budget.sequence(std::move(extra), SequenceType::kTuple));
    scope_->set("varargs", varargs);
  } else if (!extra.empty()) {
    return raise("macro {} takes not more than {} argument(s)", python_quoted(macro.name), count);
  }
  Text saved = std::exchange(out_, Text());
  const Expected<Flow> flow = execute(macro.body);
  Text printed = std::exchange(out_, std::move(saved));
  if (!flow) return Failure(flow.error());
  return run_.budget.text(std::move(printed));
}

Expected<Text> render(const Block& program, const Names& context, const ChatTemplateLimits& limits,
                      std::time_t now) {
  return Interpreter(context, limits, now).run(program);
}

}  // namespace nibble::jinja
