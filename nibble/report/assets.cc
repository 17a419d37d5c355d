// style.css and script.js, put into the program by the assembler.

#include "nibble/report/assets.h"

#include <cstddef>

// clang-format off
asm(R"(
  .pushsection .rodata
  .globl nibble_report_style_begin
  .globl nibble_report_style_end
  .globl nibble_report_script_begin
  .globl nibble_report_script_end
nibble_report_style_begin:
  .incbin ")" NIBBLE_REPORT_FOLDER R"(/style.css"
nibble_report_style_end:
nibble_report_script_begin:
  .incbin ")" NIBBLE_REPORT_FOLDER R"(/script.js"
nibble_report_script_end:
  .popsection
)");
// clang-format on

extern "C" const char nibble_report_style_begin[];
extern "C" const char nibble_report_style_end[];
extern "C" const char nibble_report_script_begin[];
extern "C" const char nibble_report_script_end[];

namespace nibble::report {

std::string_view style_css() {
  return {nibble_report_style_begin,
          static_cast<size_t>(nibble_report_style_end - nibble_report_style_begin)};
}

std::string_view script_js() {
  return {nibble_report_script_begin,
          static_cast<size_t>(nibble_report_script_end - nibble_report_script_begin)};
}

}  // namespace nibble::report
