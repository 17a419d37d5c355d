#include "nibble/tokenizer/jinja_runtime.h"

#include <algorithm>

namespace nibble::jinja {
namespace {

// value.method, not yet called.
class BoundMethod : public Object {
 public:
  BoundMethod(Value self, const Builtin& method) : self_(std::move(self)), method_(method) {}
  std::string type_name() const override { return "builtin_function_or_method"; }
  std::string repr() const override {
    return fmt::format("<built-in method {} of {} object>", method_.name, jinja::type_name(self_));
  }
  Expected<Value> call(Run& run, CallArguments arguments) override {
    NIBBLE_TRY(const BoundArguments bound,
               bind(method_.name, method_.parameters, method_.required, std::move(arguments)));
    return method_.function(run, self_, bound);
  }

 private:
  const Value self_;
  const Builtin& method_;
};

// "'dict object'", as Jinja names an object in its messages.
std::string object_name(const Value& value) {
  if (value.is_none()) return "None";
  if (dynamic_cast<const Namespace*>(value.object())) return "jinja2.utils.Namespace object";
  return type_name(value) + " object";
}

Value missing_attribute(const Value& value, std::string_view name) {
  return Value::undefined(
      fmt::format("{} has no attribute {}", python_quoted(object_name(value)), python_quoted(name)));
}

Value unsafe_attribute(const Value& value, std::string_view name) {
  return Value::undefined(fmt::format("access to attribute {} of {} object is unsafe.", python_quoted(name),
                                      python_quoted(type_name(value))));
}

bool is_private(std::string_view name) { return name.starts_with("__") && name.ends_with("__"); }

Expected<Value> call_builtin(std::span<const Builtin> table, std::span<const Builtin> more,
                             std::string_view what, const std::string& name, Run& run, const Value& value,
                             CallArguments arguments) {
  const Builtin* builtin = find_builtin(table, name);
  if (!builtin) builtin = find_builtin(more, name);
  if (!builtin) return raise("No {} named {}.", what, python_quoted(name));
  NIBBLE_TRY(const BoundArguments bound,
             bind(builtin->name, builtin->parameters, builtin->required, std::move(arguments)));
  return builtin->function(run, value, bound);
}

}  // namespace

Expected<std::optional<Int>> BoundArguments::integer(size_t i) const {
  const Value* value = at(i);
  if (!value || value->is_none()) return std::optional<Int>();
  if (value->undefined()) return raise_undefined(*value->undefined());
  if (const auto integer = value->integer()) return integer;
  return raise("'{}' object cannot be interpreted as an integer", type_name(*value));
}

Expected<const Text*> BoundArguments::text(size_t i) const {
  const Value* value = at(i);
  if (!value || value->is_none()) return nullptr;
  if (value->undefined()) return raise_undefined(*value->undefined());
  if (value->text()) return value->text();
  return raise("a string is needed, not '{}'", type_name(*value));
}

Expected<BoundArguments> bind(std::string_view function, std::string_view parameters, size_t required,
                              CallArguments arguments) {
  BoundArguments bound;
  if (parameters == "*") {
    bound.raw = std::move(arguments);
    return bound;
  }
  std::vector<std::string_view> names;
  for (size_t begin = 0; begin < parameters.size();) {
    const size_t end = std::min(parameters.find(' ', begin), parameters.size());
    names.push_back(parameters.substr(begin, end - begin));
    begin = end + 1;
  }
  if (arguments.positional.size() > names.size()) {
    return raise("{}() takes at most {} arguments ({} given)", function, names.size(),
                 arguments.positional.size());
  }
  bound.values_.resize(names.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i)
    bound.values_[i] = std::move(arguments.positional[i]);
  for (auto& argument : arguments.named) {
    const auto name = std::find(names.begin(), names.end(), argument.first);
    if (name == names.end()) {
      return raise("{}() got an unexpected keyword argument {}", function, python_quoted(argument.first));
    }
    auto& slot = bound.values_[static_cast<size_t>(name - names.begin())];
    if (slot)
      return raise("{}() got multiple values for argument {}", function, python_quoted(argument.first));
    slot = std::move(argument.second);
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound.values_[i]) return raise("{}() misses the argument {}", function, python_quoted(names[i]));
  }
  return bound;
}

