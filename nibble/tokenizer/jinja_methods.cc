// The methods of Python's str, dict, list, tuple and range that a template may call. An entry without
// a function is a method that would change the value: the sandbox refuses it.

#include <algorithm>

#include "nibble/tokenizer/jinja_runtime.h"

namespace nibble::jinja {
namespace {

using Args = BoundArguments;
using Result = Expected<Value>;

const Text& text_of(const Value& self) { return *self.text(); }

// A required argument that must be a string.
Expected<const Text*> text_argument(const Args& args, size_t i) {
  NIBBLE_TRY(const Text* text, args.text(i));
  if (text) return text;
  return raise("a string is needed, not 'NoneType'");
}

// The string with each character mapped.
template <Text (*map)(const Text&)>
Result mapped(Run& run, const Value& self, const Args&) {
  run.budget.use_chars(text_of(self).size());
  NIBBLE_RETURN_IF_ERROR(run.budget.check());
  return run.budget.text(map(text_of(self)));
}

Result strip_sides(Run& run, const Value& self, const Args& args, bool left, bool right) {
  NIBBLE_TRY(const Text* chars, args.text(0));
  const Text& text = text_of(self);
  run.budget.use_chars(text.size() + (chars ? chars->size() * 16 : 0));
  std::u32string set;
  for (size_t pos = 0; chars && pos < chars->size();) set += next_char(chars->bytes, pos);
  const auto strip = [&](char32_t c) {
    return chars ? run.budget.use(set.size() / 64) && set.find(c) != set.npos : is_space(c);
  };
  const TextRange range = strip_range(text.bytes, strip, left, right);
  return run.budget.text(text.sub(range.begin, range.end));
}

Result strip(Run& run, const Value& self, const Args& args) {
  return strip_sides(run, self, args, true, true);
}
Result lstrip(Run& run, const Value& self, const Args& args) {
  return strip_sides(run, self, args, true, false);
}
Result rstrip(Run& run, const Value& self, const Args& args) {
  return strip_sides(run, self, args, false, true);
}

// The pieces between whitespace, or between separators; at most `limit` cuts.
std::vector<TextRange> split_ranges(Run& run, const Text& text, const Text* separator, size_t limit,
                                    bool from_right) {
  std::vector<TextRange> pieces;
  const std::string_view bytes = text.bytes;
  run.budget.use_chars(text.size());
  if (separator) {
    const std::string_view mark = separator->bytes;
    TextRange rest{0, bytes.size()};
    while (pieces.size() < limit && run.budget.use(1)) {
      const std::string_view view = bytes.substr(rest.begin, rest.end - rest.begin);
      const size_t at = from_right ? view.rfind(mark) : view.find(mark);
      if (at == view.npos) break;
      const size_t cut = rest.begin + at;
      pieces.push_back(from_right ? TextRange{cut + mark.size(), rest.end} : TextRange{rest.begin, cut});
      (from_right ? rest.end : rest.begin) = from_right ? cut : cut + mark.size();
    }
    pieces.push_back(rest);
  } else {
    TextRange rest{0, bytes.size()};
    const auto skip = [&](auto accept) {
      const TextRange kept =
          strip_range(bytes.substr(rest.begin, rest.end - rest.begin), accept, !from_right, from_right);
      rest = {rest.begin + kept.begin, rest.begin + kept.end};
    };
    while (run.budget.use(1)) {
      skip(is_space);
      if (rest.begin == rest.end) break;
      const TextRange before = rest;
      if (pieces.size() == limit) {
        pieces.push_back(rest);
        break;
      }
      skip([](char32_t c) { return !is_space(c); });
      pieces.push_back(from_right ? TextRange{rest.end, before.end} : TextRange{before.begin, rest.begin});
    }
  }
  if (from_right) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

Result split_with(Run& run, const Value& self, const Args& args, bool from_right) {
  NIBBLE_TRY(const Text* separator, args.text(0));
  NIBBLE_TRY(const std::optional<Int> limit, args.integer(1));
  if (separator && separator->bytes.empty()) return raise("empty separator");
  const size_t most = limit && *limit >= 0 ? static_cast<size_t>(std::min<Int>(*limit, 1 << 30)) : SIZE_MAX;
  std::vector<Value> pieces;
  for (const TextRange& range : split_ranges(run, text_of(self), separator, most, from_right)) {
    pieces.emplace_back(text_of(self).sub(range.begin, range.end));
  }
  return run.budget.sequence(std::move(pieces));
}

Result split(Run& run, const Value& self, const Args& args) { return split_with(run, self, args, false); }
Result rsplit(Run& run, const Value& self, const Args& args) { return split_with(run, self, args, true); }

Result splitlines(Run& run, const Value& self, const Args& args) {
  const Text& text = text_of(self);
  const bool keep_ends = args.flag(0);
  run.budget.use_chars(text.size());
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = pos;
    const char32_t c = next_char(text.bytes, pos);
    if (!is_line_break(c)) continue;
    if (c == '\r' && pos < text.size() && text.bytes[pos] == '\n') ++pos;
    lines.emplace_back(text.sub(begin, keep_ends ? pos : end));
    begin = pos;
  }
  if (begin < text.size()) lines.emplace_back(text.sub(begin, text.size()));
  return run.budget.sequence(std::move(lines));
}

Result partition_at(Run& run, const Value& self, const Args& args, bool last) {
  NIBBLE_TRY(const Text* mark, text_argument(args, 0));
  const Text& text = text_of(self);
  if (mark->bytes.empty()) return raise("empty separator");
  run.budget.use_chars(text.size());
  const size_t at = last ? text.bytes.rfind(mark->bytes) : text.bytes.find(mark->bytes);
  std::vector<Value> parts(3, Value::constant(""));
  if (at == std::string::npos) {
    parts[last ? 2 : 0] = self;
  } else {
    parts = {Value(text.sub(0, at)), Value(text.sub(at, at + mark->size())),
             Value(text.sub(at + mark->size(), text.size()))};
  }
  return run.budget.sequence(std::move(parts), SequenceType::kTuple);
}

Result partition(Run& run, const Value& self, const Args& args) {
  return partition_at(run, self, args, false);
}
Result rpartition(Run& run, const Value& self, const Args& args) {
  return partition_at(run, self, args, true);
}

Result replace(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const Text* old, text_argument(args, 0));
  NIBBLE_TRY(const Text* fresh, text_argument(args, 1));
  NIBBLE_TRY(const std::optional<Int> count, args.integer(2));
  const Text& text = text_of(self);
  Text out;
  size_t pos = 0;  // what is before it has been copied
  run.budget.use_chars(text.size());
  for (Int left = count.value_or(-1); left != 0; --left) {
    // An empty string is found in front of every character and at the end.
    const size_t at = text.bytes.find(old->bytes, pos);
    if (at == std::string::npos) break;
    out.append(text, pos, at);
    out.append(*fresh);
    pos = at + old->size();
    NIBBLE_RETURN_IF_ERROR(run.budget.check_text(out.size()));
    run.budget.use(1);
    NIBBLE_RETURN_IF_ERROR(run.budget.check());
    if (!old->bytes.empty()) continue;
    if (at == text.size()) break;
    next_char(text.bytes, pos);
    out.append(text, at, pos);
  }
  out.append(text, pos, text.size());
  return run.budget.text(std::move(out));
}

// The part of the string that the optional arguments start and end, at `i` and `i + 1`, select; both
// in bytes. Nothing if it is empty the wrong way round.
Expected<std::optional<TextRange>> selected(Run& run, const Text& text, const Args& args, size_t i) {
  run.budget.use_chars(text.size());
  if (!args.at(i) && !args.at(i + 1)) return std::optional<TextRange>({0, text.size()});
  NIBBLE_TRY(const std::optional<Int> start, args.integer(i));
  NIBBLE_TRY(const std::optional<Int> stop, args.integer(i + 1));
  const Int size = static_cast<Int>(count_chars(text.bytes));
  const auto resolve = [size](Int at) { return std::max<Int>(at < 0 ? at + size : at, 0); };
  const Int first = resolve(start.value_or(0));
  const Int last = std::min(resolve(stop.value_or(size)), size);
  if (first > last) return std::optional<TextRange>();
  return std::optional<TextRange>({byte_offset(text.bytes, static_cast<size_t>(first)),
                                   byte_offset(text.bytes, static_cast<size_t>(last))});
}

Expected<std::optional<size_t>> find_in(Run& run, const Value& self, const Args& args, bool last) {
  NIBBLE_TRY(const Text* wanted, text_argument(args, 0));
  const Text& text = text_of(self);
  NIBBLE_TRY(const std::optional<TextRange> range, selected(run, text, args, 1));
  if (!range) return std::optional<size_t>();
  const std::string_view view = text.view().substr(range->begin, range->end - range->begin);
  const size_t at = last ? view.rfind(wanted->bytes) : view.find(wanted->bytes);
  if (at == view.npos) return std::optional<size_t>();
  return std::optional<size_t>(count_chars(text.view().substr(0, range->begin + at)));
}

Result found_or_minus_one(const Expected<std::optional<size_t>>& found) {
  if (!found) return Failure(found.error());
  return *found ? Value::from_size(**found) : Value(Int{-1});
}

Result found_or_error(const Expected<std::optional<size_t>>& found) {
  if (found && !*found) return raise("substring not found");
  return found_or_minus_one(found);
}

Result find_text(Run& run, const Value& self, const Args& args) {
  return found_or_minus_one(find_in(run, self, args, false));
}
Result rfind_text(Run& run, const Value& self, const Args& args) {
  return found_or_minus_one(find_in(run, self, args, true));
}
Result index_text(Run& run, const Value& self, const Args& args) {
  return found_or_error(find_in(run, self, args, false));
}
Result rindex_text(Run& run, const Value& self, const Args& args) {
  return found_or_error(find_in(run, self, args, true));
}

Result count_text(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const Text* wanted, text_argument(args, 0));
  const Text& text = text_of(self);
  NIBBLE_TRY(const std::optional<TextRange> range, selected(run, text, args, 1));
  if (!range) return Value(Int{0});
  const std::string_view view = text.view().substr(range->begin, range->end - range->begin);
  if (wanted->bytes.empty()) return Value::from_size(count_chars(view) + 1);
  size_t count = 0;
  for (size_t at = view.find(wanted->bytes); at != view.npos;
       at = view.find(wanted->bytes, at + wanted->size()))
    ++count;
  return Value::from_size(count);
}

