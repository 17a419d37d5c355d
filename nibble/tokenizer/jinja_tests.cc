// The tests behind `is`, and the global functions.

#include <algorithm>

#include "nibble/tokenizer/jinja_runtime.h"

namespace nibble::jinja {
namespace {

using Args = BoundArguments;
using Result = Expected<Value>;

Result is_defined(Run&, const Value& self, const Args&) { return Value(!self.undefined()); }
Result is_undefined(Run&, const Value& self, const Args&) { return Value(self.undefined() != nullptr); }
Result is_none(Run&, const Value& self, const Args&) { return Value(self.is_none()); }
Result is_boolean(Run&, const Value& self, const Args&) { return Value(self.boolean() != nullptr); }
Result is_the_true(Run&, const Value& self, const Args&) { return Value(self.boolean() && *self.boolean()); }
Result is_the_false(Run&, const Value& self, const Args&) {
  return Value(self.boolean() && !*self.boolean());
}
Result is_integer(Run&, const Value& self, const Args&) {
  return Value(self.integer().has_value() && !self.boolean());
}
Result is_float(Run&, const Value& self, const Args&) { return Value(self.real() != nullptr); }
Result is_number(Run&, const Value& self, const Args&) { return Value(self.number().has_value()); }
Result is_string(Run&, const Value& self, const Args&) { return Value(self.text() != nullptr); }
Result is_mapping(Run&, const Value& self, const Args&) { return Value(self.dict() != nullptr); }
Result is_iterable_value(Run&, const Value& self, const Args&) { return Value(is_iterable(self)); }
Result is_callable(Run&, const Value& self, const Args&) {
  return Value(self.undefined() || (self.object() && self.object()->callable()));
}
Result is_escaped(Run&, const Value&, const Args&) { return Value(false); }

// Strings, lists, tuples, ranges and dicts: what has a length and can be indexed.
Result is_sequence(Run&, const Value& self, const Args&) {
  const Sequence* sequence = self.sequence();
  return Value(self.text() || self.dict() || self.undefined() ||
               (sequence && sequence->type <= SequenceType::kRange));
}

Result remainder_is(Run& run, const Value& self, const Value& divisor, Int wanted) {
  NIBBLE_TRY(const Value rest, arithmetic(run, "%", self, divisor));
  return Value(equal(run.budget, rest, Value(wanted)));
}

Result is_odd(Run& run, const Value& self, const Args&) { return remainder_is(run, self, Value(Int{2}), 1); }
Result is_even(Run& run, const Value& self, const Args&) { return remainder_is(run, self, Value(Int{2}), 0); }
Result is_divisible(Run& run, const Value& self, const Args& args) {
  return remainder_is(run, self, args[0], 0);
}

Result is_cased_as(Run& run, const Value& self, std::string_view method) {
  NIBBLE_TRY(Text text, to_text(run.budget, self));
  const Value value(std::move(text));
  return find_builtin(methods_of(value), method)->function(run, value, Args());
}

Result is_lower_case(Run& run, const Value& self, const Args&) { return is_cased_as(run, self, "islower"); }
Result is_upper_case(Run& run, const Value& self, const Args&) { return is_cased_as(run, self, "isupper"); }
Result is_same(Run&, const Value& self, const Args& args) { return Value(self.same_as(args[0])); }

Result is_filter(Run&, const Value& self, const Args&) {
  NIBBLE_RETURN_IF_ERROR(check_hashable(self));
  return Value(self.text() && (find_builtin(text_filters(), self.text()->bytes) ||
                               find_builtin(sequence_filters(), self.text()->bytes)));
}
Result is_test(Run&, const Value& self, const Args&) {
  NIBBLE_RETURN_IF_ERROR(check_hashable(self));
  return Value(self.text() && find_builtin(tests(), self.text()->bytes));
}

Result compared(Run& run, std::string_view op, const Value& self, const Args& args) {
  NIBBLE_TRY(const bool result, compare_with(run, op, self, args[0]));
  return Value(result);
}

Result is_equal(Run& run, const Value& self, const Args& args) { return compared(run, "==", self, args); }
Result is_not_equal(Run& run, const Value& self, const Args& args) { return compared(run, "!=", self, args); }
Result is_less(Run& run, const Value& self, const Args& args) { return compared(run, "<", self, args); }
Result is_at_most(Run& run, const Value& self, const Args& args) { return compared(run, "<=", self, args); }
Result is_greater(Run& run, const Value& self, const Args& args) { return compared(run, ">", self, args); }
Result is_at_least(Run& run, const Value& self, const Args& args) { return compared(run, ">=", self, args); }
Result is_in(Run& run, const Value& self, const Args& args) { return compared(run, "in", self, args); }

constexpr Builtin kTests[] = {
    {"!=", "other", 1, is_not_equal},
    {"<", "other", 1, is_less},
    {"<=", "other", 1, is_at_most},
    {"==", "other", 1, is_equal},
    {">", "other", 1, is_greater},
    {">=", "other", 1, is_at_least},
    {"boolean", "", 0, is_boolean},
    {"callable", "", 0, is_callable},
    {"defined", "", 0, is_defined},
    {"divisibleby", "num", 1, is_divisible},
    {"eq", "other", 1, is_equal},
    {"equalto", "other", 1, is_equal},
    {"escaped", "", 0, is_escaped},
    {"even", "", 0, is_even},
    {"false", "", 0, is_the_false},
    {"filter", "", 0, is_filter},
    {"float", "", 0, is_float},
    {"ge", "other", 1, is_at_least},
    {"greaterthan", "other", 1, is_greater},
    {"gt", "other", 1, is_greater},
    {"in", "seq", 1, is_in},
    {"integer", "", 0, is_integer},
    {"iterable", "", 0, is_iterable_value},
    {"le", "other", 1, is_at_most},
    {"lessthan", "other", 1, is_less},
    {"lower", "", 0, is_lower_case},
    {"lt", "other", 1, is_less},
    {"mapping", "", 0, is_mapping},
    {"ne", "other", 1, is_not_equal},
    {"none", "", 0, is_none},
    {"number", "", 0, is_number},
    {"odd", "", 0, is_odd},
    {"sameas", "other", 1, is_same},
    {"sequence", "", 0, is_sequence},
    {"string", "", 0, is_string},
    {"test", "", 0, is_test},
    {"true", "", 0, is_the_true},
    {"undefined", "", 0, is_undefined},
    {"upper", "", 0, is_upper_case},
};

Result raise_exception(Run& run, const Value&, const Args& args) {
  NIBBLE_TRY(const Text message, to_text(run.budget, args[0]));
  return Failure(Error{ErrorCode::kInvalidArgument, message.bytes})
      .with_fix("The template refuses this conversation: change the messages, or use --chat-template FILE.");
}

Result strftime_now(Run& run, const Value&, const Args& args) {
  NIBBLE_TRY(const Text* format, args.text(0));
  if (!format) return raise("strftime() argument 1 must be str, not None");
  if (format->bytes.empty()) return Value::constant("");
  const std::time_t now = run.now();
  std::tm local = {};
  if (!localtime_r(&now, &local)) return raise("the current time cannot be told");
  char buffer[1024];
  const size_t size = std::strftime(buffer, sizeof(buffer), format->bytes.c_str(), &local);
  if (size == 0) return raise("the time format {} gives no text, or too much", python_quoted(format->bytes));
  Text out;
  out.append(std::string_view(buffer, size), !format->data.empty());
  return run.budget.text(std::move(out));
}

Result range(Run& run, const Value&, const Args& args) {
  NIBBLE_TRY(const std::optional<Int> first, args.integer(0));
  NIBBLE_TRY(const std::optional<Int> second, args.integer(1));
  NIBBLE_TRY(const std::optional<Int> third, args.integer(2));
  if (!first) return raise("'NoneType' object cannot be interpreted as an integer");
  return make_range(run.budget, second ? *first : 0, second ? *second : *first, third.value_or(1));
}

// The arguments of dict(): a mapping or a list of pairs, and keywords.
Expected<std::vector<std::pair<Value, Value>>> dict_items(Run& run, const Args& args) {
  std::vector<std::pair<Value, Value>> items;
  if (args.raw.positional.size() > 1) return raise("dict expected at most 1 argument");
  if (!args.raw.positional.empty()) {
    const Value& source = args.raw.positional[0];
    if (source.dict()) {
      items = source.dict()->items;
    } else {
      NIBBLE_TRY(const auto pairs, to_sequence(run.budget, source));
      for (const Value& pair : pairs->items) {
        NIBBLE_TRY(const auto parts, to_sequence(run.budget, pair));
        if (parts->items.size() != 2) return raise("dictionary update sequence element must have length 2");
        NIBBLE_RETURN_IF_ERROR(insert(run.budget, items, parts->items[0], parts->items[1]));
      }
    }
  }
  for (const auto& [name, value] : args.raw.named) {
    NIBBLE_RETURN_IF_ERROR(insert(run.budget, items, Value::constant(name), value));
  }
  return items;
}

Result dict(Run& run, const Value&, const Args& args) {
  NIBBLE_TRY(auto items, dict_items(run, args));
  return run.budget.dict(std::move(items));
}

Result make_namespace(Run& run, const Value&, const Args& args) {
  NIBBLE_TRY(const auto items, dict_items(run, args));
  const std::shared_ptr<Namespace> names = run.make_namespace();
  for (const auto& [name, value] : items) {
    if (!name.text()) return raise("the names of a namespace must be strings");
    NIBBLE_RETURN_IF_ERROR(names->set(name.text()->bytes, value));
  }
  return Value(std::shared_ptr<Object>(names));
}

constexpr Builtin kFunctions[] = {
    {"dict", "*", 0, dict},
    {"namespace", "*", 0, make_namespace},
    {"raise_exception", "message", 1, raise_exception},
    {"range", "start stop step", 1, range},
    {"strftime_now", "format", 1, strftime_now},
};

}  // namespace

std::span<const Builtin> tests() { return kTests; }
std::span<const Builtin> functions() { return kFunctions; }

}  // namespace nibble::jinja
