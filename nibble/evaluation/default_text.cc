// default_text.txt, as it stands inside the program.

#include "nibble/base/embed.h"
#include "nibble/evaluation/text_windows.h"

NIBBLE_EMBED(nibble_default_text, NIBBLE_DEFAULT_TEXT);

namespace nibble {

std::string_view default_evaluation_text() { return NIBBLE_EMBEDDED(nibble_default_text); }

}  // namespace nibble