Result has_affix(Run& run, const Value& self, const Args& args, bool prefix) {
  const Text& text = text_of(self);
  NIBBLE_TRY(const std::optional<TextRange> range, selected(run, text, args, 1));
  const auto matches = [&](const Text& affix) {
    if (!range) return false;
    const std::string_view view = text.view().substr(range->begin, range->end - range->begin);
    return prefix ? view.starts_with(affix.bytes) : view.ends_with(affix.bytes);
  };
  if (args[0].text()) return Value(matches(*args[0].text()));
  const Sequence* choices = args[0].sequence();
  if (!choices || choices->type != SequenceType::kTuple) {
    return raise("{} first arg must be str or a tuple of str, not {}", prefix ? "startswith" : "endswith",
                 type_name(args[0]));
  }
  for (const Value& choice : choices->items) {
    if (!choice.text()) return raise("a tuple for startswith or endswith must contain only strings");
    if (matches(*choice.text())) return Value(true);
  }
  return Value(false);
}

Result startswith(Run& run, const Value& self, const Args& args) { return has_affix(run, self, args, true); }
Result endswith(Run& run, const Value& self, const Args& args) { return has_affix(run, self, args, false); }

Result removeprefix(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const Text* affix, text_argument(args, 0));
  const Text& text = text_of(self);
  if (!text.view().starts_with(affix->bytes)) return self;
  return run.budget.text(text.sub(affix->size(), text.size()));
}

