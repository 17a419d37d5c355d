// What every command has in common: help, usage errors, streams, exit codes.

#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/run_program.h"

namespace nibble::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class EveryCommand : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Program, EveryCommand,
                         testing::Values("run", "chat", "inspect", "logits", "compare", "eval", "bench",
                                         "dequantize", "convert", "tokenize", "detokenize", "chat-template"),
                         [](const auto& command) {
                           std::string name = command.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST_P(EveryCommand, HelpGoesToStdoutAndEndsWithExamples) {
  const std::string command = GetParam();
  const ProgramResult result = run_program({command, "--help"});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("Usage: nibble " + command), HasSubstr("--json"), HasSubstr("--threads"),
                    HasSubstr("--verbose"), HasSubstr("--quiet"), HasSubstr("--model")));
  const size_t examples = result.out.find("Examples:\n");
  ASSERT_NE(examples, std::string::npos) << result;
  size_t count = 0;
  for (size_t at = examples; (at = result.out.find("\n  nibble " + command, at)) != std::string::npos; ++at)
    ++count;
  EXPECT_GE(count, 2u) << result;
  EXPECT_EQ(run_program({"help", command}).out, result.out);
}

TEST_P(EveryCommand, UnknownFlagNamesTheNearestOne) {
  const ProgramResult result = run_program({GetParam(), "--verbsoe"});
  EXPECT_EQ(result.status, 2) << result;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, AllOf(HasSubstr("--verbsoe"), HasSubstr("--verbose?")));
}

TEST_P(EveryCommand, WithoutModelSaysSo) {
  std::vector<std::string> arguments = {GetParam()};
  const std::string command = GetParam();
  if (command == "logits") arguments.insert(arguments.end(), {"--input-ids", "x", "-o", "y"});
  if (command == "dequantize" || command == "convert") arguments.insert(arguments.end(), {"-o", "y"});
  if (command == "chat-template") arguments.insert(arguments.end(), {"--messages", "x"});
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.status, 2) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, HasSubstr("no MODEL was named"));
}

TEST_P(EveryCommand, MissingModelIsNotFound) {
  const std::string command = GetParam();
  std::vector<std::string> arguments = {command, "-m", "/no/such/folder"};
  if (command == "run") arguments.insert(arguments.end(), {"-p", "x"});
  if (command == "detokenize") arguments.push_back("1");
  if (command == "dequantize" || command == "convert")
    arguments.insert(arguments.end(), {"-o", "/tmp/never-written"});
  if (command == "logits") GTEST_SKIP() << "reads --input-ids first: LogitsOfAMissingModel";
  if (command == "chat-template") arguments.insert(arguments.end(), {"--messages", "-"});
  const ProgramResult result = run_program(arguments, {.input = "[]"});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, HasSubstr("/no/such/folder"));
}

TEST(Program, HelpListsEveryCommand) {
  for (const char* const flag : {"help", "--help", "-h"}) {
    const ProgramResult result = run_program({flag});
    EXPECT_EQ(result.status, 0);
    for (const char* const command : {"run", "chat", "pull", "inspect", "logits", "dequantize", "convert",
                                      "tokenize", "detokenize", "chat-template"}) {
      EXPECT_THAT(result.out, HasSubstr(std::string("\n  ") + command + " "));
    }
  }
}

TEST(Program, WithoutCommandIsAUsageError) {
  const ProgramResult result = run_program({});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(is_one_error(result.err)) << result;
}

TEST(Program, UnknownCommandNamesTheNearestOne) {
  const ProgramResult result = run_program({"inspct", "x"});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.err,
            "error: there is no command \"inspct\"\n  Did you mean \"nibble inspect\"? All commands: nibble "
            "help\n");
  EXPECT_THAT(run_program({"frobnicate"}).err, Not(HasSubstr("Did you mean")));
  EXPECT_EQ(run_program({"help", "inspct"}).status, 2);
}

TEST(Program, VersionNamesCompilerAndInstructionSets) {
  const ProgramResult result = run_program({"--version"});
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, AllOf(StartsWith("nibble "), HasSubstr("\ncompiler: "), HasSubstr("found scalar"),
                                HasSubstr("; used ")));
  const ProgramResult scalar = run_program({"--version"}, {.environment = {{"NIBBLE_CPU", "scalar"}}});
  EXPECT_THAT(scalar.out, HasSubstr("used scalar\n"));
}

