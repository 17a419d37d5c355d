// config.json and generation_config.json.

#include "nibble/config/generation_config.h"
#include "nibble/config/pretrained_config.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto json = parse_json(fuzz::as_text(data, size), {.allow_nan = true});
  if (!fuzz::accepted(json)) return 0;
  fuzz::accepted(GenerationConfig::from_json(*json));
  const auto config = PretrainedConfig::from_json(*json);
  if (!fuzz::accepted(config)) return 0;
  // What everything behind it relies on.
  NIBBLE_CHECK(config->hidden_size > 0 && config->num_hidden_layers > 0 && config->vocab_size > 0);
  NIBBLE_CHECK(config->num_attention_heads > 0 && config->num_key_value_heads > 0 && config->head_dim > 0);
  NIBBLE_CHECK(config->num_attention_heads % config->num_key_value_heads == 0);
  NIBBLE_CHECK(config->layer_types.size() == config->num_hidden_layers);
  return 0;
}