Result removesuffix(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const Text* affix, text_argument(args, 0));
  const Text& text = text_of(self);
  if (!text.view().ends_with(affix->bytes)) return self;
  return run.budget.text(text.sub(0, text.size() - affix->size()));
}

Result join(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const auto items, to_sequence(run.budget, args[0]));
  Text out;
  for (size_t i = 0; i < items->items.size(); ++i) {
    const Text* item = items->items[i].text();
    if (!item)
      return raise("sequence item {}: expected str instance, {} found", i, type_name(items->items[i]));
    if (i > 0) out.append(text_of(self));
    out.append(*item);
    NIBBLE_RETURN_IF_ERROR(run.budget.check_text(out.size()));
  }
  return run.budget.text(std::move(out));
}

// Pads to `width` characters; `left` of the missing ones go to the left.
template <class Left>
Result padded(Run& run, const Value& self, const Args& args, Left left) {
  NIBBLE_TRY(const std::optional<Int> width, args.integer(0));
  NIBBLE_TRY(const Text* given, args.text(1));
  const Text fill = given ? *given : Text(" ");
  if (count_chars(fill.bytes) != 1) return raise("the fill character must be exactly one character long");
  const Text& text = text_of(self);
  const Int size = static_cast<Int>(count_chars(text.bytes));
  if (!width || *width <= size) return self;
  const Int limit = static_cast<Int>(run.budget.limits().max_output_bytes);
  const auto missing = static_cast<size_t>(std::min(*width - size, limit + 1));
  NIBBLE_RETURN_IF_ERROR(run.budget.check_text(missing * fill.size() + text.size()));
  const size_t before = left(missing, static_cast<size_t>(std::min(*width, limit)));
  Text out;
  for (size_t i = 0; i < before; ++i) out.append(fill);
  out.append(text);
  for (size_t i = before; i < missing; ++i) out.append(fill);
  return run.budget.text(std::move(out));
}

