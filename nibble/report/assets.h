#ifndef NIBBLE_REPORT_ASSETS_H_
#define NIBBLE_REPORT_ASSETS_H_

// The files of this folder that are part of the program.

#include <string_view>

namespace nibble::report {

std::string_view style_css();
std::string_view script_js();

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_ASSETS_H_
