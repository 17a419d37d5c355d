#include <algorithm>
#include <cmath>

#include "nibble/tokenizer/jinja_runtime.h"

namespace nibble::jinja {
namespace {

Failure too_large() { return raise("an integer is too large"); }

Failure wrong_operands(std::string_view op, const Value& a, const Value& b) {
  return raise("unsupported operand type(s) for {}: '{}' and '{}'", op == "**" ? "** or pow()" : op,
               type_name(a), type_name(b));
}

Int floor_divide(Int a, Int b) {
  const Int quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

double float_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0.0 && (rest < 0) != (b < 0)) rest += b;
  return rest == 0.0 ? std::copysign(0.0, b) : rest;
}

double float_floor_divide(double a, double b) {
  const double rest = float_modulo(a, b);
  const double quotient = (a - rest) / b;
  if (quotient == 0.0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1.0 : floor;
}

Expected<Value> integer_power(Int base, Int exponent) {
  if (exponent < 0) {
    if (base == 0) return raise("0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  Int result = 1;
  if (base == 0 || base == 1) return Value(exponent == 0 ? result : base);
  if (base == -1) return Value(exponent % 2 == 0 ? result : base);
  for (Int i = 0; i < exponent; ++i) {  // at most 127 turns
    if (__builtin_mul_overflow(result, base, &result)) return too_large();
  }
  return Value(result);
}

Expected<Value> integer_arithmetic(std::string_view op, Int a, Int b) {
  Int result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    return integer_power(a, b);
  } else {
    if (b == 0) return raise("division by zero");
    // Wide enough that all 64-bit integers divide exactly before the rounding.
    if (op == "/")
      return Value(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    if (b == -1) return op == "//" ? integer_arithmetic("-", 0, a) : Expected<Value>(Value(Int{0}));
    const Int rest = a % b != 0 && (a < 0) != (b < 0) ? a % b + b : a % b;
    result = op == "//" ? floor_divide(a, b) : rest;
  }
  if (overflow) return too_large();
  return Value(result);
}

Expected<Value> float_arithmetic(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    if (a == 0.0 && b < 0) return raise("0.0 cannot be raised to a negative power");
    const double result = std::pow(a, b);
    if (std::isnan(result) && !std::isnan(a) && !std::isnan(b))
      return raise("the result is a complex number");
    if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) return raise("a float is too large");
    return Value(result);
  }
  if (b == 0.0) return raise("division by zero");
  if (op == "/") return Value(a / b);
  return Value(op == "//" ? float_floor_divide(a, b) : float_modulo(a, b));
}

Expected<Value> repeat_text(Run& run, const Text& text, Int times) {
  if (times <= 0 || text.bytes.empty()) return Value::constant("");
  const Int limit = static_cast<Int>(run.budget.limits().max_output_bytes);
  const auto count = static_cast<size_t>(std::min(times, limit + 1));  // so that the product cannot overflow
  NIBBLE_RETURN_IF_ERROR(run.budget.check_text(text.size() * count));
  Text out;
  out.bytes.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) out.append(text);
  return run.budget.text(std::move(out));
}

Expected<Value> repeat_sequence(Run& run, const Sequence& sequence, Int times) {
  const size_t limit = run.budget.limits().max_steps;
  std::vector<Value> items;
  if (times > 0 && !sequence.items.empty()) {
    if (times > static_cast<Int>(limit / sequence.items.size()))
      return raise("a list would have too many elements");
    for (Int i = 0; i < times; ++i) items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return run.budget.sequence(std::move(items), sequence.type);
}

bool is_list_or_tuple(const Value& value) {
  return value.sequence() && value.sequence()->type < SequenceType::kRange;
}

// Sums and products with strings and lists in them.
Expected<Value> add(Run& run, const Value& a, const Value& b) {
  if (a.text() && b.text()) {
    NIBBLE_RETURN_IF_ERROR(run.budget.check_text(a.text()->size() + b.text()->size()));
    Text out = *a.text();
    out.append(*b.text());
    return run.budget.text(std::move(out));
  }
  if (is_list_or_tuple(a) && is_list_or_tuple(b) &&
      (a.sequence()->type == SequenceType::kList) == (b.sequence()->type == SequenceType::kList)) {
    std::vector<Value> items = a.sequence()->items;
    items.insert(items.end(), b.sequence()->items.begin(), b.sequence()->items.end());
    return run.budget.sequence(std::move(items), a.sequence()->type == SequenceType::kList
                                                     ? SequenceType::kList
                                                     : SequenceType::kTuple);
  }
  if (a.text() || is_list_or_tuple(a)) {
    return raise("can only concatenate {0} (not \"{1}\") to {0}", type_name(a), type_name(b));
  }
  return wrong_operands("+", a, b);
}

Expected<Value> multiply(Run& run, const Value& a, const Value& b) {
  const Value& repeated = a.integer() ? b : a;
  const auto times = a.integer() ? a.integer() : b.integer();
  if (times && repeated.text()) return repeat_text(run, *repeated.text(), *times);
  if (times && is_list_or_tuple(repeated)) return repeat_sequence(run, *repeated.sequence(), *times);
  if (repeated.text() || is_list_or_tuple(repeated)) {
    return raise("can't multiply sequence by non-int of type '{}'",
                 type_name(a.text() || is_list_or_tuple(a) ? b : a));
  }
  return wrong_operands("*", a, b);
}

Expected<bool> contains(Run& run, const Value& item, const Value& container) {
  if (const Text* text = container.text()) {
    if (!item.text()) {
      return raise("'in <string>' requires string as left operand, not {}", type_name(item));
    }
    run.budget.use_chars(text->size());
    return text->bytes.find(item.text()->bytes) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    NIBBLE_TRY(const Value* found, find(run.budget, *dict, item));
    return found != nullptr;
  }
  if (!is_iterable(container)) return raise("argument of type '{}' is not iterable", type_name(container));
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, container));
  return std::any_of(sequence->items.begin(), sequence->items.end(), [&](const Value& candidate) {
    return candidate.same_as(item) || equal(run.budget, candidate, item);
  });
}

}  // namespace

