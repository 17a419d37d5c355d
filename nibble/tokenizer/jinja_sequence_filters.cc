// Filters of lists and dicts.

#include <algorithm>

#include "nibble/tokenizer/jinja_runtime.h"

namespace nibble::jinja {
namespace {

using Args = BoundArguments;
using Result = Expected<Value>;

Result lowered(Run& run, const Value& value) {
  if (!value.text()) return value;
  run.budget.use_chars(value.text()->size());
  NIBBLE_RETURN_IF_ERROR(run.budget.check());
  return run.budget.text(to_lower(*value.text()));
}

// "name.0.other": what sort(attribute=...) and its like look up in each item.
class AttributePath {
 public:
  // Null or None stands for the item itself.
  static Expected<AttributePath> parse(const Value* attribute) {
    AttributePath path;
    if (!attribute || attribute->is_none()) return path;
    const Text* text = attribute->text();
    if (!text) {
      path.parts_.push_back(*attribute);
      return path;
    }
    for (size_t begin = 0; begin <= text->size();) {
      const size_t end = std::min(text->bytes.find('.', begin), text->size());
      const std::string part = text->bytes.substr(begin, end - begin);
      const bool is_index = !part.empty() && part.find_first_not_of("0123456789") == part.npos;
      const auto index = is_index ? parse_int(part, 10) : std::nullopt;
      path.parts_.push_back(index ? Value(*index) : Value::constant(part));
      begin = end + 1;
    }
    return path;
  }

  Result get(Run& run, Value item, const Value* fallback = nullptr) const {
    for (const Value& part : parts_) {
      NIBBLE_TRY(item, run.item(item, part));
      if (fallback && !fallback->is_none() && item.undefined()) item = *fallback;
    }
    return item;
  }

  Result key(Run& run, const Value& item, bool case_sensitive, const Value* fallback = nullptr) const {
    NIBBLE_TRY(Value value, get(run, item, fallback));
    if (case_sensitive) return value;
    return lowered(run, value);
  }

 private:
  std::vector<Value> parts_;
};

// Sorts items by their keys; the order of equal ones stays.
struct Keyed {
  Value key;
  Value item;
};

Expected<std::vector<Keyed>> sorted(Run& run, std::vector<Keyed> keyed, bool reverse) {
  Status status;
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    if (!status) return false;
    const auto order = compare(run.budget, reverse ? b.key : a.key, reverse ? a.key : b.key, "<");
    if (!order) status = Failure(order.error());
    return order && *order < 0;
  });
  NIBBLE_RETURN_IF_ERROR(status);
  NIBBLE_RETURN_IF_ERROR(run.budget.check());
  return keyed;
}

std::vector<Value> items_of(std::vector<Keyed> keyed) {
  std::vector<Value> items;
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return items;
}

Result length_of(Run&, const Value& self, const Args&) {
  NIBBLE_TRY(const size_t count, length(self));
  return Value::from_size(count);
}

Result first(Run& run, const Value& self, const Args&) {
  if (Iterator* iterator = self.iterator(); iterator && iterator->next < iterator->items.size()) {
    return iterator->items[iterator->next++];
  }
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  if (sequence->items.empty()) return Value::undefined("No first item, sequence was empty.");
  return sequence->items.front();
}

Result last(Run& run, const Value& self, const Args&) {
  if (self.iterator()) return raise("'{}' object is not reversible", type_name(self));
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  if (sequence->items.empty()) return Value::undefined("No last item, sequence was empty.");
  return sequence->items.back();
}

Result list(Run& run, const Value& self, const Args&) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  return run.budget.sequence(sequence->items);
}

Result reverse(Run& run, const Value& self, const Args&) {
  if (const Text* text = self.text()) return slice(run, Value(*text), Value(), Value(), Value(Int{-1}));
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  std::vector<Value> items(sequence->items.rbegin(), sequence->items.rend());
  if (self.iterator()) return run.budget.sequence(std::move(items));
  return run.budget.iterator(std::move(items), {}, "list_reverseiterator");
}

