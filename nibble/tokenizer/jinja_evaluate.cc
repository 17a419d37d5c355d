// The expressions of a template.

#include "nibble/tokenizer/jinja_interpreter.h"

namespace nibble::jinja {

Expected<Value> Interpreter::evaluate(const Expr& expr) {
  const Restore<size_t> level(depth_, depth_ + 1);
  NIBBLE_RETURN_IF_ERROR(at_line(expr.line, enter()));
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return lookup(expr.name);
    default:
      return at_line(expr.line, evaluate_node(expr));
  }
}

Expected<Value> Interpreter::evaluate_optional(const ExprPtr& expr) {
  return expr ? evaluate(*expr) : Expected<Value>(Value());
}

Expected<Value> Interpreter::evaluate_node(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kTuple:
    case ExprKind::kList:
      return evaluate_list(expr);
    case ExprKind::kDict:
      return evaluate_dict(expr);
    case ExprKind::kArithmetic:
      return evaluate_arithmetic(expr);
    case ExprKind::kCompare:
      return evaluate_compare(expr);
    case ExprKind::kConcat:
      return evaluate_concat(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return evaluate_logic(expr);
    case ExprKind::kIfElse:
      return evaluate_if_else(expr);
    case ExprKind::kFilter:
      return apply_filter(expr, nullptr);
    case ExprKind::kCall:
      return evaluate_call(expr);
    default:
      return evaluate_access(expr);
  }
}

Expected<Value> Interpreter::evaluate_list(const Expr& expr) {
  std::vector<Value> items;
  for (const ExprPtr& child : expr.children) {
    NIBBLE_TRY(Value item, evaluate(*child));
    items.push_back(std::move(item));
  }
  return run_.budget.sequence(std::move(items),
                              expr.kind == ExprKind::kList ? SequenceType::kList : SequenceType::kTuple);
}

Expected<Value> Interpreter::evaluate_dict(const Expr& expr) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i < expr.children.size(); i += 2) {
    NIBBLE_TRY(Value key, evaluate(*expr.children[i]));
    NIBBLE_TRY(Value value, evaluate(*expr.children[i + 1]));
    NIBBLE_RETURN_IF_ERROR(insert(run_.budget, items, std::move(key), std::move(value)));
  }
  return run_.budget.dict(std::move(items));
}

Expected<Value> Interpreter::evaluate_arithmetic(const Expr& expr) {
  NIBBLE_TRY(Value value, evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    NIBBLE_TRY(const Value operand, evaluate(*expr.children[i + 1]));
    NIBBLE_TRY(value, arithmetic(run_, expr.ops[i], value, operand));
  }
  return value;
}

