// The other half of a fuzz target where there is no libFuzzer (g++, and every ordinary test run):
//   x_mutations MOST FOLDER...   each file of the folders, as it is and with single bytes of it changed:
//   every bit
//                                flipped, 0x00, 0xff, digits and letters exchanged. Every byte of a file gets
//                                its turn where all of them are at most MOST inputs; else every n-th.
// The same inputs in the same order each time. A crash says which, and leaves the input in ./mutation-crash.

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "nibble/base/mapped_file.h"
#include "tests/fuzz/fuzz.h"

namespace nibble::fuzz {
namespace {

namespace fs = std::filesystem;

// Larger files are tried as they are: they are data for the most part.
constexpr size_t kMostBytes = 65536;

struct Current {
  std::string file;
  std::string input;
} g_current;

void on_crash(int signal) {
  const int fd = ::open("mutation-crash", O_WRONLY | O_CREAT | O_TRUNC, 0644);
  [[maybe_unused]] ssize_t written = ::write(fd, g_current.input.data(), g_current.input.size());
  written = ::write(STDERR_FILENO, g_current.file.data(), g_current.file.size());
  constexpr std::string_view kText = ": crashed, mutated as in ./mutation-crash\n";
  written = ::write(STDERR_FILENO, kText.data(), kText.size());
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

void try_input(const std::string& bytes) {
  g_current.input = bytes;
  // A copy of exactly this size, so that a sanitizer sees a byte read behind it.
  const std::vector<uint8_t> copy(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

// What a byte is changed into; itself among them does no harm.
constexpr size_t kMutations = 16;
char mutation(size_t which, char original) {
  constexpr std::array<char, 8> kValues = {'\0', '\xff', '0', '9', '-', '"', '}', ','};
  return which < 8 ? static_cast<char>(original ^ (1 << which)) : kValues[which - 8];
}

std::vector<fs::path> files_in(const std::vector<std::string>& folders) {
  std::vector<fs::path> files;
  for (const std::string& folder : folders) {
    std::error_code ignored;  // a target without regressions has no folder of them
    for (const auto& entry : fs::directory_iterator(folder, ignored)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

size_t run(size_t most, const std::vector<fs::path>& files) {
  size_t all_bytes = 0;
  for (const fs::path& file : files) {
    const size_t bytes = fs::file_size(file);
    if (bytes <= kMostBytes) all_bytes += bytes;
  }
  // Odd, so that it has no factor in common with the number of mutations and all of them get their turn.
  static_assert(kMutations % 2 == 0);
  const size_t step = all_bytes * kMutations / most | 1;
  size_t count = 0;
  size_t turn = 0;
  for (const fs::path& file : files) {
    g_current.file = file.string();
    std::string bytes = read_text_file(file).value();
    try_input(bytes);
    ++count;
    if (bytes.size() > kMostBytes) continue;
    for (char& byte : bytes) {
      const char original = byte;
      for (size_t i = 0; i < kMutations; ++i) {
        const char value = mutation(i, original);
        if (turn++ % step != 0 || value == original) continue;
        byte = value;
        try_input(bytes);
        ++count;
      }
      byte = original;
    }
  }
  return count;
}

}  // namespace
}  // namespace nibble::fuzz

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: x_mutations MOST FOLDER...\n");
    return 2;
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
    std::signal(signal, nibble::fuzz::on_crash);
  const auto files = nibble::fuzz::files_in({argv + 2, argv + argc});
  if (files.empty()) {
    std::fprintf(stderr, "x_mutations: no files in %s\n", argv[2]);
    return 1;
  }
  const size_t count = nibble::fuzz::run(std::strtoul(argv[1], nullptr, 10), files);
  std::printf("%zu inputs from %zu files\n", count, files.size());
  return 0;
}
