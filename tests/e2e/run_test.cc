// `nibble run`: prompts, settings, reports, chats.

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/checkpoint/safetensors.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

constexpr const char* kPrompt = "The first bridge was built";

std::vector<std::string> greedy(const std::string& folder, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"run", folder,      "--raw", "--temperature", "0", "-n",
                                        "12",  "--compute", "f32"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string ids_to_text(const std::vector<int32_t>& ids) {
  const Json list = ids;
  return run_program({"detokenize", model("tiny-llama"), list.dump(), "--skip-special-tokens"})
      .json()["text"];
}

TEST(Run, GreedyContinuationIsThatOfTheOriginal) {
  const auto file = SafetensorsFile::open(data_folder() / "goldens/tiny-llama.safetensors");
  ASSERT_TRUE(file.has_value());
  const auto ids = copy_elements<int32_t>(file->tensor("input_ids").value());
  const auto continuation = copy_elements<int32_t>(file->tensor("greedy").value());
  const std::string prompt = ids_to_text({ids.begin(), ids.begin() + 48});
  const ProgramResult tokens = run_program({"tokenize", model("tiny-llama"), "--text", prompt});
  ASSERT_EQ(tokens.json()["ids"], Json(std::vector<int32_t>(ids.begin(), ids.begin() + 48)))
      << "the golden prompt does not survive a round trip: take another";

  const std::string expected = ids_to_text({continuation.begin(), continuation.begin() + 24});
  const ProgramResult result = run_program({"run", model("tiny-llama"), "--raw", "-p", prompt, "-n", "24",
                                            "--temp", "0", "--compute", "f32", "--json"});
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_EQ(result.json()["text"], expected);
  EXPECT_EQ(result.json()["prompt_tokens"], 48);
  EXPECT_EQ(result.json()["completion_tokens"], 24);
}

TEST(Run, PromptMayComeFromAnywhere) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "prompt.txt").string();
  ASSERT_TRUE(write_file(file, std::string(kPrompt) + "\n").has_value());
  const std::string tiny = model("tiny-llama");
  const ProgramResult flag = run_program(greedy(tiny, {"-p", kPrompt}));
  ASSERT_EQ(flag.status, 0) << flag;
  EXPECT_GT(flag.out.size(), 10u);
  EXPECT_EQ(flag.out.back(), '\n');
  EXPECT_EQ(run_program(greedy(tiny, {kPrompt})).out, flag.out);
  EXPECT_EQ(run_program(greedy(tiny, {"-f", file})).out, flag.out);
  EXPECT_EQ(run_program(greedy(tiny), {.input = kPrompt}).out, flag.out);
  EXPECT_EQ(run_program(greedy(tiny), {.input = std::string(kPrompt) + "\n"}).out, flag.out);
  EXPECT_EQ(run_program(greedy(tiny, {"--prompt", kPrompt, "--threads", "1", "--prefill-chunk", "2"})).out,
            flag.out);

  // A pipe, as in -f <(command).
  EXPECT_EQ(run_program(greedy(tiny, {"-f", "/dev/stdin"}), {.input = kPrompt}).out, flag.out);

  const ProgramResult empty = run_program(greedy(tiny));
  EXPECT_EQ(empty.status, 2) << empty;
  EXPECT_THAT(empty.err, HasSubstr("the prompt is empty"));
}

TEST(Run, StderrEndsWithSpeedAndMemoryInOneLine) {
  const ProgramResult result = run_program(greedy(model("tiny-llama"), {"-p", kPrompt}));
  EXPECT_THAT(result.err,
              MatchesRegex("prompt [0-9]+ tokens, [0-9.]+ tok/s; generation 12 tokens, [0-9.]+ tok/s; "
                           "peak memory [0-9.]+ [kMG]B\n"));
  EXPECT_EQ(run_program(greedy(model("tiny-llama"), {"-p", kPrompt, "-q"})).err, "");
}

TEST(Run, LookupChangesTheSpeedAlone) {
  const std::string prompt = "one two three four, one two three four, one two";
  const std::string gptq = model("gptq-4b-g128");
  const Json plain = run_program(greedy(gptq, {"-p", prompt, "--json"})).json();
  EXPECT_EQ(plain["drafted_tokens"], 0);
  const Json drafted = run_program(greedy(gptq, {"-p", prompt, "--lookup", "4", "--json"})).json();
  EXPECT_EQ(drafted["text"], plain["text"]);
  EXPECT_GT(drafted["drafted_tokens"], 0);
  const ProgramResult verbose = run_program(greedy(gptq, {"-p", prompt, "--lookup", "4", "-v"}));
  EXPECT_THAT(verbose.err, HasSubstr("lookup: "));
  const ProgramResult refused = run_program(greedy(model("bnb-int8"), {"-p", prompt, "--lookup", "4"}));
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("--lookup 0"));
}

