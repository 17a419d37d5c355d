// The program `nibble`.

#include <string>
#include <vector>

#include "nibble/base/memory.h"
#include "nibble/cli/program.h"

int main(int argc, char** argv) {
  nibble::return_freed_memory();
  return nibble::cli::run_program({argv + 1, argv + argc});
}
