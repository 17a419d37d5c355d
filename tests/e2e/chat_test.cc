// `nibble chat`: turns from a pipe and from a terminal.

#include <algorithm>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/mapped_file.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::vector<std::string> chat(std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"chat", model("tiny-llama"), "--temperature", "0", "-n", "6"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

// One answer a line.
std::vector<Json> answers(const ProgramResult& result) {
  std::vector<Json> out;
  for (size_t begin = 0; begin < result.out.size();) {
    const size_t end = std::min(result.out.find('\n', begin), result.out.size());
    out.push_back(parse_json(result.out.substr(begin, end - begin)).value_or(Json()));
    begin = end + 1;
  }
  return out;
}

Json saved(const fs::path& file) {
  return parse_json(read_text_file(file).value_or("null")).value_or(Json())["messages"];
}

TEST(ChatCommand, OnlyNewTokensAreRead) {
  const ProgramResult result = run_program(chat({"--json", "--system", "Be kind."}),
                                           {.input = "Hello\nAnd more\n/retry\n/reset\nHello\n"});
  ASSERT_EQ(result.status, 0) << result;
  const std::vector<Json> turns = answers(result);
  ASSERT_EQ(turns.size(), 4u) << result;
  const auto tokens = [&](size_t turn, const char* key) { return turns[turn][key].get<int>(); };
  EXPECT_EQ(tokens(0, "read_tokens"), tokens(0, "prompt_tokens"));
  // All of the first prompt is in the cache, and most of its answer.
  EXPECT_LE(tokens(1, "read_tokens"), tokens(1, "prompt_tokens") - tokens(0, "prompt_tokens"));
  EXPECT_GT(tokens(1, "read_tokens"), 0);
  // Nothing is new but the token that the answer begins with.
  EXPECT_EQ(tokens(2, "read_tokens"), 1);
  EXPECT_EQ(turns[2]["text"], turns[1]["text"]);
  // Behind /reset the first prompt comes again; what both have in common stays.
  EXPECT_EQ(tokens(3, "prompt_tokens"), tokens(0, "prompt_tokens"));
  EXPECT_EQ(tokens(3, "read_tokens"), 1);
  EXPECT_EQ(turns[3]["text"], turns[0]["text"]);
}

TEST(ChatCommand, ASavedConversationGoesOnWithTheSameAnswer) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "talk.json";
  const ProgramResult first =
      run_program(chat({"--json"}),
                  {.input = "Hello\n/save " + file.string() + "\nAnd more\n/save " + file.string() + "\n"});
  ASSERT_EQ(first.status, 0) << first;
  ASSERT_EQ(saved(file).size(), 4u);
  const ProgramResult second =
      run_program(chat({"--json"}), {.input = "/load " + file.string() + "\n/retry\n"});
  ASSERT_EQ(second.status, 0) << second;
  // The same bits, read at once or turn by turn.
  EXPECT_EQ(answers(second).at(0)["text"], answers(first).at(1)["text"]);
}

TEST(ChatCommand, WritesOverNothingButConversations) {
  const ProgramResult result =
      run_program(chat(), {.input = "/save " + model("tiny-llama") + "/config.json\n"});
  EXPECT_EQ(result.status, 2);
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, HasSubstr("exists and is no saved conversation"));
}

TEST(ChatCommand, MessagesMayHaveSeveralLines) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "talk.json";
  const ProgramResult result = run_program(
      chat(),
      {.input = "\"\"\"one\ntwo\"\"\"\nthree \\\nfour\n\"\"\"\nfive\n\"\"\"\n/save " + file.string() + "\n"});
  ASSERT_EQ(result.status, 0) << result;
  const Json messages = saved(file);
  ASSERT_EQ(messages.size(), 6u);
  EXPECT_EQ(messages[0]["content"], "one\ntwo");
  EXPECT_EQ(messages[2]["content"], "three \nfour");
  EXPECT_EQ(messages[4]["content"], "five");
}

TEST(ChatCommand, WhatStandsBetweenFencesIsNoCommand) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "talk.json";
  const ProgramResult result = run_program(
      chat(), {.input = "\"\"\"\r\n/etc/hosts is a file\r\n\"\"\"\r\n/save " + file.string() + "\r\n"});
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_EQ(saved(file)[0]["content"], "/etc/hosts is a file");
}

TEST(ChatCommand, AFileThatCannotBeWrittenIsAnError) {
  const ProgramResult result = run_program(chat(), {.input = "/save " + std::string(300, 'x') + "\n"});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, HasSubstr("File name too long"));
}

