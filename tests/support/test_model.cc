// test_model NAME: puts tests/data/models/NAME together, with a tokenizer, and prints its folder.

#include <cstdio>

#include "tests/support/fixtures.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: test_model NAME   (a folder of tests/data/models)\n");
    return 2;
  }
  const auto folder = nibble::test::model_folder(argv[1], {.with_tokenizer = true});
  if (!folder) {
    std::fprintf(stderr, "error: %s\n", nibble::to_string(folder.error()).c_str());
    return nibble::exit_status(folder.error().code);
  }
  std::printf("%s\n", folder->c_str());
  return 0;
}
