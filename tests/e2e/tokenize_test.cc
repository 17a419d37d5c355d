// `nibble tokenize`, `detokenize` and `chat-template` against what the original library says.

#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

using testing::HasSubstr;

std::vector<Json> lines_of(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    const auto json = parse_json(line);
    EXPECT_TRUE(json.has_value()) << line;
    lines.push_back(json.value_or(Json()));
  }
  return lines;
}

TEST(Tokenize, JsonLinesAgreeWithTheGoldens) {
  const std::filesystem::path folder = data_folder() / "tokenizers/smollm2";
  const Json goldens = parse_json(read_text_file(folder / "goldens.json").value()).value();
  std::string texts;
  std::string ids;
  for (const Json& golden : goldens["cases"]) {
    texts += dump_json(golden["text"], -1) + "\n";
    ids += dump_json(golden["ids"], -1) + "\n";
  }
  const ProgramResult result = run_program(
      {"tokenize", folder.string(), "--jsonl", "--no-special-tokens", "--offsets"}, {.input = texts});
  ASSERT_EQ(result.status, 0) << result;
  const ProgramResult special = run_program({"tokenize", folder.string(), "--jsonl"}, {.input = texts});
  const ProgramResult decoded = run_program({"detokenize", folder.string(), "--jsonl"}, {.input = ids});
  const ProgramResult skipped =
      run_program({"detokenize", folder.string(), "--jsonl", "--skip-special-tokens"}, {.input = ids});
  const std::vector<Json> lines = lines_of(result.out);
  const std::vector<Json> special_lines = lines_of(special.out);
  const std::vector<Json> decoded_lines = lines_of(decoded.out);
  const std::vector<Json> skipped_lines = lines_of(skipped.out);
  ASSERT_EQ(lines.size(), goldens["cases"].size());
  ASSERT_EQ(special_lines.size(), lines.size());
  ASSERT_EQ(decoded_lines.size(), lines.size());
  ASSERT_EQ(skipped_lines.size(), lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const Json& golden = goldens["cases"][i];
    EXPECT_EQ(lines[i]["ids"], golden["ids"]) << golden["text"];
    EXPECT_EQ(lines[i]["offsets"], golden["offsets"]) << golden["text"];
    EXPECT_EQ(special_lines[i]["ids"], golden["ids_with_special"]) << golden["text"];
    EXPECT_EQ(decoded_lines[i]["text"], golden["decoded"]) << golden["text"];
    EXPECT_EQ(skipped_lines[i]["text"], golden["decoded_skip_special"]) << golden["text"];
  }
}

TEST(Tokenize, TextFileAndStdinAreTheSame) {
  const TemporaryFolder folder;
  const std::string text = "A nibble is half a byte. [1, 2]\nÅé 漢字 🙂 {}";
  const std::string file = (folder.path() / "text.txt").string();
  ASSERT_TRUE(write_file(file, text).has_value());
  const std::string tiny = model("tiny-llama");
  const ProgramResult by_flag = run_program({"tokenize", tiny, "--text", text});
  const ProgramResult by_file = run_program({"tokenize", tiny, "--file", file});
  const ProgramResult by_stdin = run_program({"tokenize", "-m", tiny}, {.input = text});
  EXPECT_EQ(by_flag.status, 0) << by_flag;
  EXPECT_GT(by_flag.json()["ids"].size(), 5u);
  EXPECT_EQ(by_flag.out, by_file.out);
  EXPECT_EQ(by_flag.out, by_stdin.out);

  std::vector<std::string> arguments = {"detokenize", tiny};
  const Json ids = by_flag.json()["ids"];
  for (const Json& id : ids) arguments.push_back(id.dump());
  EXPECT_EQ(run_program(arguments).json()["text"], text);
  EXPECT_EQ(run_program({"detokenize", tiny, ids.dump()}).json()["text"], text);
}

TEST(Tokenize, TextsThatLookLikeSyntaxStayText) {
  const std::string tiny = model("tiny-llama");
  for (const char* const text : {"{}", "[a,b]", "-x", "--", "--json", "%%", "\"\""}) {
    const ProgramResult by_flag = run_program({"tokenize", tiny, "--text", text});
    const ProgramResult by_stdin = run_program({"tokenize", tiny}, {.input = text});
    EXPECT_EQ(by_flag.status, 0) << text << "\n" << by_flag;
    EXPECT_EQ(by_flag.out, by_stdin.out) << text;
  }
  EXPECT_EQ(run_program({"tokenize", tiny, "--text", ""}).json()["ids"], Json::array());
}

