#ifndef NIBBLE_TESTS_E2E_RUN_PROGRAM_H_
#define NIBBLE_TESTS_E2E_RUN_PROGRAM_H_

// Runs the real program as a user's shell would.

#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "nibble/base/json.h"

namespace nibble::test {

// NIBBLE_TEST_PATIENCE: how many times as long as usual, and with how many times the memory, the program may
// work, as under a sanitizer. 1 by default.
int patience();

struct RunOptions {
  std::string input = {};  // stdin, which then ends
  std::map<std::string, std::string> environment =
      {};  // on top of this process's; NIBBLE_CPU, HF_* are cleared
  std::chrono::milliseconds timeout = std::chrono::seconds(120) * patience();
  bool close_stdout = false;
  bool abandon_stdout = false;  // nobody reads it: a pipe whose other end is closed
  bool terminal = false;        // stdin, stdout and stderr are one terminal; everything arrives in `out`
  // Asked about a thousand times a second with what came so far (stdout and stderr); once true, the
  // program gets `signal`. Up to `interrupts` times, each time asked about what came since the last.
  std::function<bool(const std::string&)> interrupt_when = {};
  int interrupts = 1;
  int signal = SIGINT;
};

struct ProgramResult {
  int status = -1;  // exit status; -1 if it did not exit by itself
  int signal = 0;   // that killed it
  bool timed_out = false;
  size_t peak_rss_bytes = 0;
  std::string out;
  std::string err;

  Json json() const;  // stdout as JSON; null, and a test failure, if it is not
};
std::ostream& operator<<(std::ostream& out, const ProgramResult& result);  // for failed assertions

ProgramResult run_program(const std::vector<std::string>& arguments, const RunOptions& options = {});

// "error: WHAT" and at most one indented line with the way out: no crash, no page of text.
bool is_one_error(const std::string& err);

// The folder of a model of tests/data/models with the tokenizer of tiny-llama.
std::string model(std::string_view name);

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_E2E_RUN_PROGRAM_H_
