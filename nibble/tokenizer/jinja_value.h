#ifndef NIBBLE_TOKENIZER_JINJA_VALUE_H_
#define NIBBLE_TOKENIZER_JINJA_VALUE_H_

// The values of a chat template, with the semantics of the Python objects they stand for. Strings,
// lists and dicts are shared and immutable; only namespaces and loops change.

#include <array>
#include <compare>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/tokenizer/jinja_text.h"

namespace nibble::jinja {

// Wide enough for every integer of JSON and for most of what Python does with them; what does not
// fit is an error.
__extension__ typedef __int128 Int;

class Value;
class Object;
class Budget;
struct Sequence;
struct Dict;
struct Iterator;

struct None {};

// What a missing name or attribute evaluates to: it prints as nothing, and using it is this error.
struct Undefined {
  std::shared_ptr<const std::string> message;
};

class Value {
 public:
  Value() : data_(None{}) {}
  Value(bool value) : data_(value) {}        // NOLINT(google-explicit-constructor)
  Value(Int value) : data_(value) {}         // NOLINT(google-explicit-constructor)
  Value(double value) : data_(value) {}      // NOLINT(google-explicit-constructor)
  Value(std::shared_ptr<Sequence> value);    // NOLINT(google-explicit-constructor)
  Value(std::shared_ptr<const Dict> value);  // NOLINT(google-explicit-constructor)
  Value(std::shared_ptr<Iterator> value);    // NOLINT(google-explicit-constructor)
  Value(std::shared_ptr<Object> value);      // NOLINT(google-explicit-constructor)
  explicit Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  static Value from_size(size_t value) { return Value(static_cast<Int>(value)); }
  static Value constant(std::string text) { return Value(Text(std::move(text))); }
  static Value undefined(std::string message);

  // The content if it is of that type, or null.
  const Undefined* undefined() const { return std::get_if<Undefined>(&data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const Text* text() const { return pointee<std::shared_ptr<const Text>>(); }
  const Sequence* sequence() const { return pointee<std::shared_ptr<Sequence>>(); }
  const Dict* dict() const { return pointee<std::shared_ptr<const Dict>>(); }
  Iterator* iterator() const { return pointee<std::shared_ptr<Iterator>>(); }
  Object* object() const { return pointee<std::shared_ptr<Object>>(); }
  std::shared_ptr<Sequence> shared_sequence() const;
  bool is_none() const { return std::holds_alternative<None>(data_); }
  // Python's int includes True and False.
  std::optional<Int> integer() const;
  // Any number as double.
  std::optional<double> number() const;

  // Python's `is`: the same object, not an equal one.
  bool same_as(const Value& other) const;

 private:
  template <class Pointer>
  auto pointee() const -> decltype(std::declval<Pointer>().get()) {
    const Pointer* pointer = std::get_if<Pointer>(&data_);
    return pointer ? pointer->get() : nullptr;
  }

  std::variant<Undefined, None, bool, Int, double, std::shared_ptr<const Text>, std::shared_ptr<Sequence>,
               std::shared_ptr<const Dict>, std::shared_ptr<Iterator>, std::shared_ptr<Object>>
      data_;
};

enum class SequenceType { kList, kTuple, kGroup, kRange, kKeys, kValues, kItems };

struct Sequence {
  SequenceType type = SequenceType::kList;
  std::vector<Value> items;
  size_t depth = 1;                      // of nested containers
  std::array<Int, 3> range = {0, 0, 1};  // start, stop and step of a range
};

// In the order of insertion. Messages and schemas have a handful of keys, so a lookup is a scan.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  size_t depth = 1;

  const Value* find(std::string_view key) const;
};

// A Python generator: read once, always true, without length.
struct Iterator {
  std::string_view type = "generator";
  std::vector<Value> items;
  size_t next = 0;
  std::optional<Error> error;  // raised behind the last item
  size_t depth = 1;
};

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Run;

// Whatever has attributes or can be called: functions, methods, macros, namespaces, loops.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string type_name() const = 0;
  virtual std::string repr() const { return "<" + type_name() + ">"; }
  // Nothing if there is no such attribute.
  virtual Expected<std::optional<Value>> attribute(Run&, std::string_view) { return std::optional<Value>(); }
  virtual bool callable() const { return true; }
  virtual Expected<Value> call(Run& run, CallArguments arguments);
};

class Namespace : public Object {
 public:
  std::string type_name() const override { return "Namespace"; }
  bool callable() const override { return false; }
  Expected<std::optional<Value>> attribute(Run& run, std::string_view name) override;
  Status set(const std::string& name, Value value);