Result join_filter(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  NIBBLE_TRY(const Text separator, args.at(0) ? to_text(run.budget, args[0]) : Expected<Text>(Text()));
  NIBBLE_TRY(const AttributePath path, AttributePath::parse(args.at(1)));
  Text out;
  for (size_t i = 0; i < sequence->items.size(); ++i) {
    if (i > 0) out.append(separator);
    NIBBLE_TRY(const Value item, path.get(run, sequence->items[i]));
    NIBBLE_TRY(const Text text, to_text(run.budget, item));
    out.append(text);
    NIBBLE_RETURN_IF_ERROR(run.budget.check_text(out.size()));
    NIBBLE_RETURN_IF_ERROR(run.budget.check());
  }
  return run.budget.text(std::move(out));
}

Result items_filter(Run& run, const Value& self, const Args&) {
  if (self.undefined()) return run.budget.iterator({});
  if (!self.dict()) return raise("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict()->items) {
    NIBBLE_TRY(Value pair, run.budget.sequence({key, value}, SequenceType::kTuple));
    pairs.push_back(std::move(pair));
  }
  return run.budget.iterator(std::move(pairs));
}

Result dictsort(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const Text* by, args.text(1));
  const bool by_value = by && by->bytes == "value";
  if (by && !by_value && by->bytes != "key") return raise("You can only sort by either \"key\" or \"value\"");
  if (self.undefined()) return raise_undefined(*self.undefined());
  if (!self.dict()) return raise("'{} object' has no attribute 'items'", type_name(self));
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : self.dict()->items) {
    NIBBLE_TRY(Value pair, run.budget.sequence({key, value}, SequenceType::kTuple));
    const Value& wanted = by_value ? value : key;
    NIBBLE_TRY(Value sort_key, args.flag(0) ? Result(wanted) : lowered(run, wanted));
    keyed.push_back({std::move(sort_key), std::move(pair)});
  }
  NIBBLE_TRY(keyed, sorted(run, std::move(keyed), args.flag(2)));
  return run.budget.sequence(items_of(std::move(keyed)));
}

Result sort(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  // Several attributes, with commas between them, make the key a list.
  std::vector<AttributePath> paths;
  const Text* attributes = args.at(2) ? args[2].text() : nullptr;
  for (size_t begin = 0; attributes && begin <= attributes->size();) {
    const size_t end = std::min(attributes->bytes.find(',', begin), attributes->size());
    const Value part = Value::constant(attributes->bytes.substr(begin, end - begin));
    NIBBLE_TRY(AttributePath path, AttributePath::parse(&part));
    paths.push_back(std::move(path));
    begin = end + 1;
  }
  if (!attributes) {
    NIBBLE_TRY(AttributePath path, AttributePath::parse(args.at(2)));
    paths.push_back(std::move(path));
  }
  std::vector<Keyed> keyed;
  for (const Value& item : sequence->items) {
    std::vector<Value> keys;
    for (const AttributePath& path : paths) {
      NIBBLE_TRY(Value key, path.key(run, item, args.flag(1)));
      keys.push_back(std::move(key));
    }
    NIBBLE_TRY(Value key, run.budget.sequence(std::move(keys)));
    keyed.push_back({std::move(key), item});
  }
  NIBBLE_TRY(keyed, sorted(run, std::move(keyed), args.flag(0)));
  return run.budget.sequence(items_of(std::move(keyed)));
}

Result unique(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  NIBBLE_TRY(const AttributePath path, AttributePath::parse(args.at(1)));
  std::vector<Value> seen;
  std::vector<Value> kept;
  for (const Value& item : sequence->items) {
    NIBBLE_TRY(Value key, path.key(run, item, args.flag(0)));
    NIBBLE_RETURN_IF_ERROR(check_hashable(key));
    if (std::any_of(seen.begin(), seen.end(),
                    [&](const Value& other) { return equal(run.budget, key, other); }))
      continue;
    NIBBLE_RETURN_IF_ERROR(run.budget.check());
    seen.push_back(std::move(key));
    kept.push_back(item);
  }
  return run.budget.iterator(std::move(kept));
}

Result extreme(Run& run, const Value& self, const Args& args, bool largest) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  NIBBLE_TRY(const AttributePath path, AttributePath::parse(args.at(1)));
  if (sequence->items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  std::optional<Keyed> best;
  for (const Value& item : sequence->items) {
    NIBBLE_TRY(Value key, path.key(run, item, args.flag(0)));
    if (best) {
      NIBBLE_TRY(const auto order, compare(run.budget, key, best->key, largest ? ">" : "<"));
      if (largest ? !(order > 0) : !(order < 0)) continue;
    }
    best = Keyed{std::move(key), item};
  }
  return best->item;
}