Result ljust(Run& run, const Value& self, const Args& args) {
  return padded(run, self, args, [](size_t, size_t) { return size_t{0}; });
}
Result rjust(Run& run, const Value& self, const Args& args) {
  return padded(run, self, args, [](size_t missing, size_t) { return missing; });
}
Result center(Run& run, const Value& self, const Args& args) {
  return padded(run, self, args,
                [](size_t missing, size_t width) { return missing / 2 + (missing & width & 1); });
}

Result zfill(Run& run, const Value& self, const Args& args) {
  const Text& text = text_of(self);
  const bool has_sign = text.view().starts_with('-') || text.view().starts_with('+');
  NIBBLE_TRY(const std::optional<Int> width, args.integer(0));
  const Int size = static_cast<Int>(count_chars(text.bytes));
  if (!width || *width <= size) return self;
  const Int limit = static_cast<Int>(run.budget.limits().max_output_bytes);
  const auto missing = static_cast<size_t>(std::min(*width - size, limit + 1));
  NIBBLE_RETURN_IF_ERROR(run.budget.check_text(missing + text.size()));
  Text out = text.sub(0, has_sign ? 1 : 0);
  out.append(std::string(missing, '0'));
  out.append(text, has_sign ? 1 : 0, text.size());
  return run.budget.text(std::move(out));
}

Result expandtabs(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const std::optional<Int> size, args.integer(0));
  if (size && *size > 1000) return raise("a tab cannot be wider than 1000 characters");
  const auto tab = static_cast<size_t>(std::max<Int>(size.value_or(8), 0));
  size_t column = 0;
  const size_t tabs =
      static_cast<size_t>(std::count(text_of(self).bytes.begin(), text_of(self).bytes.end(), '\t'));
  NIBBLE_RETURN_IF_ERROR(run.budget.check_text(text_of(self).size() + tabs * tab));
  return run.budget.text(map_chars(text_of(self), [&](char32_t c, std::string& out) {
    if (c == '\t') {
      const size_t blanks = tab ? tab - column % tab : 0;
      out.append(blanks, ' ');
      column += blanks;
      return;
    }
    append_utf8(out, c);
    column = c == '\n' || c == '\r' ? 0 : column + 1;
  }));
}

