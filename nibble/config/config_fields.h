#ifndef NIBBLE_CONFIG_CONFIG_FIELDS_H_
#define NIBBLE_CONFIG_CONFIG_FIELDS_H_

// The fields of quantization_config and the names they have had (docs/formats/quantization_config.md).

#include "nibble/config/fields.h"

namespace nibble {

inline constexpr Field kQuantMethod{"quant_method", {"method"}};

namespace gptq_fields {
inline constexpr Field kBits{"bits", {"w_bit", "wbits"}};
inline constexpr Field kGroupSize{"group_size", {"q_group_size"}};
inline constexpr Field kDescAct{"desc_act"};
inline constexpr Field kSym{"sym"};
inline constexpr Field kTrueSequential{.key = "true_sequential", .in_meta = true};
inline constexpr Field kStaticGroups{.key = "static_groups", .in_meta = true};
inline constexpr Field kDampPercent{.key = "damp_percent", .in_meta = true};
inline constexpr Field kActGroupAware{.key = "act_group_aware", .in_meta = true};
inline constexpr Field kLmHead{"lm_head"};
inline constexpr Field kFormat{"checkpoint_format", {"format", "version"}};
inline constexpr Field kBackend{"backend"};
inline constexpr Field kDynamic{"dynamic"};
inline constexpr Field kModulesInBlock{"modules_in_block_to_quantize"};
}  // namespace gptq_fields

namespace awq_fields {
inline constexpr Field kBits{"bits", {"w_bit"}};
inline constexpr Field kGroupSize{"group_size", {"q_group_size"}};
inline constexpr Field kZeroPoint{"zero_point"};
inline constexpr Field kVersion{"version", {"format", "checkpoint_format"}};
inline constexpr Field kBackend{"backend"};
inline constexpr Field kModulesToNotConvert{"modules_to_not_convert"};
}  // namespace awq_fields

namespace bnb_fields {
inline constexpr Field kLoadIn8bit{"load_in_8bit", {"_load_in_8bit"}};
inline constexpr Field kLoadIn4bit{"load_in_4bit", {"_load_in_4bit"}};
}  // namespace bnb_fields

// exllama_config, where there is one, must name the version of the kernel.
void check_exllama_config(const Json& json, Faults& faults);

}  // namespace nibble

#endif  // NIBBLE_CONFIG_CONFIG_FIELDS_H_
