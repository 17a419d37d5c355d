// The program `nibble`.

#include <string>
#include <vector>

#include "nibble/cli/program.h"

int main(int argc, char** argv) { return nibble::cli::run_program({argv + 1, argv + argc}); }