Result format(Run& run, const Value& self, const Args& args) {
  return format_braces(run, text_of(self), args.raw);
}

// All characters are accepted, and there is at least one.
template <bool (*accept)(char32_t)>
Result all_chars(Run& run, const Value& self, const Args&) {
  const std::string_view text = text_of(self).view();
  run.budget.use_chars(text.size());
  for (size_t pos = 0; pos < text.size();) {
    if (!accept(next_char(text, pos))) return Value(false);
  }
  return Value(!text.empty());
}

// All cased characters are of that case, and there is at least one.
template <bool (*accept)(char32_t)>
Result all_cased(Run& run, const Value& self, const Args&) {
  const std::string_view text = text_of(self).view();
  run.budget.use_chars(text.size());
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (!is_cased(c)) continue;
    if (!accept(c)) return Value(false);
    any = true;
  }
  return Value(any);
}

Result istitle(Run& run, const Value& self, const Args&) {
  const std::string_view text = text_of(self).view();
  run.budget.use_chars(text.size());
  bool any = false;
  bool previous_cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    const bool starts = is_upper(c) || is_title(c);
    if (is_cased(c) && starts == previous_cased) return Value(false);
    previous_cased = is_cased(c);
    any = any || previous_cased;
  }
  return Value(any);
}

Result isascii(Run&, const Value& self, const Args&) {
  const std::string& bytes = text_of(self).bytes;
  return Value(std::none_of(bytes.begin(), bytes.end(), [](char c) { return (c & 0x80) != 0; }));
}

Result isprintable(Run& run, const Value& self, const Args& args) {
  if (text_of(self).bytes.empty()) return Value(true);
  return all_chars<is_printable>(run, self, args);
}

Result isidentifier(Run& run, const Value& self, const Args&) {
  const std::string_view text = text_of(self).view();
  run.budget.use_chars(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const bool first = pos == 0;
    const char32_t c = next_char(text, pos);
    if (c != '_' && !(first ? is_alpha(c) : is_alnum(c))) return Value(false);
  }
  return Value(!text.empty());
}

constexpr Builtin kTextMethods[] = {
    {"capitalize", "", 0, mapped<to_capitalized>},
    {"casefold", "", 0, mapped<fold_case>},
    {"center", "width fillchar", 1, center},
    {"count", "sub start end", 1, count_text},
    {"endswith", "suffix start end", 1, endswith},
    {"expandtabs", "tabsize", 0, expandtabs},
    {"find", "sub start end", 1, find_text},
    {"format", "*", 0, format},
    {"index", "sub start end", 1, index_text},
    {"isalnum", "", 0, all_chars<is_alnum>},
    {"isalpha", "", 0, all_chars<is_alpha>},
    {"isascii", "", 0, isascii},
    {"isdecimal", "", 0, all_chars<is_decimal>},
    {"isdigit", "", 0, all_chars<is_digit>},
    {"isidentifier", "", 0, isidentifier},
    {"islower", "", 0, all_cased<is_lower>},
    {"isnumeric", "", 0, all_chars<is_numeric>},
    {"isprintable", "", 0, isprintable},
    {"isspace", "", 0, all_chars<is_space>},
    {"istitle", "", 0, istitle},
    {"isupper", "", 0, all_cased<is_upper>},
    {"join", "iterable", 1, join},
    {"ljust", "width fillchar", 1, ljust},
    {"lower", "", 0, mapped<to_lower>},
    {"lstrip", "chars", 0, lstrip},
    {"partition", "sep", 1, partition},
    {"removeprefix", "prefix", 1, removeprefix},
    {"removesuffix", "suffix", 1, removesuffix},
    {"replace", "old new count", 2, replace},
    {"rfind", "sub start end", 1, rfind_text},
    {"rindex", "sub start end", 1, rindex_text},
    {"rjust", "width fillchar", 1, rjust},
    {"rpartition", "sep", 1, rpartition},
    {"rsplit", "sep maxsplit", 0, rsplit},
    {"rstrip", "chars", 0, rstrip},
    {"split", "sep maxsplit", 0, split},
    {"splitlines", "keepends", 0, splitlines},
    {"startswith", "prefix start end", 1, startswith},
    {"strip", "chars", 0, strip},
    {"swapcase", "", 0, mapped<swap_case>},
    {"title", "", 0, mapped<to_title>},
    {"upper", "", 0, mapped<to_upper>},
    {"zfill", "width", 1, zfill},
};