Expected<Value> arithmetic(Run& run, std::string_view op, const Value& a, const Value& b) {
  if (op == "%" && a.text()) return format_percent(run, *a.text(), b);
  for (const Value* value : {&a, &b}) {
    if (value->undefined()) return raise_undefined(*value->undefined());
  }
  if (a.integer() && b.integer()) return integer_arithmetic(op, *a.integer(), *b.integer());
  if (a.number() && b.number()) return float_arithmetic(op, *a.number(), *b.number());
  if (op == "+") return add(run, a, b);
  if (op == "*") return multiply(run, a, b);
  return wrong_operands(op, a, b);
}

Expected<Value> negate(const Value& value) {
  if (const auto integer = value.integer()) return integer_arithmetic("-", 0, *integer);
  if (const double* real = value.real()) return Value(-*real);
  if (value.undefined()) return raise_undefined(*value.undefined());
  return raise("bad operand type for unary -: '{}'", type_name(value));
}

Expected<bool> compare_with(Run& run, std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return equal(run.budget, a, b);
  if (op == "!=") return !equal(run.budget, a, b);
  if (op == "in") return contains(run, a, b);
  if (op == "not in") return contains(run, a, b).map([](bool found) { return !found; });
  NIBBLE_TRY(const std::partial_ordering order, compare(run.budget, a, b, op));
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

Expected<Value> slice(Run& run, const Value& value, const Value& start, const Value& stop,
                      const Value& step) {
  if (value.undefined()) return raise_undefined(*value.undefined());
  const Text* text = value.text();
  const Sequence* sequence = value.sequence();
  if (value.dict()) return raise("unhashable type: 'slice'");
  if (!text && !(sequence && sequence->type <= SequenceType::kRange)) {
    return raise("'{}' object is not subscriptable", type_name(value));
  }
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->integer()) return raise("slice indices must be integers or None");
  }
  const bool by_byte =
      text && std::none_of(text->bytes.begin(), text->bytes.end(), [](char c) { return (c & 0x80) != 0; });
  const Int size =
      static_cast<Int>(text ? (by_byte ? text->size() : count_chars(text->bytes)) : sequence->items.size());
  const Int by = step.integer().value_or(1);
  if (by == 0) return raise("slice step cannot be zero");
  const auto clamp = [&](const Value& part, Int fallback) {
    if (part.is_none()) return fallback;
    const Int at = *part.integer() < 0 ? *part.integer() + size : *part.integer();
    return std::clamp<Int>(at, by < 0 ? -1 : 0, by < 0 ? size - 1 : size);
  };
  const Int first = clamp(start, by < 0 ? size - 1 : 0);
  const Int last = clamp(stop, by < 0 ? -1 : size);
  if (sequence && sequence->type == SequenceType::kRange) {
    const Int from = sequence->range[0];
    const Int stride = sequence->range[2];
    Int step_by = 0;
    if (__builtin_mul_overflow(stride, by, &step_by)) return too_large();
    return make_range(run.budget, from + first * stride, from + last * stride, step_by);
  }
  if (text) run.budget.use_bytes(text->size());
  if (text && by == 1) {
    const auto offset = [&](Int index) {
      const auto at = static_cast<size_t>(index);
      return by_byte ? at : byte_offset(text->bytes, at);
    };
    return run.budget.text(text->sub(offset(first), first < last ? offset(last) : 0));
  }
  if (text) run.budget.use_chars(text->size());
  std::vector<size_t> starts;  // where the characters begin
  for (size_t pos = 0; text && pos < text->size();) {
    starts.push_back(pos);
    next_char(text->bytes, pos);
  }
  Text out;
  std::vector<Value> items;
  for (Int i = first; by < 0 ? i > last : i < last; i += by) {
    const auto at = static_cast<size_t>(i);
    if (text) {
      out.append(*text, starts[at], at + 1 < starts.size() ? starts[at + 1] : text->size());
    } else {
      items.push_back(sequence->items[at]);
    }
    if ((by > 0 && by > size) || (by < 0 && by < -size)) break;  // one element, and no overflow
  }
  if (text) return run.budget.text(std::move(out));
  return run.budget.sequence(std::move(items),
                             sequence->type == SequenceType::kTuple || sequence->type == SequenceType::kGroup
                                 ? SequenceType::kTuple
                                 : SequenceType::kList);
}

}  // namespace nibble::jinja