Result smallest(Run& run, const Value& self, const Args& args) { return extreme(run, self, args, false); }
Result largest(Run& run, const Value& self, const Args& args) { return extreme(run, self, args, true); }

Result sum(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  NIBBLE_TRY(const AttributePath path, AttributePath::parse(args.at(0)));
  Value total = args.at(1) ? *args.at(1) : Value(Int{0});
  if (total.text()) return raise("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : sequence->items) {
    NIBBLE_TRY(const Value term, path.get(run, item));
    NIBBLE_TRY(total, arithmetic(run, "+", total, term));
  }
  return total;
}

Result groupby(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  NIBBLE_TRY(const AttributePath path, AttributePath::parse(args.at(0)));
  const bool case_sensitive = args.flag(2);
  std::vector<Keyed> keyed;
  for (const Value& item : sequence->items) {
    NIBBLE_TRY(Value key, path.key(run, item, case_sensitive, args.at(1)));
    keyed.push_back({std::move(key), item});
  }
  NIBBLE_TRY(keyed, sorted(run, std::move(keyed), false));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> members;
    size_t end = begin;
    while (end < keyed.size() && equal(run.budget, keyed[begin].key, keyed[end].key))
      members.push_back(keyed[end++].item);
    NIBBLE_RETURN_IF_ERROR(run.budget.check());
    if (end == begin) members.push_back(keyed[end++].item);  // a NaN equals nothing
    NIBBLE_TRY(Value name, path.get(run, members[0], args.at(1)));
    NIBBLE_TRY(Value content, run.budget.sequence(std::move(members)));
    NIBBLE_TRY(Value group, run.budget.sequence({std::move(name), std::move(content)}, SequenceType::kGroup));
    groups.push_back(std::move(group));
    begin = end;
  }
  return run.budget.sequence(std::move(groups));
}

Result batch(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  NIBBLE_TRY(const std::optional<Int> width, args.integer(0));
  const Int size = width.value_or(0);
  const bool fill = args.at(1) && !args[1].is_none();
  std::vector<Value> rows;
  std::vector<Value> row;
  const auto finish_row = [&]() -> Status {
    NIBBLE_TRY(Value made, run.budget.sequence(std::exchange(row, {})));
    rows.push_back(std::move(made));
    return {};
  };
  for (const Value& item : sequence->items) {
    if (static_cast<Int>(row.size()) == size) NIBBLE_RETURN_IF_ERROR(finish_row());
    row.push_back(item);
  }
  if (!row.empty()) {
    while (fill && static_cast<Int>(row.size()) < size) {
      row.push_back(args[1]);
      run.budget.use(1);
      NIBBLE_RETURN_IF_ERROR(run.budget.check());
    }
    NIBBLE_RETURN_IF_ERROR(finish_row());
  }
  return run.budget.iterator(std::move(rows));
}

Result slice_into(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  NIBBLE_TRY(const std::optional<Int> given, args.integer(0));
  const Int slices = given.value_or(0);
  if (slices == 0) return raise("division by zero");
  const bool fill = args.at(1) && !args[1].is_none();
  const Int size = static_cast<Int>(sequence->items.size());
  const Int with_extra = slices > 0 ? size % slices : 0;
  std::vector<Value> columns;
  Int begin = 0;
  for (Int i = 0; i < slices; ++i) {
    const Int end = begin + size / slices + (i < with_extra ? 1 : 0);
    std::vector<Value> column(sequence->items.begin() + static_cast<std::ptrdiff_t>(begin),
                              sequence->items.begin() + static_cast<std::ptrdiff_t>(end));
    if (fill && i >= with_extra) column.push_back(args[1]);
    NIBBLE_TRY(Value made, run.budget.sequence(std::move(column)));
    columns.push_back(std::move(made));
    run.budget.use(1);
    NIBBLE_RETURN_IF_ERROR(run.budget.check());
    begin = end;
  }
  return run.budget.iterator(std::move(columns));
}

