#ifndef NIBBLE_TOKENIZER_JINJA_RUNTIME_H_
#define NIBBLE_TOKENIZER_JINJA_RUNTIME_H_

// What operators, filters, tests and methods share while a template runs.

#include <ctime>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/tokenizer/jinja_value.h"

namespace nibble::jinja {

// The arguments of a call, put in the order of the parameters.
class BoundArguments {
 public:
  // Null if argument i was not given.
  const Value* at(size_t i) const { return i < values_.size() && values_[i] ? &*values_[i] : nullptr; }
  const Value& operator[](size_t i) const { return *values_[i]; }  // a required one
  bool flag(size_t i, bool fallback = false) const { return at(i) ? is_true(*at(i)) : fallback; }
  // Nothing if it is not given or None.
  Expected<std::optional<Int>> integer(size_t i) const;
  Expected<const Text*> text(size_t i) const;  // null if not given or None

  CallArguments raw;  // of functions that take anything

 private:
  friend Expected<BoundArguments> bind(std::string_view, std::string_view, size_t, CallArguments);
  std::vector<std::optional<Value>> values_;
};

// A filter, a test, a method or a function. `self` is what stands before the bar or the dot.
struct Builtin {
  std::string_view name;
  std::string_view parameters = {};  // separated by spaces; "*" takes anything
  size_t required = 0;               // so many of them must be given
  Expected<Value> (*function)(Run& run, const Value& self, const BoundArguments& arguments) = nullptr;
};

Expected<BoundArguments> bind(std::string_view function, std::string_view parameters, size_t required,
                              CallArguments arguments);

std::span<const Builtin> text_filters();
std::span<const Builtin> sequence_filters();
std::span<const Builtin> tests();
std::span<const Builtin> functions();  // range, namespace, raise_exception...
std::span<const Builtin> methods_of(const Value& value);
const Builtin* find_builtin(std::span<const Builtin> table, std::string_view name);

class Run {
 public:
  Run(const ChatTemplateLimits& limits, std::time_t now) : budget(limits), now_(now) {}

  // value.name: attributes and methods first, then keys; undefined if there is none.
  Expected<Value> attribute(const Value& value, const std::string& name);
  // value[key]: keys first, then attributes.
  Expected<Value> item(const Value& value, const Value& key);
  // Only attributes and methods: what the filter attr looks at.
  Expected<std::optional<Value>> own_attribute(const Value& value, std::string_view name);
  Expected<Value> call(const Value& callee, CallArguments arguments);
  Expected<Value> filter(const std::string& name, const Value& value, CallArguments arguments);
  Expected<bool> test(const std::string& name, const Value& value, CallArguments arguments);
  std::time_t now() const { return now_; }

  // Namespaces can refer to each other in circles; this breaks them.
  std::shared_ptr<Namespace> make_namespace();
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  Budget budget;

 private:
  const std::time_t now_;
  size_t filters_ = 0;  // that are running: map and its like call others
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

// Operators, as Python defines them.
Expected<Value> arithmetic(Run& run, std::string_view op, const Value& a, const Value& b);
Expected<Value> negate(const Value& value);
Expected<bool> compare_with(Run& run, std::string_view op, const Value& a, const Value& b);
Expected<Value> slice(Run& run, const Value& value, const Value& start, const Value& stop, const Value& step);

// "..." % value, "...".format(...), and the part behind the colon in {:>8.2f}.
Expected<Value> format_percent(Run& run, const Text& format, const Value& value);
Expected<Value> format_braces(Run& run, const Text& format, const CallArguments& arguments);

// json.dumps.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
Expected<Value> to_json(Run& run, const Value& value, const JsonStyle& style);

// round(number, digits) of a float: to even, as Python.
double round_to(double value, int digits);
// The content of int() and float() arguments, or nothing if it is no number.
std::optional<Int> parse_int(std::string_view text, int base);
std::optional<double> parse_float(std::string_view text);

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_RUNTIME_H_
