#include "nibble/tokenizer/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>

namespace nibble::jinja {
namespace {

// Containers in containers: bounds the recursion of everything that walks over a value.
constexpr size_t kMaxNesting = 200;

constexpr Int kMaxRange = 100'000;

}  // namespace

size_t depth_of(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  if (const Iterator* iterator = value.iterator()) return iterator->depth;
  return 0;
}

Value::Value(std::shared_ptr<Sequence> value) : data_(std::move(value)) {}
Value::Value(std::shared_ptr<const Dict> value) : data_(std::move(value)) {}
Value::Value(std::shared_ptr<Iterator> value) : data_(std::move(value)) {}
Value::Value(std::shared_ptr<Object> value) : data_(std::move(value)) {}

Value Value::undefined(std::string message) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(message))};
  return value;
}

std::shared_ptr<Sequence> Value::shared_sequence() const {
  const auto* pointer = std::get_if<std::shared_ptr<Sequence>>(&data_);
  return pointer ? *pointer : nullptr;
}

std::optional<Int> Value::integer() const {
  if (const Int* value = std::get_if<Int>(&data_)) return *value;
  if (const bool* value = boolean()) return Int{*value};
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const double* value = real()) return *value;
  if (const auto value = integer()) return static_cast<double>(*value);
  return std::nullopt;
}

bool Value::same_as(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_none()) return true;
  if (const bool* value = boolean()) return *value == *other.boolean();
  if (std::holds_alternative<Int>(data_)) return *integer() == *other.integer();  // small ints are shared
  if (const Text* value = text()) return value == other.text();
  if (const Sequence* value = sequence()) return value == other.sequence();
  if (const Dict* value = dict()) return value == other.dict();
  if (const Iterator* value = iterator()) return value == other.iterator();
  if (const Object* value = object()) return value == other.object();
  return false;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& item : items) {
    const Text* text = item.first.text();
    if (text && text->bytes == key) return &item.second;
  }
  return nullptr;
}

Expected<Value> Object::call(Run&, CallArguments) {
  return raise("'{}' object is not callable", type_name());
}

Expected<std::optional<Value>> Namespace::attribute(Run&, std::string_view name) {
  for (const auto& attribute : attributes) {
    if (attribute.first == name) return std::optional<Value>(attribute.second);
  }
  return std::optional<Value>();
}

Status Namespace::set(const std::string& name, Value value) {
  if (name.starts_with('_')) {
    return raise("a namespace cannot store {}: names that start with an underscore are private",
                 python_quoted(name));
  }
  for (auto& attribute : attributes) {
    if (attribute.first == name) {
      attribute.second = std::move(value);
      return {};
    }
  }
  attributes.emplace_back(name, std::move(value));
  return {};
}

bool Budget::use(size_t steps) {
  steps_left_ -= std::min(steps, steps_left_);
  return steps_left_ > 0;
}

Status Budget::check() const {
  if (steps_left_ > 0) return {};
  return raise("stopped after {} steps: the template does not seem to end", limits_.max_steps);
}

Status Budget::check_text(size_t bytes) const {
  if (bytes <= limits_.max_output_bytes) return {};
  return raise("a string would have more than {} bytes", limits_.max_output_bytes);
}

Status Budget::check_depth(size_t depth) const {
  if (depth <= kMaxNesting) return {};
  return raise("lists and dicts are nested more than {} deep", kMaxNesting);
}

Expected<Value> Budget::text_of(Text text) {
  NIBBLE_RETURN_IF_ERROR(check_text(text.size()));
  use_bytes(text.size() + text.data.size() * sizeof(TextRange));
  NIBBLE_RETURN_IF_ERROR(check());
  return Value(std::move(text));
}

Expected<Value> Budget::text(Text text) { return text_of(std::move(text)); }

Expected<Value> Budget::sequence(std::vector<Value> items, SequenceType type) {
  use(items.size());
  NIBBLE_RETURN_IF_ERROR(check());
  auto made = std::make_shared<Sequence>();
  made->type = type;
  for (const Value& item : items) made->depth = std::max(made->depth, depth_of(item) + 1);
  NIBBLE_RETURN_IF_ERROR(check_depth(made->depth));
  made->items = std::move(items);
  return Value(std::move(made));
}