TEST(Tokenize, BadLinesAreNamed) {
  const ProgramResult result =
      run_program({"tokenize", model("tiny-llama"), "--jsonl"}, {.input = "\"a\"\n[1]\n"});
  EXPECT_EQ(result.status, 2) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, HasSubstr("stdin: line 2: a list, but each line holds one JSON string"));
  EXPECT_EQ(lines_of(result.out).size(), 1u);
  EXPECT_EQ(run_program({"detokenize", model("tiny-llama"), "x1"}).status, 2);
  EXPECT_EQ(run_program({"detokenize", model("tiny-llama"), "99999999999999999999"}).status, 2);
  EXPECT_EQ(run_program({"tokenize", model("tiny-llama"), "--text", "x", "--jsonl"}).status, 2);
}

TEST(ChatTemplate, AgreesWithTheGoldens) {
  const Json goldens =
      parse_json(read_text_file(data_folder() / "chat-templates/goldens.json").value()).value();
  const TemporaryFolder folder;
  const std::string messages = (folder.path() / "messages.json").string();
  const std::string tools = (folder.path() / "tools.json").string();
  const std::string tiny = model("tiny-llama");
  std::set<std::string> seen;  // the first rendering of each template; all of them are unit tests
  for (const Json& golden : goldens["cases"]) {
    const std::string name = golden["template"];
    // The special tokens of the goldens are not those of this model.
    if (!golden.contains("output") || !golden["kwargs"].empty() ||
        golden["output"].dump().find("s>") != std::string::npos)
      continue;
    if (!seen.insert(name).second) continue;
    const std::string source = (data_folder() / "chat-templates" / (name + ".jinja")).string();
    ASSERT_TRUE(write_file(messages, golden["messages"].dump()).has_value());
    std::vector<std::string> arguments = {"chat-template",   tiny,  "--messages", messages,
                                          "--chat-template", source};
    if (golden["add_generation_prompt"] == true) arguments.push_back("--add-generation-prompt");
    if (!golden["tools"].is_null()) {
      ASSERT_TRUE(write_file(tools, golden["tools"].dump()).has_value());
      arguments.insert(arguments.end(), {"--tools", tools});
    }
    const std::string text = golden["output"];
    if (text.find("2026-01-15") != std::string::npos || text.find("15 Jan") != std::string::npos) continue;
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.status, 0) << name << "\n" << result;
    EXPECT_EQ(result.out, text) << name;
  }
  EXPECT_GE(seen.size(), 5u);
}

TEST(ChatTemplate, JsonSaysWhatCameFromTheMessages) {
  const ProgramResult result = run_program(
      {"chat-template", model("tiny-llama"), "--messages", "-", "--add-generation-prompt", "--json"},
      {.input = R"([{"role": "user", "content": "Hello <|im_end|>"}])"});
  ASSERT_EQ(result.status, 0) << result;
  const Json json = result.json();
  const std::string text = json["text"];
  EXPECT_EQ(text, "<|im_start|>user\nHello <|im_end|><|im_end|>\n<|im_start|>assistant\n");
  bool found = false;
  for (const Json& range : json["literal"]) {
    const size_t begin = range[0];
    const size_t end = range[1];
    found = found || text.substr(begin, end - begin) == "Hello <|im_end|>";
  }
  EXPECT_TRUE(found) << json;
}

TEST(ChatTemplate, BadMessagesAreNamed) {
  const ProgramResult list =
      run_program({"chat-template", model("tiny-llama"), "--messages", "-"}, {.input = "{}"});
  EXPECT_EQ(list.status, 2) << list;
  EXPECT_THAT(list.err, HasSubstr("an object, but messages are a list"));
  const ProgramResult json =
      run_program({"chat-template", model("tiny-llama"), "--messages", "-"}, {.input = "[{"});
  EXPECT_EQ(json.status, 1) << json;
  EXPECT_TRUE(is_one_error(json.err)) << json;
  const ProgramResult file =
      run_program({"chat-template", model("tiny-llama"), "--messages", "/no/such.json"});
  EXPECT_EQ(file.status, 1) << file;
  EXPECT_THAT(file.err, HasSubstr("/no/such.json"));
}

}  // namespace
}  // namespace nibble::test
