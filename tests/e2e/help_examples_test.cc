// The examples at the end of every --help, run by a shell as a user would paste them. Models and files
// have the names of the examples; what is behind them are the small ones of tests/data.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;

// Examples that contain the first are not run, for the reason that stands behind.
constexpr std::pair<std::string_view, std::string_view> kNotRun[] = {
    {"nibble pull", "needs the network: tests/e2e/pull_test.cc has a hub of its own"},
    {".gguf", "tests/e2e/gguf_test.cc"},
    {"| man", "needs a pager: tests/e2e/completion_test.cc reads the page"},
};

// Sizes that suit large models, and what is run instead.
constexpr std::pair<std::string_view, std::string_view> kInstead[] = {
    {"-p 512 -n 128 -b 1,4,8 -d 0,4096", "-p 32 -n 8 -b 1,2 -d 0,64"},
    {"--ctx-size 8192", "--ctx-size 512"},
    {"--nsamples 64 --seqlen 512", "--nsamples 4 --seqlen 64"},
    {"--bits 4 --group-size 128", "--bits 4 --group-size 128 --nsamples 4 --seqlen 64"},
    {"chats.jsonl:num=64,book.txt", "chats.jsonl:num=2,book.txt --seqlen 64"},
    {"--window 512", "--window 64"},
};

// What makes a command quicker; left out where the example says it itself.
constexpr std::pair<std::string_view, std::string_view> kQuicker[] = {
    {"eval", "--tokens 512"}, {"compare", "--quick"},     {"compare", "--tokens 512"},
    {"bench", "-n 8"},        {"bench", "-p 32"},         {"run", "-n 8"},
    {"chat", "-n 8"},         {"doctor", "--no-measure"},
};

constexpr std::pair<std::string_view, std::string_view> kModels[] = {
    {"./model", "tiny-llama"},      {"./model-again", "tiny-llama"},  {"./model-gptq", "gptq-4b-g128"},
    {"gptq-model", "gptq-4b-g128"}, {"./model-awq", "awq-gemm-g128"}, {"awq-model", "awq-gemm-g128"},
    {"gptq-3bit", "gptq-3b-g64"},   {"org/name", "tiny-llama"},       {"org/name-AWQ", "awq-gemm-g128"},
};

constexpr std::pair<std::string_view, std::string_view> kFiles[] = {
    {"question.txt", "What is a nibble?\n"},
    {"strings.jsonl", "\"Hello\"\n\"world\"\n"},
    {"ids.jsonl", "[1, 2, 3]\n[4]\n"},
    {"chat.json", R"([{"role": "user", "content": "Hello"}])"},
    {"tools.json", "[]"},
    {"questions.jsonl",
     "{\"prompt\": \"The sky is\", \"choices\": [\" blue\", \" green\"], \"answer\": 0}\n"},
    {"chats.jsonl",
     "{\"messages\": [{\"role\": \"user\", \"content\": \"Tell me about bridges, rivers and towns.\"}, "
     "{\"role\": \"assistant\", \"content\": \"The first bridge was built of wood.\"}]}\n"},
};
// These hold running text.
constexpr std::string_view kTexts[] = {"wiki.test.raw", "book.txt"};

std::vector<std::string> examples_of(const std::string& command) {
  std::istringstream page(run_program({"help", command}).out);
  std::vector<std::string> examples;
  bool found = false;
  for (std::string line; std::getline(page, line);) {
    if (found && !line.empty()) examples.push_back(line.substr(line.find_first_not_of(' ')));
    if (line == "Examples:") found = true;
  }
  return examples;
}