Expected<Value> Budget::dict(std::vector<std::pair<Value, Value>> items) {
  use(items.size());
  NIBBLE_RETURN_IF_ERROR(check());
  auto made = std::make_shared<Dict>();
  for (const auto& item : items) {
    made->depth = std::max({made->depth, depth_of(item.first) + 1, depth_of(item.second) + 1});
  }
  NIBBLE_RETURN_IF_ERROR(check_depth(made->depth));
  made->items = std::move(items);
  return Value(std::shared_ptr<const Dict>(std::move(made)));
}

Expected<Value> Budget::iterator(std::vector<Value> items, std::optional<Error> error,
                                 std::string_view type) {
  use(items.size());
  NIBBLE_RETURN_IF_ERROR(check());
  auto made = std::make_shared<Iterator>();
  made->type = type;
  for (const Value& item : items) made->depth = std::max(made->depth, depth_of(item) + 1);
  NIBBLE_RETURN_IF_ERROR(check_depth(made->depth));
  made->items = std::move(items);
  made->error = std::move(error);
  return Value(std::move(made));
}

Failure raise_undefined(const Undefined& undefined) {
  return Failure(Error{ErrorCode::kDataLoss, *undefined.message});
}

std::string type_name(const Value& value) {
  if (value.undefined()) return "Undefined";
  if (value.is_none()) return "NoneType";
  if (value.boolean()) return "bool";
  if (value.integer()) return "int";
  if (value.real()) return "float";
  if (value.text()) return "str";
  if (value.dict()) return "dict";
  if (const Iterator* iterator = value.iterator()) return std::string(iterator->type);
  if (const Object* object = value.object()) return object->type_name();
  switch (value.sequence()->type) {
    case SequenceType::kList:
      return "list";
    case SequenceType::kTuple:
      return "tuple";
    case SequenceType::kGroup:
      return "_GroupTuple";
    case SequenceType::kRange:
      return "range";
    case SequenceType::kKeys:
      return "dict_keys";
    case SequenceType::kValues:
      return "dict_values";
    case SequenceType::kItems:
      return "dict_items";
  }
  return "object";
}

bool is_true(const Value& value) {
  if (value.undefined() || value.is_none()) return false;
  if (const auto number = value.integer()) return *number != 0;
  if (const double* number = value.real()) return *number != 0.0;
  if (const Text* text = value.text()) return !text->bytes.empty();
  if (const Sequence* sequence = value.sequence()) return !sequence->items.empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  return true;
}

Expected<size_t> length(const Value& value) {
  if (value.undefined()) return 0;
  if (const Text* text = value.text()) return count_chars(text->bytes);
  if (const Sequence* sequence = value.sequence()) return sequence->items.size();
  if (const Dict* dict = value.dict()) return dict->items.size();
  return raise("object of type '{}' has no len()", type_name(value));
}

bool is_iterable(const Value& value) {
  return value.undefined() || value.text() || value.sequence() || value.dict() || value.iterator();
}

Expected<std::shared_ptr<Sequence>> to_sequence(Budget& budget, const Value& value) {
  if (auto sequence = value.shared_sequence()) return sequence;
  std::vector<Value> items;
  if (const Text* text = value.text()) {
    for (size_t pos = 0; pos < text->size() && budget.use(1);) {
      const size_t begin = pos;
      next_char(text->bytes, pos);
      items.emplace_back(text->sub(begin, pos));
    }
  } else if (const Dict* dict = value.dict()) {
    for (const auto& item : dict->items) items.push_back(item.first);
  } else if (Iterator* iterator = value.iterator()) {
    items.assign(iterator->items.begin() + static_cast<std::ptrdiff_t>(iterator->next),
                 iterator->items.end());
    iterator->next = iterator->items.size();
    if (iterator->error) return Failure(*std::exchange(iterator->error, std::nullopt));
  } else if (!value.undefined()) {
    return raise("'{}' object is not iterable", type_name(value));
  }
  NIBBLE_TRY(const Value sequence, budget.sequence(std::move(items)));
  return sequence.shared_sequence();
}

Expected<Value> make_range(Budget& budget, Int start, Int stop, Int step) {
  constexpr Int kLimit = Int{1} << 64;  // far from overflow
  if (step == 0) return raise("range() arg 3 must not be zero");
  if (std::max({start, stop, step}) > kLimit || std::min({start, stop, step}) < -kLimit) {
    return raise("an integer is too large");
  }
  const Int span = step > 0 ? stop - start : start - stop;
  const Int count = span <= 0 ? 0 : (span - 1) / (step > 0 ? step : -step) + 1;
  if (count > kMaxRange) {
    return raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMaxRange);
  }
  std::vector<Value> items;
  for (Int i = 0; i < count; ++i) items.emplace_back(start + i * step);
  NIBBLE_TRY(Value made, budget.sequence(std::move(items), SequenceType::kRange));
  made.shared_sequence()->range = {start, stop, step};
  return made;
}