TEST(Program, UnknownInstructionSetIsAnErrorWithASentence) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--version"}, {"inspect", model("tiny-llama")}}) {
    const ProgramResult result = run_program(arguments, {.environment = {{"NIBBLE_CPU", "bogus"}}});
    EXPECT_EQ(result.status, 2) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    EXPECT_THAT(result.err, AllOf(HasSubstr("NIBBLE_CPU"), HasSubstr("bogus")));
  }
}

TEST(Program, ErrorsAreJsonTooWhereJsonIsWanted) {
  const ProgramResult result = run_program({"inspect", "/no/such/folder", "--json"});
  EXPECT_EQ(result.status, 1);
  const Json error = result.json()["error"];
  EXPECT_EQ(error["code"], "not_found");
  EXPECT_NE(error["what"], "");
  EXPECT_TRUE(error.contains("where") && error.contains("fix"));
  EXPECT_TRUE(is_one_error(result.err)) << result;

  const ProgramResult usage = run_program({"inspect", "--jsn", "--json"});
  EXPECT_EQ(usage.status, 2);
  EXPECT_EQ(usage.json()["error"]["code"], "invalid_argument");
}

TEST(Program, BadValuesSayWhatIsWanted) {
  const auto error = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"run", "/no/such/folder", "-p", "x"});
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.status, 2) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    return result.err;
  };
  EXPECT_THAT(error({"-n", "many"}), AllOf(HasSubstr("--n-predict"), HasSubstr("\"many\"")));
  EXPECT_THAT(error({"-n", "-2"}), HasSubstr("from -1 to"));
  EXPECT_THAT(error({"--top-k", "1.5"}), HasSubstr("--top-k"));
  EXPECT_THAT(error({"-t", "0"}), AllOf(HasSubstr("--threads"), HasSubstr("from 1 to 1024")));
  EXPECT_THAT(error({"-t", "99999999999999999999"}), HasSubstr("--threads"));
  EXPECT_THAT(error({"--temperature", "nan"}), HasSubstr("not a number"));
  EXPECT_THAT(error({"--compute", "f16"}), HasSubstr("f32, auto"));
  EXPECT_THAT(error({"--quantize", "nf5"}), HasSubstr("did you mean nf4?"));
  EXPECT_THAT(error({"--quantize", "nf4", "--load-in-8bit"}), HasSubstr("say it twice"));
  EXPECT_THAT(error({"--load-in-4bit", "--load-in-8bit"}), HasSubstr("load_in_"));
  EXPECT_THAT(error({"--llm-int8-threshold", "0"}), HasSubstr("Add --load-in-8bit"));
  EXPECT_THAT(error({"--bnb-4bit-quant-type", "nf4"}), HasSubstr("Add --load-in-4bit"));
  EXPECT_THAT(error({"--backend", "frobnicate"}), AllOf(HasSubstr("--backend"), HasSubstr("frobnicate")));
  EXPECT_THAT(error({"--logit-bias", "x=1"}), HasSubstr("--logit-bias"));
  EXPECT_THAT(error({"--top-p", "1.5"}), HasSubstr("top_p"));
  EXPECT_THAT(error({"--stop", ""}), HasSubstr("--stop"));
  EXPECT_THAT(error({"-f", "file"}), HasSubstr("given twice"));
  EXPECT_THAT(error({"word"}), HasSubstr("\"word\" more than the command takes"));
  EXPECT_THAT(error({"--seed"}), HasSubstr("--seed"));
}

TEST(Program, ClosedStdoutIsAnErrorNotACrash) {
  const ProgramResult result = run_program({"inspect", model("tiny-llama")}, {.close_stdout = true});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, HasSubstr("stdout"));
}

TEST(Program, AReaderThatHasGoneEndsItQuietly) {
  const ProgramResult result = run_program({"inspect", model("tiny-llama")}, {.abandon_stdout = true});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(result.err, "");
}

TEST(Program, ColorsOnlyOnATerminalWithoutNoColor) {
  const std::vector<std::string> arguments = {"frobnicate"};
  const std::string color = "\x1b[1;31m";
  EXPECT_THAT(run_program(arguments, {.environment = {{"TERM", "xterm"}}}).err, Not(HasSubstr(color)));
  EXPECT_THAT(run_program(arguments, {.environment = {{"TERM", "xterm"}}, .terminal = true}).out,
              HasSubstr(color));
  EXPECT_THAT(
      run_program(arguments, {.environment = {{"TERM", "xterm"}, {"NO_COLOR", "1"}}, .terminal = true}).out,
      AllOf(HasSubstr("error: "), Not(HasSubstr("\x1b"))));
}

}  // namespace
}  // namespace nibble::test
