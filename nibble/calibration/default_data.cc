// default_data.txt, put into the program by the assembler.

#include "nibble/calibration/dataset.h"

// clang-format off
asm(R"(
  .pushsection .rodata
  .globl nibble_default_data_begin
  .globl nibble_default_data_end
nibble_default_data_begin:
  .incbin ")" NIBBLE_DEFAULT_DATA R"("
nibble_default_data_end:
  .popsection
)");
// clang-format on

extern "C" const char nibble_default_data_begin[];
extern "C" const char nibble_default_data_end[];

namespace nibble {

std::string_view default_calibration_text() {
  return {nibble_default_data_begin,
          static_cast<size_t>(nibble_default_data_end - nibble_default_data_begin)};
}

}  // namespace nibble
