#ifndef NIBBLE_CONFIG_DYNAMIC_RULES_H_
#define NIBBLE_CONFIG_DYNAMIC_RULES_H_

// GPTQModel's `dynamic`: {"-:PATTERN": {}, "+:PATTERN": {"bits": 8}, "PATTERN": {...}}.

#include <vector>

#include "nibble/config/fields.h"
#include "nibble/config/quantization_config.h"

namespace nibble {

// "-:" rules first, then in the order of the object. Patterns that do not compile and overrides
// outside their range are faults.
std::vector<DynamicRule> read_dynamic(const Json& dynamic, Faults& faults);

Json write_dynamic(const std::vector<DynamicRule>& rules);

}  // namespace nibble

#endif  // NIBBLE_CONFIG_DYNAMIC_RULES_H_
