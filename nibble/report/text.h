#ifndef NIBBLE_REPORT_TEXT_H_
#define NIBBLE_REPORT_TEXT_H_

// Names and answers come from files and models: nothing in them may be taken for markup, reach the
// terminal as an escape sequence, or turn the text around it.

#include <cstddef>
#include <string>
#include <string_view>

namespace nibble::report {

// Valid UTF-8 in which invalid bytes, control characters (but '\n' and '\t') and characters that change
// the direction of what follows are U+FFFD.
std::string clean(std::string_view text);

// clean() on one line: runs of white space become one space.
std::string one_line(std::string_view text);

// clean(), then & < > " ' as entities: for text and for attributes in double quotes.
std::string escape_html(std::string_view text);

// one_line() with what Markdown would take for markup escaped: for text and cells of tables.
std::string escape_markdown(std::string_view text);

// Columns of a terminal: two for wide characters, none for combining ones.
size_t display_columns(std::string_view text);

// At most `columns` (at least 1) wide; what was cut ends in "…".
std::string shorten(std::string_view text, size_t columns);

// Broken at spaces into lines of at most `columns`, where words allow it; lines after the first begin
// with `indent`.
std::string wrap(std::string_view text, size_t columns, std::string_view indent);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_TEXT_H_