// What a lazy filter yields: an error comes up only when the reader gets there.
template <class Each>
Result generate(Run& run, const Value& self, Each each) {
  if (!is_true(self)) return run.budget.iterator({});
  NIBBLE_TRY(const auto sequence, to_sequence(run.budget, self));
  std::vector<Value> kept;
  for (const Value& item : sequence->items) {
    const Status status = each(item, kept);
    if (!status) return run.budget.iterator(std::move(kept), status.error());
  }
  return run.budget.iterator(std::move(kept));
}

Result map(Run& run, const Value& self, const Args& args) {
  CallArguments arguments = args.raw;
  if (arguments.positional.empty()) {
    const Value* attribute = nullptr;
    const Value* fallback = nullptr;
    for (const auto& [name, value] : arguments.named) {
      if (name == "attribute") {
        attribute = &value;
      } else if (name == "default") {
        fallback = &value;
      } else {
        return raise("Unexpected keyword argument {}", python_quoted(name));
      }
    }
    if (!attribute) return raise("map requires a filter argument");
    NIBBLE_TRY(const AttributePath path, AttributePath::parse(attribute));
    return generate(run, self, [&](const Value& item, std::vector<Value>& kept) -> Status {
      NIBBLE_TRY(Value value, path.get(run, item, fallback));
      kept.push_back(std::move(value));
      return {};
    });
  }
  const Value name = arguments.positional.front();
  arguments.positional.erase(arguments.positional.begin());
  if (!name.text()) return raise("map needs the name of a filter");
  return generate(run, self, [&](const Value& item, std::vector<Value>& kept) -> Status {
    NIBBLE_TRY(Value value, run.filter(name.text()->bytes, item, arguments));
    kept.push_back(std::move(value));
    return {};
  });
}

Result select_with(Run& run, const Value& self, const Args& args, bool by_attribute, bool wanted) {
  CallArguments arguments = args.raw;
  NIBBLE_TRY(AttributePath path, AttributePath::parse(nullptr));
  auto& positional = arguments.positional;
  if (by_attribute) {
    if (positional.empty()) return raise("Missing parameter for attribute name");
    NIBBLE_TRY(path, AttributePath::parse(&positional[0]));
    positional.erase(positional.begin());
  }
  std::optional<std::string> test;
  if (!positional.empty()) {
    if (!positional[0].text())
      return raise("a test is named by a string, not '{}'", type_name(positional[0]));
    test = positional[0].text()->bytes;
    positional.erase(positional.begin());
  }
  return generate(run, self, [&](const Value& item, std::vector<Value>& kept) -> Status {
    NIBBLE_TRY(const Value value, path.get(run, item));
    NIBBLE_TRY(const bool passed, test ? run.test(*test, value, arguments) : Expected<bool>(is_true(value)));
    if (passed == wanted) kept.push_back(item);
    return {};
  });
}

Result select(Run& run, const Value& self, const Args& args) {
  return select_with(run, self, args, false, true);
}
Result reject(Run& run, const Value& self, const Args& args) {
  return select_with(run, self, args, false, false);
}
Result selectattr(Run& run, const Value& self, const Args& args) {
  return select_with(run, self, args, true, true);
}
Result rejectattr(Run& run, const Value& self, const Args& args) {
  return select_with(run, self, args, true, false);
}

constexpr Builtin kSequenceFilters[] = {
    {"batch", "linecount fill_with", 1, batch},
    {"count", "", 0, length_of},
    {"dictsort", "case_sensitive by reverse", 0, dictsort},
    {"first", "", 0, first},
    {"groupby", "attribute default case_sensitive", 1, groupby},
    {"items", "", 0, items_filter},
    {"join", "d attribute", 0, join_filter},
    {"last", "", 0, last},
    {"length", "", 0, length_of},
    {"list", "", 0, list},
    {"map", "*", 0, map},
    {"max", "case_sensitive attribute", 0, largest},
    {"min", "case_sensitive attribute", 0, smallest},
    {"reject", "*", 0, reject},
    {"rejectattr", "*", 0, rejectattr},
    {"reverse", "", 0, reverse},
    {"select", "*", 0, select},
    {"selectattr", "*", 0, selectattr},
    {"slice", "slices fill_with", 1, slice_into},
    {"sort", "reverse case_sensitive attribute", 0, sort},
    {"sum", "attribute start", 0, sum},
    {"unique", "case_sensitive attribute", 0, unique},
};

}  // namespace

std::span<const Builtin> sequence_filters() { return kSequenceFilters; }

}  // namespace nibble::jinja
