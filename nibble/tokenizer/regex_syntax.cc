#include "nibble/tokenizer/regex_syntax.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble {
namespace {

constexpr size_t kMaxNesting = 50;

// Contents of character classes. PCRE2's own \s has U+180E too, and its \w neither marks nor
// letter numbers.
constexpr std::string_view kWhiteSpaceSet =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x00-\x08\x0e-\x1f\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
// Outside of brackets, Oniguruma's \w has the exponents and fractions of Latin-1 too.
constexpr std::string_view kBareWord = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHex = "0-9a-fA-F";

// Names that PCRE2 10.42 does not know, and what they stand for inside a class.
constexpr std::array<std::pair<std::string_view, std::string_view>, 52> kProperties = {{
    {"letter", R"(\p{L})"},
    {"casedletter", R"(\p{L&})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"combiningmark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"connectorpunctuation", R"(\p{Pc})"},
    {"dashpunctuation", R"(\p{Pd})"},
    {"openpunctuation", R"(\p{Ps})"},
    {"closepunctuation", R"(\p{Pe})"},
    {"initialpunctuation", R"(\p{Pi})"},
    {"finalpunctuation", R"(\p{Pf})"},
    {"otherpunctuation", R"(\p{Po})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"lineseparator", R"(\p{Zl})"},
    {"paragraphseparator", R"(\p{Zp})"},
    {"other", R"(\p{C})"},
    {"control", R"(\p{Cc})"},
    {"format", R"(\p{Cf})"},
    {"surrogate", R"(\p{Cs})"},
    {"privateuse", R"(\p{Co})"},
    {"unassigned", R"(\p{Cn})"},
    {"alpha", R"(\p{Alphabetic})"},
    {"digit", R"(\p{Nd})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"upper", R"(\p{Uppercase})"},
    {"lower", R"(\p{Lowercase})"},
    {"punct", R"(\p{P})"},
    {"cntrl", R"(\p{Cc})"},
    {"blank", R"(\x09\p{Zs})"},
    {"space", kWhiteSpaceSet},
    {"whitespace", kWhiteSpaceSet},
    {"word", kWord},
    {"xdigit", kHex},
    {"ascii", R"(\x00-\x7f)"},
}};

std::optional<std::string_view> find_property(std::string_view name) {
  std::string plain;  // as Unicode compares names: case, spaces, '_' and '-' do not count
  for (const char c : name) {
    if (c == ' ' || c == '_' || c == '-') continue;
    plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  for (const auto& [known, meaning] : kProperties) {
    if (known == plain) return meaning;
  }
  return std::nullopt;
}

// PCRE2 reads \p{Han} as "used with this script", Oniguruma as "belongs to it".
bool is_script(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ' ';
  };
  if (name.size() < 3 || !std::all_of(name.begin(), name.end(), plain)) return false;
  const std::string probe = "\\p{sc:" + std::string(name) + "}";
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(probe.data()), probe.size(), PCRE2_UTF,
                                   &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

// A set of characters: the contents of a class, or those of a class that is negated.
struct Set {
  std::string items;
  bool negated = false;
};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Expected<std::string> run() {
    while (at_ < in_.size()) NIBBLE_RETURN_IF_ERROR(next());
    return std::move(out_);
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  Status next() {
    const char c = peek();
    if (c == '(') {
      open_group();
    } else if (c == ')') {
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      out_ += c;
      ++at_;
    } else if (c == '[') {
      atom_ = out_.size();
      NIBBLE_TRY(const std::string set, parse_class(0));
      out_ += set;
    } else if (c == '{') {
      quantifier();
    } else if (c == '\\') {
      atom_ = out_.size();
      std::string copied;
      if (std::optional<Set> set = escape(copied)) {
        if (set->items == kWord) set->items += kBareWord;
        out_ += (set->negated ? "[^" : "[") + set->items + "]";
      } else {
        out_ += copied;
      }
    } else {
      // The bytes of one character are one atom.
      if (c != '+' && c != '*' && c != '?' && (static_cast<unsigned char>(c) & 0xC0) != 0x80)
        atom_ = out_.size();
      out_ += c;
      ++at_;
    }
    return {};
  }

  // "(?im-x:" and "(?m)": Ruby's m is PCRE2's s.
  void open_group() {
    groups_.push_back(out_.size());
    out_ += in_[at_++];
    if (peek() != '?') return;
    size_t end = at_ + 1;
    while (end < in_.size() && std::string_view("imx-").find(in_[end]) != std::string_view::npos) ++end;
    if (end == at_ + 1 || end == in_.size() || (in_[end] != ':' && in_[end] != ')')) return;
    for (; at_ < end; ++at_) out_ += in_[at_] == 'm' ? 's' : in_[at_];
  }

  void quantifier() {
    size_t end = at_ + 1;
    bool digits = false, comma = false;
    for (; end < in_.size(); ++end) {
      if (in_[end] >= '0' && in_[end] <= '9') {
        digits = true;
      } else if (in_[end] == ',' && !comma) {
        comma = true;
      } else {
        break;
      }
    }
    if (!digits || end >= in_.size() || in_[end] != '}') {  // a plain brace
      atom_ = out_.size();
      out_ += in_[at_++];
      return;
    }
    std::string repeat(in_.substr(at_, end + 1 - at_));
    if (repeat[1] == ',') repeat.insert(1, "0");
    at_ = end + 1;
    const bool wrap = peek() == '+' || (peek() == '?' && !comma);
    if (wrap) out_.insert(atom_, "(?:");
    out_ += repeat;
    if (wrap) out_ += ")";
  }

  // Reads an escape: a set of characters, or `copied` as PCRE2 spells it.
  std::optional<Set> escape(std::string& copied) {
    const char kind = peek(1);
    const size_t begin = at_;
    at_ += kind == '\0' ? 1 : 2;
    switch (kind) {
      case 's':
        return Set{std::string(kWhiteSpaceSet), false};
      case 'S':
        return Set{std::string(kNotSpace), false};
      case 'w':
      case 'W':
        return Set{std::string(kWord), kind == 'W'};
      case 'h':
      case 'H':
        return Set{std::string(kHex), kind == 'H'};
      case 'u':
        copied = std::string("\\x{") + std::string(in_.substr(at_, 4)) + "}";
        at_ = std::min(in_.size(), at_ + 4);
        return std::nullopt;
      case 'p':
      case 'P':
      case 'x':
      case 'o':
        if (peek() == '{') {
          const size_t close = in_.find('}', at_);
          at_ = close == std::string_view::npos ? in_.size() : close + 1;
        }
        break;
      default:
        break;
    }
    copied = in_.substr(begin, at_ - begin);
    if ((kind != 'p' && kind != 'P') || copied.size() < 5) return std::nullopt;
    std::string_view name(copied);
    name = name.substr(3, name.size() - 4);
    const bool caret = name.front() == '^';
    if (caret) name.remove_prefix(1);
    const auto property = find_property(name);
    if (!property) {
      if (is_script(name)) return Set{"\\p{sc:" + std::string(name) + "}", (kind == 'P') != caret};
      return std::nullopt;
    }
    return Set{std::string(*property), (kind == 'P') != caret};
  }

  // Reads "[...]" and gives an expression that matches one character of it.
  Expected<std::string> parse_class(size_t depth) {
    if (depth > kMaxNesting)
      return fail(ErrorCode::kDataLoss, "character classes nest deeper than {} levels", kMaxNesting);
    ++at_;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    std::vector<std::string> operands;  // of &&
    std::string items;
    std::vector<std::string> others;  // what does not fit into the same brackets
    const auto finish_operand = [&] {
      std::string all = items.empty() ? "" : "[" + items + "]";
      for (const std::string& other : others) all += (all.empty() ? "" : "|") + other;
      operands.push_back(items.empty() && others.empty() ? "[]" : others.empty() ? all : "(?:" + all + ")");
    };
    bool simple = true;
    if (peek() == ']') items += R"(\])", ++at_;
    while (true) {
      if (at_ >= in_.size()) return fail(ErrorCode::kDataLoss, "a character class has no end");
      const char c = peek();
      if (c == ']') break;
      if (c == '[' && peek(1) == ':' && in_.find(":]", at_) != std::string_view::npos) {
        const size_t end = in_.find(":]", at_);
        const std::string_view name = in_.substr(at_ + 2, end - at_ - 2);
        const bool not_name = name.starts_with('^');
        const auto property =
            name == "punct" ? R"(\p{P}\p{S})" : find_property(name.substr(not_name ? 1 : 0));
        if (property && not_name) {
          others.push_back("[^" + std::string(*property) + "]");
          simple = false;
        } else {
          items += property ? *property : in_.substr(at_, end + 2 - at_);
        }
        at_ = end + 2;
      } else if (c == '[') {
        NIBBLE_TRY(std::string inner, parse_class(depth + 1));
        others.push_back(std::move(inner));
        simple = false;
      } else if (c == '&' && peek(1) == '&') {
        at_ += 2;
        finish_operand();
        items.clear();
        others.clear();
        simple = false;
      } else if (c == '\\') {
        std::string copied;
        const std::optional<Set> set = escape(copied);
        if (set && set->negated) {
          others.push_back("[^" + set->items + "]");
          simple = false;
        } else {
          items += set ? set->items : copied;
        }
      } else {
        items += c;
        ++at_;
      }
    }
    ++at_;
    if (simple) return (negated ? "[^" : "[") + items + "]";
    finish_operand();
    std::string all = operands.back();
    operands.pop_back();
    for (const std::string& operand : operands) all = "(?:(?=" + operand + ")" + all + ")";
    return negated ? "(?:(?!" + all + ")(?s:.))" : all;
  }

  const std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where in out_ the thing begins that a quantifier would repeat
  std::vector<size_t> groups_;  // where the open groups begin
};

}  // namespace

Expected<std::string> pcre2_from_oniguruma(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace nibble
