// `nibble pull` as a user runs it, against a hub on this machine, and the offer of other commands to pull.

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"
#include "tests/support/hub_server.h"

namespace nibble::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string file_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Pull : public testing::Test {
 protected:
  Pull() {
    HubRepo repo;
    for (const auto& entry : std::filesystem::directory_iterator(model("gptq-4b-g128"))) {
      repo.files[entry.path().filename().string()] = file_text(entry.path());
    }
    repo.files["pytorch_model.bin"] = "pickle";
    repo.branches.emplace_back("v1");
    server_.add_repo("org/name", repo);
  }

  ProgramResult nibble(const std::vector<std::string>& arguments, RunOptions options = {}) const {
    options.environment.insert({{"HF_ENDPOINT", server_.endpoint()},
                                {"HF_HOME", folder_.path().string()},
                                {"no_proxy", "127.0.0.1,localhost"}});
    return run_program(arguments, options);
  }
  std::string snapshot() const {
    return (folder_.path() / "hub/models--org--name/snapshots" / std::string(40, 'a')).string();
  }

  const TemporaryFolder folder_;
  HubServer server_;
};

TEST_F(Pull, PrintsThePathAndTheModelRuns) {
  const ProgramResult pulled = nibble({"pull", "org/name"});
  EXPECT_EQ(pulled.status, 0) << pulled;
  EXPECT_EQ(pulled.out, snapshot() + "\n");
  EXPECT_THAT(pulled.err, AllOf(HasSubstr("can run code when they are read: pytorch_model.bin"),
                                HasSubstr("fetched"), Not(HasSubstr("\x1b"))));
  EXPECT_FALSE(std::filesystem::exists(snapshot() + "/pytorch_model.bin"));
  const ProgramResult inspected = nibble({"inspect", "org/name", "--json"});
  EXPECT_EQ(inspected.status, 0) << inspected;
  EXPECT_EQ(inspected.json()["quantization"]["method"], "gptq");

  const ProgramResult again = nibble({"pull", "org/name", "-q"});
  EXPECT_EQ(again.status, 0) << again;
  EXPECT_EQ(again.out, snapshot() + "\n");
  EXPECT_EQ(again.err, "");
}

TEST_F(Pull, JsonSaysWhatItDid) {
  const Json json =
      nibble({"pull", "--json", "--include", "*.json", "--exclude", "tok*", "org/name@v1"}).json();
  EXPECT_EQ(json["repo"], "org/name");
  EXPECT_EQ(json["revision"], "v1");
  EXPECT_EQ(json["commit"], std::string(40, 'a'));
  EXPECT_EQ(json["path"], snapshot());
  EXPECT_EQ(json["total_bytes"], json["fetched_bytes"]);
  EXPECT_EQ(json["fetched_files"], json["files"].size());
  for (const Json& file : json["files"]) {
    EXPECT_EQ(file["size"], file_text(snapshot() + "/" + file["path"].get<std::string>()).size());
  }
  EXPECT_EQ(file_text(folder_.path() / "hub/models--org--name/refs/v1"), std::string(40, 'a'));
}

TEST_F(Pull, ADryRunFetchesNothing) {
  const ProgramResult result = nibble({"pull", "org/name", "--dry-run"});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("  model.safetensors\n"), HasSubstr("to fetch into " + snapshot())));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "hub"));
  EXPECT_EQ(nibble({"pull", "org/name", "--dry-run", "--json"}).json()["files"][0]["cached"], false);
}

TEST_F(Pull, AGgufModelIsAFileInTheSnapshot) {
  HubRepo repo;
  repo.files = {{"m-Q4_0.gguf", "not really"}, {"README.md", "x"}};
  server_.add_repo("org/gguf", repo);
  const ProgramResult result = nibble({"pull", "org/gguf"});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.err, HasSubstr("/m-Q4_0.gguf"));
}

// Made by llama.cpp's converter: model-00001-of-00003.gguf and so on.
TEST_F(Pull, OneNameBringsAllPartsOfAGgufModel) {
  HubRepo repo;
  for (const auto& entry : std::filesystem::directory_iterator(data_folder() / "gguf/phi3_window")) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".gguf")) repo.files["Q4/" + name] = repo.files[name] = file_text(entry.path());
  }
  ASSERT_EQ(repo.files.size(), 6u);
  repo.commit = std::string(40, 'b');
  server_.add_repo("org/split", repo);
  const std::string at = (folder_.path() / "hub/models--org--split/snapshots" / repo.commit).string();

  const ProgramResult all = nibble({"pull", "org/split", "--dry-run", "--json"});
  ASSERT_EQ(all.status, 0) << all;
  EXPECT_EQ(all.json()["files"].size(), 3u);

  // Whichever part is named, and only those of its folder.
  const ProgramResult pulled = nibble({"pull", "org/split", "--include", "Q4/model-00002*"});
  ASSERT_EQ(pulled.status, 0) << pulled;
  const std::string first = at + "/Q4/model-00001-of-00003.gguf";
  EXPECT_THAT(pulled.err, AllOf(HasSubstr("MODEL is the file: " + first + "\n"), HasSubstr("3 files"),
                                Not(HasSubstr("00002-of-00003.gguf"))));
  EXPECT_FALSE(std::filesystem::exists(at + "/model-00001-of-00003.gguf"));
  const std::vector<std::string> prompt = {"--raw", "-p", "The river", "-n", "5", "--temperature", "0"};
  const auto run = [&](const std::string& model) {
    std::vector<std::string> arguments = {"run", model};
    arguments.insert(arguments.end(), prompt.begin(), prompt.end());
    return nibble(arguments);
  };
  const ProgramResult answer = run(first);
  EXPECT_EQ(answer.status, 0) << answer;
  EXPECT_EQ(answer.out, run((data_folder() / "gguf/phi3_window/model-00001-of-00003.gguf").string()).out);
  EXPECT_NE(answer.out, "");

  // A repository of one model and nothing else is known by its own name.
  ASSERT_EQ(nibble({"pull", "org/split"}).status, 0);
  EXPECT_EQ(run("org/split").out, answer.out);
}

