#ifndef NIBBLE_CONFIG_ENGINE_LIMITS_H_
#define NIBBLE_CONFIG_ENGINE_LIMITS_H_

// What other engines refuse to read, known before hours are spent on quantizing: `--for ENGINE`. The
// table stands in engine_limits.cc, and in docs/formats/engines.md.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "nibble/config/quantization_config.h"

namespace nibble {

enum class Engine { kVllm, kTransformers, kGptqModel };

// "vllm", "transformers", "gptqmodel"; kInvalidArgument lists them.
Expected<Engine> engine_from_name(std::string_view name);
std::string_view engine_name(Engine engine);  // "vLLM", as messages show it

// A linear layer as it is going to be quantized; what a rule of `dynamic` says is in it already.
struct WantedLinear {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  size_t out_features = 0;
  size_t in_features = 0;
  int bits = 4;
  int64_t group_size = 128;  // -1: all inputs
  bool sym = true;
  bool desc_act = false;
};

// kInvalidArgument for what the engine cannot read: the layout, or the first linear, with every reason,
// and what would fit. `config` gives the layout (checkpoint_format, version); bits and group sizes are
// those of the linears. bitsandbytes has no linears to check: pass none.
Status check_engine(Engine engine, const QuantizationConfig& config, std::span<const WantedLinear> linears);

// Without an engine: the sizes that no file of the layout can hold. AWQ needs a group size that divides
// in_features. GPTQ may have a last group with fewer inputs, but a size that divides no linear of the
// model is a mistake, not a wish.
Status check_group_size(const QuantizationConfig& config, std::span<const WantedLinear> linears);

// The largest usual group size of at most `wanted` that divides in_features of every linear and that
// the engine has kernels for: what a run takes whose user named none. -1 stays -1. Nothing if there is
// none.
std::optional<int64_t> fitting_group_size(std::optional<Engine> engine, std::span<const WantedLinear> linears,
                                          int64_t wanted);

}  // namespace nibble

#endif  // NIBBLE_CONFIG_ENGINE_LIMITS_H_