TEST(Run, CacheTypesAreChosenByName) {
  const std::string tiny = model("tiny-llama");
  const ProgramResult verbose = run_program({"run", tiny, "--raw", "-p", "x", "-n", "1", "-v"});
  EXPECT_THAT(verbose.err, HasSubstr("KV cache f16"));
  const ProgramResult exact = run_program(greedy(tiny, {"-p", "x", "-v"}));
  EXPECT_THAT(exact.err, HasSubstr("KV cache f32"));
  for (const char* type : {"f32", "f16", "int8"}) {
    const ProgramResult result = run_program(greedy(tiny, {"-p", kPrompt, "--kv-cache-type", type, "-v"}));
    ASSERT_EQ(result.status, 0) << result;
    EXPECT_THAT(result.err, HasSubstr(std::string("KV cache ") + type));
  }
  EXPECT_EQ(run_program(greedy(tiny, {"-p", "x", "--kv-cache-type", "int4"})).status, 2);
}

TEST(Run, JsonHasExactlyTheseKeys) {
  const ProgramResult result = run_program(greedy(model("gptq-4b-g128"), {"-p", kPrompt, "--json"}));
  ASSERT_EQ(result.status, 0) << result;
  std::set<std::string> keys;
  const Json json = result.json();
  for (const auto& [key, value] : json.items()) keys.insert(key);
  EXPECT_EQ(keys,
            (std::set<std::string>{"text", "finish_reason", "prompt_tokens", "completion_tokens",
                                   "prompt_tokens_per_second", "generation_tokens_per_second",
                                   "drafted_tokens", "accepted_tokens", "load_seconds", "peak_memory_bytes",
                                   "weight_bytes", "compute", "kernels", "quantization", "warnings"}));
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_EQ(json["completion_tokens"], 12);
  EXPECT_GT(json["prompt_tokens_per_second"], 0.0);
  EXPECT_GT(json["generation_tokens_per_second"], 0.0);
  EXPECT_GT(json["load_seconds"], 0.0);
  EXPECT_GT(json["peak_memory_bytes"], json["weight_bytes"]);
  EXPECT_EQ(json["compute"], "f32");
  EXPECT_EQ(json["quantization"], "gptq");
  EXPECT_NE(json["kernels"], "");
  const ProgramResult plain = run_program(greedy(model("gptq-4b-g128"), {"-p", kPrompt}));
  EXPECT_EQ(plain.out, json["text"].get<std::string>() + "\n");
}

TEST(Run, QuantizingWhileLoadingAgreesWithTheStoredModel) {
  const ProgramResult stored = run_program(greedy(model("bnb-nf4"), {"-p", kPrompt}));
  const ProgramResult now =
      run_program(greedy(model("tiny-llama"), {"-p", kPrompt, "--quantize", "nf4", "--json"}));
  ASSERT_EQ(now.status, 0) << now;
  EXPECT_EQ(now.json()["text"].get<std::string>() + "\n", stored.out);
  EXPECT_EQ(now.json()["quantization"], "bitsandbytes nf4");
  const ProgramResult spelled_out = run_program(
      greedy(model("tiny-llama"), {"-p", kPrompt, "--load-in-4bit", "--bnb-4bit-quant-type", "nf4"}));
  EXPECT_EQ(spelled_out.out, stored.out) << spelled_out;
  const ProgramResult int8 =
      run_program(greedy(model("tiny-llama"), {"-p", kPrompt, "--quantize", "int8", "--json"}));
  EXPECT_EQ(int8.json()["quantization"], "bitsandbytes int8");
  EXPECT_LT(now.json()["weight_bytes"], int8.json()["weight_bytes"]);
}

TEST(Run, SeedDecidesWhatIsSampled) {
  const auto sample = [](const std::string& seed) {
    return run_program({"run", model("tiny-llama"), "--raw", "-p", kPrompt, "-n", "24", "--temperature",
                        "1.2", "--seed", seed})
        .out;
  };
  EXPECT_EQ(sample("1"), sample("1"));
  EXPECT_NE(sample("1"), sample("2"));
}

