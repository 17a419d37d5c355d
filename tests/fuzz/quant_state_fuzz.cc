// The JSON in bitsandbytes' tensor quant_state.bitsandbytes__nf4.

#include "nibble/quantization/formats/bnb_4bit.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto state = parse_quant_state(fuzz::as_text(data, size));
  if (!fuzz::accepted(state)) return 0;
  const auto again = parse_quant_state(to_text(*state));
  NIBBLE_CHECK(again.has_value() && *again == *state);
  return 0;
}
