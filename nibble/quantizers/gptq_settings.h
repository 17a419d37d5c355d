#ifndef NIBBLE_QUANTIZERS_GPTQ_SETTINGS_H_
#define NIBBLE_QUANTIZERS_GPTQ_SETTINGS_H_

// What the solvers are asked for, and what they give back.

#include <optional>
#include <string>
#include <string_view>

#include "nibble/quantization/quantized_weight.h"

namespace nibble {

// How hard to try (docs/quantizers.md).
//   kCompat   the original algorithm with the original's choices
//   kFast     better grids, order and refinement; one stream
//   kDefault  + the target that repairs what earlier layers broke
//   kBest     + block descent over groups and more grid candidates
enum class Effort { kCompat, kFast, kDefault, kBest };

struct EffortName {
  Effort effort;
  std::string_view name;
};
inline constexpr EffortName kEffortNames[] = {{Effort::kCompat, "compat"},
                                              {Effort::kFast, "fast"},
                                              {Effort::kDefault, "default"},
                                              {Effort::kBest, "best"}};

constexpr std::string_view effort_name(Effort effort) {
  for (const EffortName& entry : kEffortNames) {
    if (entry.effort == effort) return entry.name;
  }
  return "";
}

constexpr std::optional<Effort> effort_from_name(std::string_view name) {
  for (const EffortName& entry : kEffortNames) {
    if (entry.name == name) return entry.effort;
  }
  return std::nullopt;
}

struct GptqSettings {
  int bits = 4;             // 2 to 8
  size_t group_size = 128;  // inputs per group; 0: all of them. The last group may be short.
  bool sym = true;
  bool desc_act = false;        // columns by falling activation; groups then are not contiguous
  bool static_groups = false;   // kCompat: grids from the weights before any update
  bool act_group_aware = true;  // kCompat without desc_act: GPTQModel's order ("GAR")
  double damp_percent = 0.05;
  double damp_auto_increment = 0.01;
  double mse = 0.0;            // kCompat: exponent of the clip search, 0: none
  bool signed_scales = false;  // sym: a group may have a negative scale
  bool zero_may_be_0 = true;   // false: the layout cannot store zero point 0 (asymmetric gptq v1)
};

struct SolvedWeight {
  // kAffine, natural input order (g_idx only with desc_act), scales already rounded to float16
  // (rounding = kF16) unless the compat solver, whose codes are chosen for float32 scales as in the
  // original; scales are rounded to float16 after that.
  QuantizedWeight weight;
  // tr(E H Eᵀ) / tr(W H Wᵀ), E = W - dequantized, with the undamped H; 0 where W H is 0.
  double loss = 0.0;
  double damp = 0.0;                // that was used in the end
  bool rounded_to_nearest = false;  // the Hessian could not be factored: no feedback was used
};

}  // namespace nibble

#endif  // NIBBLE_QUANTIZERS_GPTQ_SETTINGS_H_
