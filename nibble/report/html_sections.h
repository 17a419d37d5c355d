#ifndef NIBBLE_REPORT_HTML_SECTIONS_H_
#define NIBBLE_REPORT_HTML_SECTIONS_H_

// The parts of the page around the pictures. Each is "" if the report has nothing for it.

#include <string>
#include <string_view>

#include "nibble/report/report_data.h"

namespace nibble::report {

std::string verdict_section(const Report& report);
std::string table_section(const Report& report);
std::string pairs_section(const Report& report);
std::string samples_section(const Report& report);
std::string repeat_section(const Report& report);  // protocol, machine, model, commands

// <section> with a heading that names it; "" around nothing.
std::string section(std::string_view id, std::string_view title, std::string_view content);
// A name or text of unknown direction inside a line of the page.
std::string isolated(std::string_view text);
std::string bullet_list(const std::vector<std::string>& items);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_HTML_SECTIONS_H_