  std::vector<std::pair<std::string, Value>> attributes;
};

// What a rendering may still use. Costs are rough: a step is an evaluated node, an element of a new
// list, 64 copied bytes of a string, or 16 that are looked at one by one.
class Budget {
 public:
  explicit Budget(const ChatTemplateLimits& limits) : limits_(limits), steps_left_(limits.max_steps) {}

  const ChatTemplateLimits& limits() const { return limits_; }
  // False once nothing is left; `check` turns that into an error.
  bool use(size_t steps);
  bool use_bytes(size_t bytes) { return use(bytes / 64); }
  bool use_chars(size_t bytes) { return use(bytes / 16); }  // work on single characters is slower
  Status check() const;
  // A string of that size may be made.
  Status check_text(size_t bytes) const;

  // The constructors of everything that can be large.
  Expected<Value> text(Text text);
  Expected<Value> text(std::string constant) { return text_of(Text(std::move(constant))); }
  Expected<Value> sequence(std::vector<Value> items, SequenceType type = SequenceType::kList);
  Expected<Value> dict(std::vector<std::pair<Value, Value>> items);
  Expected<Value> iterator(std::vector<Value> items, std::optional<Error> error = {},
                           std::string_view type = "generator");

 private:
  Expected<Value> text_of(Text text);
  Status check_depth(size_t depth) const;

  ChatTemplateLimits limits_;
  size_t steps_left_;
};

// Wrong types, missing attributes and the like: what Python would raise. The template came with the model, so
// that it is data that is wrong, and not the request; of that only raise_exception speaks.
template <class... Args>
Failure raise(fmt::format_string<Args...> what, Args&&... args) {
  return fail(ErrorCode::kDataLoss, what, std::forward<Args>(args)...);
}
Failure raise_undefined(const Undefined& undefined);

size_t depth_of(const Value& value);        // of the containers in it
std::string type_name(const Value& value);  // type(value).__name__
bool is_true(const Value& value);
Expected<size_t> length(const Value& value);
bool is_iterable(const Value& value);
// Anything iterable as a sequence; an iterator is used up.
Expected<std::shared_ptr<Sequence>> to_sequence(Budget& budget, const Value& value);

// range(start, stop, step), of at most 100,000 elements: the limit of Jinja's sandbox.
Expected<Value> make_range(Budget& budget, Int start, Int stop, Int step);

// Once the budget is used up the answer is arbitrary, and the next step fails.
bool equal(Budget& budget, const Value& a, const Value& b);
// `op` names the operator in the message for values without an order.
Expected<std::partial_ordering> compare(Budget& budget, const Value& a, const Value& b, std::string_view op);
// A key that compares equal to `key`, which must be hashable.
Expected<const Value*> find(Budget& budget, const Dict& dict, const Value& key);
// Replaces or appends.
Status insert(Budget& budget, std::vector<std::pair<Value, Value>>& items, Value key, Value value);
Status check_hashable(const Value& value);

std::string print_int(Int value);
std::string print_float(double value);                       // repr(float)
Expected<Text> to_text(Budget& budget, const Value& value);  // str()
Expected<Text> to_repr(Budget& budget, const Value& value);  // repr()
std::string python_quoted(std::string_view text);            // repr(str)

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_VALUE_H_
