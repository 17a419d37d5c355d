#ifndef NIBBLE_CLI_EVALUATION_OPTIONS_H_
#define NIBBLE_CLI_EVALUATION_OPTIONS_H_

// Options of the commands that score text: eval and compare.

#include <optional>
#include <string>
#include <vector>

#include "nibble/cli/options.h"
#include "nibble/evaluation/multiple_choice.h"
#include "nibble/evaluation/text_windows.h"

namespace nibble::cli {

inline constexpr size_t kLayerTokens = 1024;  // with which layers are compared

struct TextOptions {
  std::string file;
  std::optional<int64_t> tokens, window, stride;
  std::string bos = "auto";
  std::optional<double> confidence;

  double level() const { return confidence.value_or(0.95); }
  Status check() const;
  TextProtocol protocol(size_t default_tokens) const;
  // The text, and what it is called in reports.
  Expected<std::pair<std::string, std::string>> read() const;
};
void add_text_options(CLI::App& app, TextOptions& options, const std::string& default_tokens);

// The questions of a file; "default": those inside the program; "": none.
Expected<std::vector<Question>> read_questions(const std::string& file);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_EVALUATION_OPTIONS_H_
