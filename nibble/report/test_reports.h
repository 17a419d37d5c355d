#ifndef NIBBLE_REPORT_TEST_REPORTS_H_
#define NIBBLE_REPORT_TEST_REPORTS_H_

// Reports for the tests of this folder.

#include <string>

#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"

namespace nibble::report {

// tests/data/NAME: "compare-report.json" is a usual one; in "compare-report-crowded.json" twelve
// candidates lie on one spot, and names and answers try to be markup. null if it cannot be read.
inline Json read_test_report(const std::string& name) {
  const auto text = read_text_file(NIBBLE_TEST_DATA "/" + name);
  return text ? parse_json(*text).value_or(Json()) : Json();
}

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_TEST_REPORTS_H_
