#ifndef NIBBLE_REPORT_FIRST_DIFFERENCE_H_
#define NIBBLE_REPORT_FIRST_DIFFERENCE_H_

// Where an answer leaves the answer of the original. After the first word that differs two answers have
// little in common, so only that one is worth a mark.

#include <cstddef>
#include <string_view>

namespace nibble::report {

struct FirstDifference {
  std::string_view same = {};       // as in the other text
  std::string_view different = {};  // the first word that is not; empty if the text ends before it
  std::string_view rest = {};
  size_t word = 0;         // the number of that word, from 1
  bool identical = false;  // word for word
};

// A word ends at white space; a Chinese or Japanese character is a word by itself. How words are spaced
// makes no difference. The parts are views of `text`.
FirstDifference first_difference(std::string_view original, std::string_view text);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_FIRST_DIFFERENCE_H_
