// The settings of quantization, in every dialect. Input: config.json, a zero byte, quantize_config.json (or
// nothing).

#include "nibble/config/quantization_config.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;

namespace {

// What is written reads back as it was.
void check_round_trip(const QuantizationConfig& config) {
  const Json written = to_json(config);
  const auto again = quantization_config_from_json(written);
  NIBBLE_CHECK(again.has_value());
  NIBBLE_CHECK(quant_method(*again) == quant_method(config));
  NIBBLE_CHECK(to_json(*again) == written);
}

void ask_for_modules(const QuantizationConfig& config) {
  for (const char* const module : {"model.layers.0.mlp.down_proj", "lm_head", ""}) {
    if (const auto* gptq = std::get_if<GPTQConfig>(&config)) fuzz::accepted(find_dynamic_rule(*gptq, module));
    if (const auto* packed = std::get_if<CompressedTensorsConfig>(&config))
      fuzz::accepted(find_group(*packed, module));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [config_text, old_text] = fuzz::split_at_zero(fuzz::as_text(data, size));
  const auto config_json = parse_json(config_text);
  if (!fuzz::accepted(config_json)) return 0;
  std::optional<Json> quantize_config;
  if (!old_text.empty()) {
    auto parsed = parse_json(old_text);
    if (!fuzz::accepted(parsed)) return 0;
    quantize_config = std::move(*parsed);
  }
  const auto resolved = resolve_quantization(*config_json, quantize_config, std::nullopt);
  if (!fuzz::accepted(resolved) || !resolved->config) return 0;
  NIBBLE_CHECK(!quantization_name(resolved->config).empty());
  check_round_trip(*resolved->config);
  ask_for_modules(*resolved->config);
  return 0;
}