std::vector<std::string> words_of(const std::string& example) {
  std::istringstream in(example);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// The folder in the layout of huggingface_hub's cache.
fs::path hub_folder(const fs::path& hub, std::string name) {
  name.replace(name.find('/'), 1, "--");
  const fs::path repo = hub / ("models--" + name);
  fs::create_directories(repo / "refs");
  fs::create_directories(repo / "snapshots");
  EXPECT_TRUE(write_file(repo / "refs/main", "0123456789012345678901234567890123456789"));
  return repo / "snapshots/0123456789012345678901234567890123456789";
}

// Everything that the example reads, and nothing that it writes.
void prepare(const std::string& example, const fs::path& folder) {
  const std::vector<std::string> words = words_of(example);
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i - 1] == "-o" || words[i - 1] == ">") continue;
    for (const auto& [name, fixture] : kModels) {
      if (words[i] != name) continue;
      const fs::path place = name.starts_with("org/") ? hub_folder(folder / "hub", words[i]) : folder / name;
      fs::copy(model(fixture), place, fs::copy_options::skip_existing | fs::copy_options::recursive);
    }
    for (const auto& [name, text] : kFiles) {
      if (words[i].find(name) == std::string::npos) continue;
      EXPECT_TRUE(write_file(folder / name, text));
    }
    std::string running;
    for (int line = 0; line < 200; ++line) running += "The first bridge over the river was built of wood.\n";
    for (const std::string_view name : kTexts) {
      if (words[i].find(name) == std::string::npos) continue;
      EXPECT_TRUE(write_file(folder / name, running));
    }
    if (words[i] == "ids.safetensors") {
      fs::copy_file(data_folder() / "goldens/tiny-llama.safetensors", folder / words[i]);
    }
  }
}

std::string shortened(std::string example, const std::string& command) {
  for (const auto& [large, small] : kInstead) {
    if (const size_t at = example.find(large); at != std::string::npos)
      example.replace(at, large.size(), small);
  }
  std::string more;
  for (const auto& [name, option] : kQuicker) {
    const std::string flag(option.substr(0, option.find(' ')));
    if (name == command && example.find(" " + flag + " ") == std::string::npos &&
        !example.ends_with(" " + flag)) {
      more += " " + std::string(option);
    }
  }
  const size_t end = std::min(example.find(" <"), example.find(" >"));
  return example.insert(std::min(end, example.size()), more);
}

struct Outcome {
  int status = 0;
  std::string output;
};

Outcome run_in_shell(const std::string& example, const fs::path& folder) {
  fs::create_directories(folder / "bin");
  fs::create_directories(folder / ".config/fish/completions");
  fs::create_symlink(NIBBLE_PROGRAM, folder / "bin/nibble");
  const std::string script = "cd '" + folder.string() +
                             "' && export HOME=\"$PWD\" HF_HUB_CACHE=\"$PWD/hub\"" +
                             " HF_HUB_OFFLINE=1 PATH=\"$PWD/bin:$PATH\" && " + example + "\n";
  EXPECT_TRUE(write_file(folder / "example.sh", script));
  Outcome outcome;
  const std::string command = fmt::format("timeout {} bash '{}' 2>&1 < /dev/null", 120 * patience(),
                                          (folder / "example.sh").string());
  FILE* pipe = ::popen(command.c_str(), "r");
  char buffer[4096];
  while (const size_t got = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, got);
  outcome.status = WEXITSTATUS(::pclose(pipe));
  return outcome;
}

class HelpExamples : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(EveryCommand, HelpExamples,
                         testing::Values("run", "chat", "pull", "compare", "quantize", "eval", "bench",
                                         "plan", "doctor", "inspect", "diff", "convert", "dequantize",
                                         "logits", "tokenize", "detokenize", "chat-template", "completion",
                                         "man"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(HelpExamples, Work) {
  const std::string command = GetParam();
  const std::vector<std::string> examples = examples_of(command);
  EXPECT_GE(examples.size(), 2u);
  for (const std::string& example : examples) {
    const bool skipped = std::any_of(std::begin(kNotRun), std::end(kNotRun), [&](const auto& row) {
      return example.find(row.first) != std::string::npos;
    });
    if (skipped) continue;
    const TemporaryFolder folder;
    prepare(example, folder.path());
    const std::string line = shortened(example, command);
    SCOPED_TRACE(line);
    const Outcome outcome = run_in_shell(line, folder.path());
    const bool says_no = command == "diff" && outcome.status == 1;
    EXPECT_TRUE(outcome.status == 0 || says_no) << "status " << outcome.status << "\n"
                                                << outcome.output.substr(0, 1000);
    EXPECT_EQ(outcome.output.find("error:"), std::string::npos) << outcome.output.substr(0, 1000);
  }
}

// A command that is not in the list above would go untested.
TEST(HelpExamplesList, HasAllCommands) {
  std::istringstream page(run_program({"help"}).out);
  size_t count = 0;
  bool listed = false;
  for (std::string line; std::getline(page, line) && !(listed && line.empty());) {
    if (listed && !line.starts_with("  help ")) ++count;
    if (line == "Commands:") listed = true;
  }
  EXPECT_EQ(count, 19u);
}

}  // namespace
}  // namespace nibble::test
