#ifndef NIBBLE_TOKENIZER_REGEX_H_
#define NIBBLE_TOKENIZER_REGEX_H_

// Patterns of tokenizer.json: regular expressions, run by PCRE2 with bounded effort, and plain
// strings.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/tokenizer/aligned_text.h"

namespace nibble {

// Immutable; any thread.
class Regex {
 public:
  // pattern: in Oniguruma's Ruby syntax (regex_syntax.h).
  static Expected<Regex> compile(std::string_view pattern);

  // Cuts valid UTF-8 into matches and what lies between them; the spans cover the text. An error if
  // the pattern needs more than a bounded number of steps at one place.
  Status find_all(std::string_view text, std::vector<Span>& spans) const;

 private:
  struct Code;
  Regex(std::string pattern, std::shared_ptr<const Code> code)
      : pattern_(std::move(pattern)), code_(std::move(code)) {}

  std::string pattern_;
  std::shared_ptr<const Code> code_;
};

// {"String": "..."} or {"Regex": "..."}.
class Pattern {
 public:
  static Expected<Pattern> parse(const Json& json);
  static Pattern of_string(std::string text) { return Pattern(std::move(text), nullptr); }
  static Pattern of_regex(Regex regex) {
    return Pattern({}, std::make_shared<const Regex>(std::move(regex)));
  }

  Status find_all(std::string_view text, std::vector<Span>& spans) const;

 private:
  Pattern(std::string text, std::shared_ptr<const Regex> regex)
      : text_(std::move(text)), regex_(std::move(regex)) {}

  std::string text_;
  std::shared_ptr<const Regex> regex_;  // null: text_ is looked for
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_REGEX_H_