namespace {

// Whether two sequences can be equal or ordered: a tuple and a list never are.
bool same_sequence_type(const Sequence& a, const Sequence& b) {
  const auto plain = [](SequenceType type) {
    return type == SequenceType::kGroup ? SequenceType::kTuple : type;
  };
  return plain(a.type) == plain(b.type) && a.type != SequenceType::kValues;
}

}  // namespace

bool equal(Budget& budget, const Value& a, const Value& b) {
  if (!budget.use(1)) return false;
  if (a.undefined() || b.undefined()) return a.undefined() && b.undefined();
  if (a.integer() && b.integer()) return *a.integer() == *b.integer();
  if (a.number() && b.number()) return *a.number() == *b.number();
  if (a.text() && b.text()) {
    if (a.text()->size() != b.text()->size()) return false;
    return budget.use_bytes(a.text()->size()) && a.text()->bytes == b.text()->bytes;
  }
  if (a.sequence() && b.sequence()) {
    const auto& left = a.sequence()->items;
    const auto& right = b.sequence()->items;
    return same_sequence_type(*a.sequence(), *b.sequence()) && left.size() == right.size() &&
           std::equal(left.begin(), left.end(), right.begin(),
                      [&](const Value& x, const Value& y) { return x.same_as(y) || equal(budget, x, y); });
  }
  if (a.dict() && b.dict()) {
    if (a.dict() == b.dict()) return true;
    if (a.dict()->items.size() != b.dict()->items.size()) return false;
    return std::all_of(a.dict()->items.begin(), a.dict()->items.end(), [&](const auto& item) {
      const auto other = find(budget, *b.dict(), item.first);
      return other && *other && equal(budget, item.second, **other);
    });
  }
  return a.same_as(b);
}

Expected<std::partial_ordering> compare(Budget& budget, const Value& a, const Value& b, std::string_view op) {
  for (const Value* value : {&a, &b}) {
    if (value->undefined()) return raise_undefined(*value->undefined());
  }
  if (!budget.use(1)) return std::partial_ordering::unordered;
  if (a.integer() && b.integer()) return *a.integer() <=> *b.integer();
  if (a.number() && b.number()) return *a.number() <=> *b.number();
  if (a.text() && b.text()) {
    budget.use_bytes(std::min(a.text()->size(), b.text()->size()));
    return a.text()->bytes <=> b.text()->bytes;  // UTF-8 sorts as its code points
  }
  const Sequence* left = a.sequence();
  const Sequence* right = b.sequence();
  if (left && right && same_sequence_type(*left, *right) && left->type <= SequenceType::kGroup) {
    const size_t common = std::min(left->items.size(), right->items.size());
    for (size_t i = 0; i < common; ++i) {
      if (equal(budget, left->items[i], right->items[i])) continue;
      return compare(budget, left->items[i], right->items[i], op);
    }
    return left->items.size() <=> right->items.size();
  }
  return raise("'{}' not supported between instances of '{}' and '{}'", op, type_name(a), type_name(b));
}

Status check_hashable(const Value& value) {
  if (value.dict()) return raise("unhashable type: 'dict'");
  const Sequence* sequence = value.sequence();
  if (!sequence) return {};
  if (sequence->type == SequenceType::kList) return raise("unhashable type: 'list'");
  if (sequence->type != SequenceType::kTuple && sequence->type != SequenceType::kGroup) return {};
  for (const Value& item : sequence->items) NIBBLE_RETURN_IF_ERROR(check_hashable(item));
  return {};
}

Expected<const Value*> find(Budget& budget, const Dict& dict, const Value& key) {
  NIBBLE_RETURN_IF_ERROR(check_hashable(key));
  budget.use(dict.items.size() / 8);
  if (const Text* text = key.text()) return dict.find(text->bytes);
  for (const auto& item : dict.items) {
    if (equal(budget, item.first, key)) return &item.second;
  }
  return nullptr;
}

Status insert(Budget& budget, std::vector<std::pair<Value, Value>>& items, Value key, Value value) {
  NIBBLE_RETURN_IF_ERROR(check_hashable(key));
  for (auto& item : items) {
    if (!equal(budget, item.first, key)) continue;
    item.second = std::move(value);
    return {};
  }
  items.emplace_back(std::move(key), std::move(value));
  return budget.check();
}

}  // namespace nibble::jinja
