// `nibble completion` and `nibble man`: the shells and man(1) take what they print.

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "tests/e2e/run_program.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string output(const std::vector<std::string>& arguments) {
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.status, 0) << result;
  return result.out;
}

// The commands that `nibble help` lists.
std::vector<std::string> commands() {
  std::istringstream page(output({"help"}));
  std::vector<std::string> names;
  bool listed = false;
  for (std::string line; std::getline(page, line);) {
    if (line == "Commands:") listed = true;
    if (line.empty() && listed) break;
    if (line.starts_with("  ") && listed) names.push_back(line.substr(2, line.find(' ', 2) - 2));
  }
  EXPECT_GT(names.size(), 15u);
  return names;
}

std::string shell(const std::string& command, int& status) {
  std::string out;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  char buffer[4096];
  while (const size_t got = std::fread(buffer, 1, sizeof buffer, pipe)) out.append(buffer, got);
  status = ::pclose(pipe);
  return out;
}

bool installed(const std::string& program) {
  int status = 0;
  shell("command -v " + program, status);
  return status == 0;
}

fs::path written(const std::string& name, const std::string& text) {
  const fs::path file = fs::path(testing::TempDir()) / ("nibble-completion-" + name);
  EXPECT_TRUE(write_file(file, text));
  return file;
}

TEST(Completion, HasEveryCommandAndEveryOption) {
  const std::string bash = output({"completion", "bash"});
  const std::string zsh = output({"completion", "zsh"});
  const std::string fish = output({"completion", "fish"});
  const std::string man = output({"man"});
  for (const std::string& command : commands()) {
    if (command == "help") continue;
    std::istringstream page(output({command, "--help"}));
    for (std::string line; std::getline(page, line);) {
      if (!line.starts_with("  -")) continue;
      std::istringstream words(line.substr(0, line.find("  ", 3)));
      for (std::string flag; words >> flag;) {
        if (flag.ends_with(',')) flag.pop_back();
        if (!flag.starts_with("--")) continue;
        EXPECT_THAT(bash, HasSubstr(" " + flag)) << command;
        EXPECT_THAT(zsh, HasSubstr(flag)) << command;
        EXPECT_THAT(fish, HasSubstr(" -l " + flag.substr(2))) << command;
        std::string escaped;
        for (const char c : flag) escaped += c == '-' ? "\\-" : std::string(1, c);
        EXPECT_THAT(man, HasSubstr(escaped)) << command;
      }
    }
  }
}

TEST(Completion, BashCompletesWords) {
  const fs::path script = written("bash", output({"completion", "bash"}));
  const auto complete = [&](const std::string& words) {
    int status = 0;
    const std::string command = "bash -c 'source " + script.string() +
                                "; complete -p nibble > /dev/null || exit 1; " + "COMP_WORDS=(" + words +
                                "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _nibble; " +
                                "echo \"${COMPREPLY[@]}\"'";
    const std::string out = shell(command, status);
    EXPECT_EQ(status, 0) << out;
    return out;
  };
  EXPECT_EQ(complete("nibble qu"), "quantize\n");
  EXPECT_EQ(complete("nibble quantize --meth"), "--method\n");
  EXPECT_EQ(complete("nibble quantize x --method gp"), "gptq\n");
  EXPECT_EQ(complete("nibble convert --to = gemv_"), "gemv_fast\n");
  EXPECT_EQ(complete("nibble completion f"), "fish\n");
  EXPECT_EQ(complete("nibble help detok"), "detokenize\n");
  EXPECT_EQ(complete("nibble run --temperature \"\""), "\n");  // a number: nothing to offer
}

class OtherShell : public testing::TestWithParam<std::string> {};

TEST_P(OtherShell, ReadsItsScript) {
  const fs::path script = written(GetParam(), output({"completion", GetParam()}));
  if (!installed(GetParam())) GTEST_SKIP() << GetParam() << " is not installed";
  int status = 0;
  const std::string out = shell(GetParam() + " -n " + script.string(), status);
  EXPECT_EQ(status, 0) << out;
}

INSTANTIATE_TEST_SUITE_P(Completion, OtherShell, testing::Values("zsh", "fish"),
                         [](const auto& shell) { return shell.param; });

TEST(Completion, UnknownShellsAreUsageErrors) {
  for (const auto& arguments : {std::vector<std::string>{"completion"}, {"completion", "tcsh"}}) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.status, 2) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
  }
}

TEST(Man, ThePageIsWellFormed) {
  const std::string page = output({"man"});
  EXPECT_THAT(page, testing::StartsWith(".TH NIBBLE 1"));
  for (const std::string& command : commands()) {
    if (command == "help") continue;
    EXPECT_THAT(page, HasSubstr("\\fBnibble " + command.substr(0, command.find('-'))));
  }
  const fs::path file = written("nibble.1", page);
  int status = 0;
  if (installed("mandoc")) {
    EXPECT_EQ(shell("mandoc -T lint -W error " + file.string(), status), "");
  }
  if (installed("groff")) {
    EXPECT_EQ(shell("groff -man -ww -Tutf8 " + file.string() + " > /dev/null", status), "");
  }
}

}  // namespace
}  // namespace nibble::test
