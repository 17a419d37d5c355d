#ifndef NIBBLE_TOKENIZER_REGEX_SYNTAX_H_
#define NIBBLE_TOKENIZER_REGEX_SYNTAX_H_

#include <string>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble {

// tokenizer.json holds patterns in Oniguruma's Ruby syntax; PCRE2 reads most of it as it stands.
// What differs is rewritten: \s, \w, \h and \p{...} names, \uHHHH, a{1,3}+ (a plain repetition in
// Ruby, possessive in PCRE2), a{,3}, (?m) (dot matches newline), nested character classes and &&.
// Faults in the pattern are left for PCRE2 to report, but for classes that do not end.
Expected<std::string> pcre2_from_oniguruma(std::string_view pattern);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_REGEX_SYNTAX_H_
