#ifndef NIBBLE_CONFIG_DYNAMIC_RULES_H_
#define NIBBLE_CONFIG_DYNAMIC_RULES_H_

// GPTQModel's `dynamic`: {"-:PATTERN": {}, "+:PATTERN": {"bits": 8}, "PATTERN": {...}}.

#include <string>
#include <string_view>
#include <vector>

#include "nibble/config/fields.h"
#include "nibble/config/quantization_config.h"

namespace nibble {

// "-:" rules first, then in the order of the object. Patterns that do not compile and overrides
// outside their range are faults.
std::vector<DynamicRule> read_dynamic(const Json& dynamic, Faults& faults);

// The text of --dynamic, or of a file of it: '{"-:.*down_proj": {}, "+:.*q_proj": {"bits": 8}}'. Stricter
// than reading a checkpoint: kInvalidArgument for JSON that does not parse (with the byte), for a key that
// quantizing does not follow, and for all that read_dynamic faults; each message names its rule.
Expected<std::vector<DynamicRule>> parse_dynamic(std::string_view text);

// Whether the pattern of a checkpoint matches the beginning of a module's name, as Python's re.match does.
// `key`: of the configuration, for messages. kInvalidArgument for a pattern that does not compile, and for
// one that takes too many steps.
Expected<bool> matches_pattern(const std::string& pattern, std::string_view module, std::string_view key);

// A word as a part of a pattern that matches just it.
std::string escape_pattern(std::string_view word);

Json write_dynamic(const std::vector<DynamicRule>& rules);

}  // namespace nibble

#endif  // NIBBLE_CONFIG_DYNAMIC_RULES_H_