TEST(Run, SettingsReachTheSampler) {
  const std::string tiny = model("tiny-llama");
  const std::string text = run_program(greedy(tiny, {"-p", kPrompt, "--json"})).json()["text"];
  // One choice is no choice.
  EXPECT_EQ(
      run_program({"run", tiny, "--raw", "-p", kPrompt, "-n", "12", "--compute", "f32", "--top-k", "1"}).out,
      text + "\n");
  EXPECT_EQ(
      run_program({"run", tiny, "--raw", "-p", kPrompt, "-n", "12", "--compute", "f32", "--min-p", "1"}).out,
      text + "\n");
  // A stop string ends the text before it.
  const std::string stop = text.substr(4, 3);
  const Json stopped =
      run_program(greedy(tiny, {"-p", kPrompt, "--stop", "never there", "--stop", stop, "--json"})).json();
  EXPECT_EQ(stopped["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(stopped["finish_reason"], "stop_string");
  // A bias makes a token certain.
  const Json biased = run_program(greedy(tiny, {"-p", kPrompt, "--logit-bias", "300=1000", "--json"})).json();
  std::string expected;
  for (int i = 0; i < 12; ++i) expected += ids_to_text({300});
  EXPECT_EQ(biased["text"], expected);
  EXPECT_NE(run_program(greedy(tiny, {"-p", kPrompt, "--repeat-penalty", "1.8"})).out, text + "\n");
}

TEST(Run, EndTokenEndsUnlessIgnored) {
  const std::string tiny = model("tiny-llama");
  const Json ended = run_program(greedy(tiny, {"-p", kPrompt, "--logit-bias", "0=1000", "--json"})).json();
  EXPECT_EQ(ended["finish_reason"], "stop");
  EXPECT_EQ(ended["completion_tokens"], 1);
  const Json ignored =
      run_program(greedy(tiny, {"-p", kPrompt, "--logit-bias", "0=1000", "--ignore-eos", "--json"})).json();
  EXPECT_EQ(ignored["completion_tokens"], 12);
}

TEST(Run, ChatTemplateIsAppliedUnlessRaw) {
  const std::string tiny = model("tiny-llama");
  const auto tokens = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"run", tiny, "-p", "Hello", "-n", "1", "--json"});
    const ProgramResult result = run_program(more);
    EXPECT_EQ(result.status, 0) << result;
    return result.json()["prompt_tokens"].get<size_t>();
  };
  const auto rendered = [&](const std::string& text) {
    return run_program({"tokenize", tiny, "--text", text}).json()["ids"].size();
  };
  EXPECT_EQ(tokens({"--raw"}), rendered("Hello"));
  EXPECT_EQ(tokens({}), rendered("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"));
  EXPECT_EQ(tokens({"--system", "Be brief."}),
            rendered("<|im_start|>system\nBe "
                     "brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"));
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "t.jinja").string();
  ASSERT_TRUE(write_file(file, "{{ messages[0].content }} {{ messages[0].content }}").has_value());
  EXPECT_EQ(tokens({"--chat-template", file}), rendered("Hello Hello"));
  const ProgramResult contradiction = run_program({"run", tiny, "-p", "x", "--raw", "--system", "y"});
  EXPECT_EQ(contradiction.status, 2) << contradiction;
}

TEST(Run, VerboseShowsValuesWithTheirOrigin) {
  const ProgramResult result =
      run_program({"run", model("bnb-nf4"), "--raw", "-p", "x", "-n", "1", "-v", "--top-p", "0.9"});
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.err, AllOf(HasSubstr("top_p = 0.9 (flag)"), HasSubstr("do_sample = true (flag)"),
                                HasSubstr("top_k = 50 (default)"),
                                HasSubstr("bnb_4bit_quant_type = \"nf4\" (config.json)")));
  const ProgramResult plain = run_program({"run", model("tiny-llama"), "--raw", "-p", "x", "-n", "1", "-v"});
  EXPECT_THAT(plain.err, HasSubstr("do_sample = false (generation_config.json)"));
}

TEST(Run, EveryInstructionSetAnswers) {
  for (const char* const target : {"scalar", "avx2"}) {
    const ProgramResult result = run_program(greedy(model("gptq-4b-g128"), {"-p", kPrompt}),
                                             {.environment = {{"NIBBLE_CPU", target}}});
    if (result.status == 3) continue;  // this machine lacks it
    EXPECT_EQ(result.status, 0) << result;
    EXPECT_EQ(result.out, run_program(greedy(model("gptq-4b-g128"), {"-p", kPrompt})).out);
  }
}

TEST(Run, ContextIsLimited) {
  const std::string tiny = model("tiny-llama");
  const Json full = run_program(greedy(tiny, {"-p", kPrompt, "-c", "8", "--ignore-eos", "--json"})).json();
  EXPECT_EQ(full["finish_reason"], "context_full");
  const ProgramResult result = run_program(greedy(tiny, {"-p", kPrompt, "--max-model-len", "2"}));
  EXPECT_EQ(result.status, 3) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  const ProgramResult memory = run_program(greedy(tiny, {"-p", kPrompt, "--max-memory", "1MB"}));
  EXPECT_EQ(memory.status, 3) << memory;
}

