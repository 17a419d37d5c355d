#ifndef NIBBLE_REPORT_COLUMNS_H_
#define NIBBLE_REPORT_COLUMNS_H_

// The columns in which candidates are compared: one table for the page, for Markdown and for the
// terminal, so that all three say the same.

#include <string>
#include <vector>

#include "nibble/report/report_data.h"

namespace nibble::report {

struct Column {
  const char* title;        // "Perplexity"
  const char* short_title;  // for the terminal: "ppl"
  const char* unit;         // "nats"; "" where the values carry it
  const char* meaning;      // what a newcomer needs to read the column
  bool less_is_better;
  int importance;  // 1: the last to go where there is little room
  double (*value)(const Candidate&);
  std::string (*text)(const Candidate&, bool margin);  // of a known value
};

// Those of which at least one candidate has a value, in the order in which they are shown.
std::vector<const Column*> columns_with_values(const Report& report);

// "–" where nothing was measured. Margin: the half width of its interval behind a value; that of KL is
// always there, for it tells whether candidates differ.
std::string cell(const Column& column, const Candidate& candidate, bool margin);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_COLUMNS_H_
