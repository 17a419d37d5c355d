// style.css and script.js, as they stand inside the program.

#include "nibble/report/assets.h"

#include "nibble/base/embed.h"

NIBBLE_EMBED(nibble_report_style, NIBBLE_REPORT_STYLE);
NIBBLE_EMBED(nibble_report_script, NIBBLE_REPORT_SCRIPT);

namespace nibble::report {

std::string_view style_css() { return NIBBLE_EMBEDDED(nibble_report_style); }

std::string_view script_js() { return NIBBLE_EMBEDDED(nibble_report_script); }

}  // namespace nibble::report
