#include "nibble/cli/evaluation_options.h"

#include <filesystem>

#include "nibble/base/mapped_file.h"
#include "nibble/cli/input.h"

namespace nibble::cli {

Status TextOptions::check() const {
  if (level() > 0.0 && level() < 1.0) return {};
  return fail(ErrorCode::kInvalidArgument, "{} is no level of confidence", level())
      .at("--confidence")
      .with_fix("Give a share between 0 and 1, such as 0.95.");
}

TextProtocol TextOptions::protocol(size_t default_tokens) const {
  TextProtocol protocol;
  protocol.max_tokens = static_cast<size_t>(tokens.value_or(static_cast<int64_t>(default_tokens)));
  if (window) protocol.window = static_cast<size_t>(*window);
  if (stride) protocol.stride = static_cast<size_t>(*stride);
  if (bos != "auto") protocol.bos = bos == "yes";
  return protocol;
}

Expected<std::pair<std::string, std::string>> TextOptions::read() const {
  if (file.empty()) {
    return std::pair(std::string(default_evaluation_text()),
                     std::string("WikiText-2 test, first 7 articles"));
  }
  NIBBLE_TRY(std::string text, read_input(file));
  return std::pair(std::move(text), file == "-" ? "stdin" : std::filesystem::path(file).filename().string());
}

void add_text_options(CLI::App& app, TextOptions& options, const std::string& default_tokens) {
  const std::string group = "Text";
  app.add_option("--text", options.file,
                 "Text to score, - for stdin (default: seven articles of WikiText-2's test split)")
      ->type_name("FILE")
      ->group(group);
  add_integer(app, "--tokens", options.tokens,
              fmt::format("Take so many of its tokens (default {}); 0: all", default_tokens), 0,
              int64_t{1} << 40)
      ->group(group);
  add_integer(app, "--window", options.window,
              "Tokens per window, each scored from an empty context (default 2048, or what the model allows)",
              2, 1 << 24)
      ->group(group);
  add_integer(app, "--stride", options.stride,
              "Tokens between the starts of two windows (default: the window, no overlap)", 1, 1 << 24)
      ->group(group);
  add_choice(app, "--bos", options.bos,
             "A BOS token before every window; auto: where the tokenizer puts one before a text",
             {"auto", "yes", "no"})
      ->group(group);
  add_number(app, "--confidence", options.confidence, "Of the intervals (default 0.95)")->group(group);
}

Expected<std::vector<Question>> read_questions(const std::string& file) {
  if (file.empty()) return std::vector<Question>();
  if (file == "default") return parse_questions(default_questions(), "built-in questions");
  NIBBLE_TRY(const std::string text, read_input(file));
  return parse_questions(text, file);
}

}  // namespace nibble::cli
