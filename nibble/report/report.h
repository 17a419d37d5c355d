#ifndef NIBBLE_REPORT_REPORT_H_
#define NIBBLE_REPORT_REPORT_H_

// The result of a comparison as pages that people read. All functions take the report that
// docs/compare-report.md describes. Every section and every number may be missing or null, which means
// "not measured"; keys that the schema does not know are ignored. The renderers leave out what is not
// there or has the wrong type, so that a report that check_report() refuses still gives a page.

#include <cstddef>
#include <string>

#include "nibble/base/error.h"
#include "nibble/base/json.h"

namespace nibble {

inline constexpr std::string_view kCompareReportSchema = "nibble.compare/1";

// kUnsupported for the schema of another version; kDataLoss for anything else that is wrong, with the
// key in `where` ("candidates[2].quality.kl.mean").
Status check_report(const Json& report);

// One self-contained page: no network, no script needed, names and answers escaped.
std::string render_html(const Json& report);

// GitHub's Markdown.
std::string render_markdown(const Json& report);

// The candidates as an aligned table and the verdict below it, at most `columns` wide (but never
// narrower than names and one number need), for a terminal. Color: ANSI escapes.
std::string render_table(const Json& report, size_t columns, bool color);

}  // namespace nibble

#endif  // NIBBLE_REPORT_REPORT_H_