Result view_of(Run& run, const Value& self, SequenceType type) {
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict()->items) {
    if (type != SequenceType::kItems) {
      items.push_back(type == SequenceType::kKeys ? key : value);
      continue;
    }
    NIBBLE_TRY(Value pair, run.budget.sequence({key, value}, SequenceType::kTuple));
    items.push_back(std::move(pair));
  }
  return run.budget.sequence(std::move(items), type);
}

Result keys(Run& run, const Value& self, const Args&) { return view_of(run, self, SequenceType::kKeys); }
Result values(Run& run, const Value& self, const Args&) { return view_of(run, self, SequenceType::kValues); }
Result items(Run& run, const Value& self, const Args&) { return view_of(run, self, SequenceType::kItems); }
Result copy(Run&, const Value& self, const Args&) { return self; }

Result get(Run& run, const Value& self, const Args& args) {
  NIBBLE_TRY(const Value* found, find(run.budget, *self.dict(), args[0]));
  if (found) return *found;
  return args.at(1) ? *args.at(1) : Value();
}

constexpr Builtin kDictMethods[] = {
    {"clear"},
    {"copy", "", 0, copy},
    {"get", "key default", 1, get},
    {"items", "", 0, items},
    {"keys", "", 0, keys},
    {"pop"},
    {"popitem"},
    {"setdefault"},
    {"update"},
    {"values", "", 0, values},
};

Result count_item(Run& run, const Value& self, const Args& args) {
  const auto& elements = self.sequence()->items;
  return Value(static_cast<Int>(std::count_if(elements.begin(), elements.end(), [&](const Value& element) {
    return element.same_as(args[0]) || equal(run.budget, element, args[0]);
  })));
}

Result index_item(Run& run, const Value& self, const Args& args) {
  const auto& elements = self.sequence()->items;
  NIBBLE_TRY(const std::optional<Int> start, args.integer(1));
  NIBBLE_TRY(const std::optional<Int> stop, args.integer(2));
  const Int size = static_cast<Int>(elements.size());
  const auto resolve = [size](Int at) { return std::clamp<Int>(at < 0 ? at + size : at, 0, size); };
  for (Int i = resolve(start.value_or(0)); i < resolve(stop.value_or(size)); ++i) {
    const Value& element = elements[static_cast<size_t>(i)];
    if (element.same_as(args[0]) || equal(run.budget, element, args[0])) return Value(i);
  }
  NIBBLE_TRY(const Text repr, to_repr(run.budget, args[0]));
  return raise("{} is not in list", repr.bytes);
}

constexpr Builtin kListMethods[] = {
    {"append"},
    {"clear"},
    {"copy", "", 0, copy},
    {"count", "value", 1, count_item},
    {"extend"},
    {"index", "value start stop", 1, index_item},
    {"insert"},
    {"pop"},
    {"remove"},
    {"reverse"},
    {"sort"},
};

constexpr Builtin kTupleMethods[] = {
    {"count", "value", 1, count_item},
    {"index", "value start stop", 1, index_item},
};

}  // namespace

std::span<const Builtin> methods_of(const Value& value) {
  if (value.text()) return kTextMethods;
  if (value.dict()) return kDictMethods;
  if (const Sequence* sequence = value.sequence()) {
    if (sequence->type == SequenceType::kList) return kListMethods;
    if (sequence->type <= SequenceType::kRange) return kTupleMethods;
  }
  return {};
}

}  // namespace nibble::jinja