TEST(ChatCommand, CtrlCEndsAChatOfAPipe) {
  std::string input;
  for (int i = 0; i < 5000; ++i) input += "Hello\n/reset\n";
  for (const int signal : {SIGINT, SIGTERM}) {
    const ProgramResult result = run_program(
        chat({"--json"}),
        {.input = input,
         .interrupt_when = [](const std::string& seen) { return seen.find('\n') != std::string::npos; },
         .signal = signal});
    EXPECT_EQ(result.status, 130) << result.err;
  }
}

TEST(ChatCommand, ATerminationEndsAChatOfATerminal) {
  const TemporaryFolder folder;
  RunOptions options = {.environment = {{"XDG_STATE_HOME", folder.path().string()}, {"TERM", "xterm"}},
                        .terminal = true};
  options.interrupt_when = [](const std::string& seen) { return seen.find(">>> ") != std::string::npos; };
  options.signal = SIGTERM;
  const ProgramResult result = run_program(chat(), options);
  EXPECT_EQ(result.status, 130) << result;
}

TEST(ChatCommand, AFullContextIsSaidBeforeAnythingIsDropped) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "talk.json";
  std::string input;
  for (int i = 0; i < 6; ++i) input += "Tell me more about the bridge and the river, please\n";
  const ProgramResult result = run_program(chat({"--json", "--ctx-size", "128", "--system", "Be kind."}),
                                           {.input = input + "/save " + file.string() + "\n/stats\n"});
  ASSERT_EQ(result.status, 0) << result;
  const std::vector<Json> turns = answers(result);
  ASSERT_EQ(turns.size(), 6u) << result;
  EXPECT_EQ(turns.front()["hidden_messages"], 0);
  EXPECT_GT(turns.back()["hidden_messages"].get<int>(), 0);
  EXPECT_EQ(turns.back()["hidden_messages"].get<int>() % 2, 0);  // whole turns
  for (const Json& turn : turns) EXPECT_LT(turn["prompt_tokens"].get<int>(), 128);
  EXPECT_THAT(result.err, HasSubstr("note: the conversation has"));
  EXPECT_THAT(result.err, HasSubstr("\ncontext: ")) << "the statistics are lines";
  EXPECT_EQ(saved(file).size(), 13u) << "nothing is lost, the system message included";
  EXPECT_EQ(saved(file)[0]["role"], "system");
}

TEST(ChatCommand, AMessageLongerThanTheContextIsAnError) {
  std::string input;
  for (int i = 0; i < 200; ++i) input += "bridge ";
  const ProgramResult result = run_program(chat({"--ctx-size", "64"}), {.input = input + "\n"});
  EXPECT_NE(result.status, 0);
  EXPECT_TRUE(is_one_error(result.err)) << result;
}

TEST(ChatCommand, SettingsAreThoseOfTheOptions) {
  const ProgramResult result = run_program(
      chat(), {.input = "/set top_k 3\n/set max-new-tokens 2\n/set seed 7\n/set\n/set temprature 1\n"});
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("top_k = 3 (flag)"), HasSubstr("max_new_tokens = 2 (flag)"),
                    HasSubstr("seed = 7 (flag)"), HasSubstr("there is no setting \"temprature\"")));
}

TEST(ChatCommand, WhatIsNotThereIsNamed) {
  for (const char* line :
       {"/foo", "/retry", "/load /nowhere/talk.json", "/save", "/set top_k", "/set top_k -5"}) {
    const ProgramResult result = run_program(chat(), {.input = std::string(line) + "\n"});
    EXPECT_NE(result.status, 0) << line;
    EXPECT_TRUE(is_one_error(result.err)) << line << "\n" << result;
  }
}

TEST(ChatCommand, ATerminalHasEditingAndAHistory) {
  const TemporaryFolder folder;
  const fs::path& state = folder.path();
  RunOptions options = {.environment = {{"XDG_STATE_HOME", state.string()}, {"TERM", "xterm"}},
                        .terminal = true};
  options.input = "Helo\x1b[Dl\n/bye\n";  // one to the left, and the letter that is missing
  const ProgramResult first = run_program(chat(), options);
  EXPECT_EQ(first.status, 0) << first;
  const fs::path history = state / "nibble/chat_history";
  EXPECT_THAT(read_text_file(history).value_or(""), HasSubstr("Hello\n"));
  EXPECT_EQ(fs::status(history).permissions() & (fs::perms::group_all | fs::perms::others_all),
            fs::perms::none);

  const fs::path file = state / "talk.json";
  options.input = "\x1b[A\x1b[A\n/save " + file.string() + "\n/bye\n";  // before /bye stands Hello
  const ProgramResult second = run_program(chat(), options);
  EXPECT_EQ(second.status, 0) << second;
  EXPECT_EQ(saved(file)[0]["content"], "Hello");
}

}  // namespace
}  // namespace nibble::test
