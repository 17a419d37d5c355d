// questions.jsonl, as it stands inside the program.

#include "nibble/base/embed.h"
#include "nibble/evaluation/multiple_choice.h"

NIBBLE_EMBED(nibble_default_questions, NIBBLE_DEFAULT_QUESTIONS);

namespace nibble {

std::string_view default_questions() { return NIBBLE_EMBEDDED(nibble_default_questions); }

}  // namespace nibble