Expected<Value> Interpreter::evaluate_compare(const Expr& expr) {
  NIBBLE_TRY(Value left, evaluate(*expr.children[0]));
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    NIBBLE_TRY(Value right, evaluate(*expr.children[i + 1]));
    NIBBLE_TRY(const bool holds, compare_with(run_, expr.ops[i], left, right));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Expected<Value> Interpreter::evaluate_concat(const Expr& expr) {
  Text out;
  for (const ExprPtr& child : expr.children) {
    NIBBLE_TRY(const Value value, evaluate(*child));
    NIBBLE_TRY(const Text text, to_text(run_.budget, value));
    NIBBLE_RETURN_IF_ERROR(run_.budget.check_text(out.size() + text.size()));
    out.append(text);
  }
  return run_.budget.text(std::move(out));
}

Expected<Value> Interpreter::evaluate_logic(const Expr& expr) {
  Value value;
  for (const ExprPtr& child : expr.children) {
    NIBBLE_TRY(value, evaluate(*child));
    if (is_true(value) == (expr.kind == ExprKind::kOr)) break;
  }
  return value;
}

Expected<Value> Interpreter::evaluate_if_else(const Expr& expr) {
  NIBBLE_TRY(const Value condition, evaluate(*expr.children[1]));
  if (is_true(condition)) return evaluate(*expr.children[0]);
  if (expr.children[2]) return evaluate(*expr.children[2]);
  return Value::undefined(fmt::format(
      "the inline if-expression on line {} evaluated to false and no else section was defined.", expr.line));
}

Expected<Value> Interpreter::evaluate_access(const Expr& expr) {
  NIBBLE_TRY(const Value value, evaluate(*expr.children[0]));
  switch (expr.kind) {
    case ExprKind::kNot:
      return Value(!is_true(value));
    case ExprKind::kNegate:
      return negate(value);
    case ExprKind::kPlus: {
      NIBBLE_TRY(const Value negative, negate(value));
      return negate(negative);
    }
    case ExprKind::kAttribute:
      return run_.attribute(value, expr.name);
    case ExprKind::kItem: {
      NIBBLE_TRY(const Value key, evaluate(*expr.children[1]));
      return run_.item(value, key);
    }
    case ExprKind::kSlice: {
      NIBBLE_TRY(const Value start, evaluate_optional(expr.children[1]));
      NIBBLE_TRY(const Value stop, evaluate_optional(expr.children[2]));
      NIBBLE_TRY(const Value step, evaluate_optional(expr.children[3]));
      return slice(run_, value, start, stop, step);
    }
    default: {  // kTest
      NIBBLE_TRY(CallArguments arguments, evaluate_arguments(expr.arguments));
      NIBBLE_TRY(const bool passed, run_.test(expr.name, value, std::move(arguments)));
      return Value(passed);
    }
  }
}

Expected<Value> Interpreter::apply_filter(const Expr& expr, const Value* captured) {
  Value value;
  if (!expr.children[0]) {
    value = *captured;
  } else if (captured) {
    NIBBLE_TRY(value, apply_filter(*expr.children[0], captured));
  } else {
    NIBBLE_TRY(value, evaluate(*expr.children[0]));
  }
  NIBBLE_TRY(CallArguments arguments, evaluate_arguments(expr.arguments));
  return run_.filter(expr.name, value, std::move(arguments));
}

Expected<Value> Interpreter::evaluate_call(const Expr& expr) {
  NIBBLE_TRY(const Value callee, evaluate(*expr.children[0]));
  NIBBLE_TRY(CallArguments arguments, evaluate_arguments(expr.arguments));
  return call(callee, std::move(arguments));
}

Expected<Value> Interpreter::call(const Value& callee, CallArguments arguments) {
  if (callee.undefined()) return raise_undefined(*callee.undefined());
  const Restore<size_t> calls(calls_, calls_ + 1);
  if (calls_ > run_.budget.limits().max_depth) {
    return raise("more than {} macros or loops are called inside each other", run_.budget.limits().max_depth);
  }
  return run_.call(callee, std::move(arguments));
}

Expected<CallArguments> Interpreter::evaluate_arguments(const Arguments& arguments) {
  CallArguments values;
  for (const ExprPtr& expr : arguments.positional) {
    NIBBLE_TRY(Value value, evaluate(*expr));
    values.positional.push_back(std::move(value));
  }
  for (const auto& argument : arguments.named) {
    NIBBLE_TRY(Value value, evaluate(*argument.second));
    values.named.emplace_back(argument.first, std::move(value));
  }
  if (arguments.star) {
    NIBBLE_TRY(const Value star, evaluate(*arguments.star));
    NIBBLE_TRY(const auto more, to_sequence(run_.budget, star));
    run_.budget.use(more->items.size());
    values.positional.insert(values.positional.end(), more->items.begin(), more->items.end());
  }
  if (arguments.double_star) {
    NIBBLE_TRY(const Value more, evaluate(*arguments.double_star));
    if (!more.dict()) return raise("argument after ** must be a mapping, not {}", type_name(more));
    for (const auto& [key, value] : more.dict()->items) {
      if (!key.text()) return raise("keywords must be strings");
      values.named.emplace_back(key.text()->bytes, value);
    }
  }
  return values;
}

}  // namespace nibble::jinja