// models--org--name/snapshots/COMMIT/FILE -> ../../blobs/HASH, as huggingface_hub lays it out.
TEST(Run, ModelsAreFoundInTheHuggingFaceCache) {
  const TemporaryFolder folder;
  const fs::path repo = folder.path() / "hub/models--acme--tiny";
  const fs::path snapshot = repo / "snapshots/0123abc";
  fs::create_directories(snapshot);
  fs::create_directories(repo / "blobs");
  fs::create_directories(repo / "refs");
  int number = 0;
  for (const auto& entry : fs::directory_iterator(model("tiny-llama"))) {
    const std::string blob = std::to_string(++number);
    fs::copy_file(entry.path(), repo / "blobs" / blob);
    fs::create_symlink(fs::path("../../blobs") / blob, snapshot / entry.path().filename());
  }
  ASSERT_TRUE(write_file(repo / "refs/main", "0123abc").has_value());
  const RunOptions options = {.environment = {{"HF_HOME", folder.path().string()}}};
  const std::string expected = run_program(greedy(model("tiny-llama"), {"-p", kPrompt})).out;
  for (const char* const name : {"acme/tiny", "hf://acme/tiny", "acme/tiny@main", "acme/tiny@0123abc"}) {
    EXPECT_EQ(run_program(greedy(name, {"-p", kPrompt}), options).out, expected) << name;
  }
  EXPECT_EQ(run_program(greedy("acme/tiny", {"-p", kPrompt, "--revision", "0123abc"}), options).out,
            expected);
  const ProgramResult missing = run_program(greedy("acme/other", {"-p", kPrompt}), options);
  EXPECT_EQ(missing.status, 1) << missing;
  EXPECT_TRUE(is_one_error(missing.err)) << missing;
  EXPECT_THAT(missing.err, HasSubstr("acme/other"));
  EXPECT_EQ(run_program(greedy("acme/tiny@v9", {"-p", kPrompt}), options).status, 1);
}

TEST(Run, InterruptEndsWithStatus130) {
  const ProgramResult result =
      run_program({"run", model("tiny-llama"), "--raw", "-p", kPrompt, "-n", "-1", "--ignore-eos",
                   "--compute", "f32", "-t", "1"},
                  {.environment = {{"NIBBLE_CPU", "scalar"}},
                   .interrupt_when = [](const std::string& seen) { return !seen.empty(); }});
  EXPECT_EQ(result.status, 130) << result;
  EXPECT_GT(result.out.size(), 0u);
  EXPECT_THAT(result.err, HasSubstr("error: interrupted"));
}

TEST(Chat, KeepsTheConversationUntilBye) {
  const ProgramResult result =
      run_program({"run", model("tiny-llama"), "-n", "4", "-v", "--temp", "0"},
                  {.input = "Hello\nAnd more\n/clear\nHello\n/bye\n", .terminal = true});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.out, HasSubstr(">>> "));
  // Prompt tokens per turn: the second reads only what is new, the fourth line is the first again.
  std::vector<int> prompts;
  for (size_t at = 0; (at = result.out.find("prompt ", at)) != std::string::npos; ++at) {
    if (std::isdigit(static_cast<unsigned char>(result.out[at + 7])) != 0)
      prompts.push_back(std::stoi(result.out.substr(at + 7)));
  }
  ASSERT_EQ(prompts.size(), 3u) << result;
  EXPECT_GT(prompts[0], 4);
  EXPECT_LE(prompts[2], prompts[0]);
}

TEST(Chat, InterruptStopsAnAnswerAndAtThePromptTheChat) {
  const RunOptions slow = {.environment = {{"NIBBLE_CPU", "scalar"}}};
  const std::vector<std::string> arguments = {
      "run", model("tiny-llama"), "-n", "-1", "--ignore-eos", "-t", "1", "-v"};
  RunOptions options = slow;
  options.terminal = true;
  options.input = "Hello\n/bye\n";
  options.interrupt_when = [](const std::string& seen) {
    const size_t prompt = seen.find(">>> ");
    return prompt != std::string::npos && seen.size() > prompt + 40;
  };
  const ProgramResult answer = run_program(arguments, options);
  EXPECT_EQ(answer.status, 0) << answer;
  const size_t generated = answer.out.find("generation ");
  ASSERT_NE(generated, std::string::npos) << answer;
  EXPECT_LT(std::stoi(answer.out.substr(generated + 11)), 900) << "it was not stopped";

  // At the prompt the first one says how to leave, the second one leaves.
  options.input = "";
  options.interrupts = 2;
  options.interrupt_when = [](const std::string& seen) { return seen.find(">>> ") != std::string::npos; };
  const ProgramResult prompt = run_program(arguments, options);
  EXPECT_EQ(prompt.status, 130) << prompt;
  EXPECT_THAT(prompt.out, HasSubstr("/bye or Ctrl-D ends the chat"));
}

TEST(Chat, NeedsAPromptForJson) {
  const ProgramResult result = run_program({"run", model("tiny-llama"), "--json"}, {.terminal = true});
  EXPECT_EQ(result.status, 2) << result;
}

}  // namespace
}  // namespace nibble::test