// As llama.cpp and Ollama name them.
TEST_F(Pull, AWordBehindTheNameChoosesAGgufFile) {
  HubRepo repo;
  for (const char* const type : {"Q4_0", "Q8_0"}) {
    repo.files[fmt::format("m-{}.gguf", type)] = file_text(data_folder() / "gguf/gemma/model.gguf");
  }
  repo.commit = std::string(40, 'c');
  server_.add_repo("org/ggufs", repo);
  const ProgramResult several = nibble({"pull", "org/ggufs"});
  EXPECT_EQ(several.status, 2) << several;
  EXPECT_THAT(several.err, HasSubstr("MODEL:Q4_0"));
  ASSERT_EQ(nibble({"pull", "hf.co/org/ggufs:q8_0"}).status, 0);
  EXPECT_EQ(nibble({"inspect", "org/ggufs:Q8_0"}).status, 0);
  const ProgramResult other = nibble({"inspect", "org/ggufs:Q4_0"});
  EXPECT_EQ(other.status, 1) << other;
  EXPECT_THAT(other.err, HasSubstr("Run: nibble pull org/ggufs:Q4_0"));
  const RunOptions offline = {.environment = {{"HF_HUB_OFFLINE", "1"}}};
  EXPECT_EQ(nibble({"pull", "org/ggufs:Q8_0"}, offline).status, 0);
  EXPECT_EQ(nibble({"pull", "org/ggufs:Q4_0"}, offline).status, 1);
}

TEST_F(Pull, HelpHasExamples) {
  const ProgramResult result = nibble({"pull", "--help"});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("--include GLOB"), HasSubstr("Examples:\n  nibble pull org/name\n")));
}

TEST_F(Pull, ErrorsSayWhatToDo) {
  const ProgramResult misspelt = nibble({"pull", "org/nmae"});
  EXPECT_EQ(misspelt.status, 1) << misspelt;
  EXPECT_EQ(misspelt.out, "");
  EXPECT_TRUE(is_one_error(misspelt.err)) << misspelt;
  EXPECT_THAT(misspelt.err, AllOf(HasSubstr("org/nmae"), HasSubstr("Check the spelling")));
  EXPECT_EQ(nibble({"pull", "./folder"}).status, 2);
  EXPECT_EQ(nibble({"pull", "org/name", "--max-workers", "0"}).status, 2);
  EXPECT_EQ(nibble({"pull", "org/name", "--include", "*.xyz"}).status, 1);
  EXPECT_EQ(nibble({"pull", "org/name"}, {.environment = {{"HF_ENDPOINT", "hub"}}}).status, 2);
}

TEST_F(Pull, OfflineTheCacheAnswers) {
  const RunOptions offline = {.environment = {{"HF_HUB_OFFLINE", "1"}}};
  const ProgramResult missing = nibble({"pull", "org/name"}, offline);
  EXPECT_EQ(missing.status, 1) << missing;
  EXPECT_THAT(missing.err, HasSubstr("Unset HF_HUB_OFFLINE"));
  EXPECT_EQ(nibble({"pull", "org/name", "-q"}).status, 0);
  const size_t before = server_.requests().size();
  const ProgramResult found = nibble({"pull", "org/name"}, offline);
  EXPECT_EQ(found.status, 0) << found;
  EXPECT_EQ(found.out, snapshot() + "\n");
  EXPECT_EQ(server_.requests().size(), before);
}

TEST_F(Pull, CtrlCStopsAndTheSameCommandGoesOn) {
  server_.add_fault("/cdn/", {.stall_after = 100'000});
  RunOptions options;
  options.interrupt_when = [&](const std::string&) { return server_.count_requests("/cdn/") > 0; };
  const ProgramResult interrupted = nibble({"pull", "org/name"}, options);
  EXPECT_EQ(interrupted.status, 130) << interrupted;
  EXPECT_THAT(interrupted.err, HasSubstr("the same command goes on"));
  const ProgramResult result = nibble({"pull", "org/name"});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_EQ(nibble({"inspect", "org/name"}).status, 0);
}

TEST_F(Pull, ATerminalShowsABarForEachFile) {
  server_.add_fault("/cdn/", {.slow_bytes_per_second = 2'000'000});
  const ProgramResult result = nibble({"pull", "org/name"}, {.terminal = true});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("model.safetensors                    ["), HasSubstr("all files ")));
}

TEST_F(Pull, AMissingModelIsOfferedOnATerminal) {
  const ProgramResult piped = nibble({"inspect", "org/name"});
  EXPECT_EQ(piped.status, 1) << piped;
  EXPECT_THAT(piped.err, HasSubstr("Run: nibble pull org/name"));
  const ProgramResult declined = nibble({"inspect", "org/name"}, {.input = "n\n", .terminal = true});
  EXPECT_EQ(declined.status, 1) << declined;
  EXPECT_THAT(declined.out, AllOf(HasSubstr("Pull it now? [y/N]"), HasSubstr("Run: nibble pull org/name")));
  const ProgramResult accepted = nibble({"inspect", "org/name"}, {.input = "y\n", .terminal = true});
  EXPECT_EQ(accepted.status, 0) << accepted;
  EXPECT_THAT(accepted.out, HasSubstr("LlamaForCausalLM"));
}

}  // namespace
}  // namespace nibble::test