const Builtin* find_builtin(std::span<const Builtin> table, std::string_view name) {
  const auto found =
      std::find_if(table.begin(), table.end(), [name](const Builtin& b) { return b.name == name; });
  return found == table.end() ? nullptr : &*found;
}

Run::~Run() {
  for (const auto& names : namespaces_) names->attributes.clear();
}

std::shared_ptr<Namespace> Run::make_namespace() {
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

Expected<std::optional<Value>> Run::own_attribute(const Value& value, std::string_view name) {
  if (value.undefined() && !is_private(name)) return raise_undefined(*value.undefined());
  if (Object* object = value.object()) {
    NIBBLE_TRY(std::optional<Value> found, object->attribute(*this, name));
    if (found) return found;
  }
  if (is_private(name)) return std::optional<Value>(unsafe_attribute(value, name));
  if (const Sequence* sequence = value.sequence(); sequence && sequence->type == SequenceType::kGroup) {
    if (name == "grouper") return std::optional<Value>(sequence->items[0]);
    if (name == "list") return std::optional<Value>(sequence->items[1]);
  }
  const Builtin* method = find_builtin(methods_of(value), name);
  if (!method) return std::optional<Value>();
  if (!method->function)
    return std::optional<Value>(unsafe_attribute(value, name));  // it would change the value
  return std::optional<Value>(Value(std::shared_ptr<Object>(std::make_shared<BoundMethod>(value, *method))));
}

Expected<Value> Run::attribute(const Value& value, const std::string& name) {
  NIBBLE_TRY(const std::optional<Value> own, own_attribute(value, name));
  if (own) return *own;
  if (const Dict* dict = value.dict()) {
    budget.use(dict->items.size() / 8);
    if (const Value* found = dict->find(name)) return *found;
  }
  return missing_attribute(value, name);
}

Expected<Value> Run::item(const Value& value, const Value& key) {
  if (value.undefined()) return raise_undefined(*value.undefined());
  if (const Dict* dict = value.dict(); dict && check_hashable(key)) {
    NIBBLE_TRY(const Value* found, find(budget, *dict, key));
    if (found) return *found;
  }
  if (const auto index = key.integer()) {
    const Sequence* sequence = value.sequence();
    if (sequence && sequence->type <= SequenceType::kRange) {
      const Int size = static_cast<Int>(sequence->items.size());
      const Int at = *index < 0 ? *index + size : *index;
      if (at >= 0 && at < size) return sequence->items[static_cast<size_t>(at)];
    }
    if (const Text* text = value.text()) {
      budget.use_chars(text->size());  // the scan for the character
      const Int size = static_cast<Int>(count_chars(text->bytes));
      const Int at = *index < 0 ? *index + size : *index;
      if (at >= 0 && at < size) {
        const size_t begin = byte_offset(text->bytes, static_cast<size_t>(at));
        size_t end = begin;
        next_char(text->bytes, end);
        return Value(text->sub(begin, end));
      }
    }
  }
  if (const Text* name = key.text()) {
    NIBBLE_TRY(const std::optional<Value> own, own_attribute(value, name->bytes));
    return own ? *own : missing_attribute(value, name->bytes);
  }
  NIBBLE_TRY(const Text repr, to_repr(budget, key));
  return Value::undefined(fmt::format("{} has no element {}", object_name(value), repr.bytes));
}

Expected<Value> Run::call(const Value& callee, CallArguments arguments) {
  if (callee.undefined()) return raise_undefined(*callee.undefined());
  if (Object* object = callee.object()) return object->call(*this, std::move(arguments));
  return raise("'{}' object is not callable", type_name(callee));
}

Expected<Value> Run::filter(const std::string& name, const Value& value, CallArguments arguments) {
  if (filters_ >= budget.limits().max_depth) {
    return raise("filters call each other more than {} deep", budget.limits().max_depth);
  }
  ++filters_;
  Expected<Value> result =
      call_builtin(text_filters(), sequence_filters(), "filter", name, *this, value, std::move(arguments));
  --filters_;
  return result;
}

Expected<bool> Run::test(const std::string& name, const Value& value, CallArguments arguments) {
  NIBBLE_TRY(const Value result, call_builtin(tests(), {}, "test", name, *this, value, std::move(arguments)));
  return is_true(result);
}

}  // namespace nibble::jinja
