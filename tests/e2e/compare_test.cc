// `nibble compare` and `nibble eval`.

#include <fstream>

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

std::vector<std::string> compare_arguments(const std::string& methods, const fs::path& workdir) {
  return {"compare", model("tiny-llama"), "--methods", methods,          "--tokens", "2048",     "--window",
          "256",     "--nsamples",        "16",        "--seqlen",       "256",      "--rounds", "1",
          "-o",      workdir.string(),    "--prompt",  "The history of", "--json",   "-q"};
}

const Json* candidate(const Json& report, const std::string& id) {
  for (const Json& c : report["candidates"]) {
    if (c["id"] == id) return &c;
  }
  ADD_FAILURE() << "no candidate " << id;
  return nullptr;
}

TEST(Compare, MeasuresEveryMethodAndDecides) {
  const TemporaryFolder work;
  const fs::path dir = work.path() / "report";
  const ProgramResult result = run_program(compare_arguments("nf4,int8,gptq:4:128,gptq:2:128", dir));
  ASSERT_EQ(result.status, 0) << result;
  const Json report = result.json();
  ASSERT_EQ(report["candidates"].size(), 5u);
  EXPECT_EQ(report["reference"], "float");
  EXPECT_EQ(report["protocol"]["window"], 256);
  EXPECT_EQ(report["pairs"].size(), 6u);
  const Json& two = *candidate(report, "gptq-2-128");
  const Json& four = *candidate(report, "gptq-4-128");
  const Json& int8 = *candidate(report, "int8");
  const auto kl = [](const Json& c) { return c["quality"]["kl"]["mean"].get<double>(); };
  EXPECT_GT(kl(two), 3 * kl(four));
  EXPECT_GT(kl(four), kl(int8));
  EXPECT_GT(kl(int8), 0);
  for (const Json& c : report["candidates"]) {
    EXPECT_GT(c["speed"]["decode_tokens_per_second"]["median"].get<double>(), 0) << c["id"];
    EXPECT_GT(c["size"]["disk_bytes"].get<double>(), 0);
    EXPECT_EQ(c["samples"][0]["prompt"], "The history of");
    EXPECT_EQ(c["tasks"]["questions"], 24);
  }
  EXPECT_EQ(four["layers"].size(), 3u);
  EXPECT_EQ(candidate(report, "float")->at("quality")["kl"]["mean"], 0.0);
  EXPECT_THAT(report["verdict"]["headline"].get<std::string>(), HasSubstr("Take "));

  // The same report, as files.
  for (const char* file : {"report.json", "report.md", "report.html"})
    EXPECT_TRUE(fs::exists(dir / file)) << file;
  const std::string html = read_text_file(dir / "report.html").value();
  EXPECT_THAT(html, AllOf(HasSubstr("GPTQ 4-bit g128"), HasSubstr("<svg")));

  // One more candidate: the others are taken from where they are.
  const auto time_of = [&](const std::string& id) {
    return fs::last_write_time(dir / "candidates" / id / "scores.safetensors");
  };
  const auto before = time_of("gptq-4-128");
  const ProgramResult more = run_program(compare_arguments("nf4,int8,gptq:4:128,gptq:2:128,rtn:4:32", dir));
  ASSERT_EQ(more.status, 0) << more;
  EXPECT_EQ(time_of("gptq-4-128"), before);
  const Json again = more.json();
  ASSERT_EQ(again["candidates"].size(), 6u);
  EXPECT_EQ(candidate(again, "gptq-4-128")->at("quality"), four["quality"]);
  EXPECT_GT(kl(*candidate(again, "rtn-4-32")), 0);

  // Limits exclude, and say so.
  std::vector<std::string> limited = compare_arguments("nf4,int8,gptq:4:128,gptq:2:128,rtn:4:32", dir);
  limited.insert(limited.end(), {"--max-kl", "1e-9"});
  const Json out = run_program(limited).json();
  EXPECT_EQ(out["verdict"]["choice"], "float");
  EXPECT_THAT(candidate(out, "nf4")->at("excluded_because")[0].get<std::string>(), HasSubstr("at most"));
}

// A report says with which flags `nibble quantize` makes a candidate.
TEST(Compare, QuantizesAsNibbleQuantizeDoes) {
  const TemporaryFolder work;
  const fs::path dir = work.path() / "report";
  const ProgramResult compared = run_program(
      {"compare", model("tiny-llama"), "--methods", "gptq:4:64,awq:4:64,rtn:8:-1,gptq:3:64:compat", "-o",
       dir.string(), "--nsamples", "2", "--seqlen", "64", "--tokens", "512", "--window", "256", "--no-speed",
       "--no-layers", "--tasks", "none", "-q"});
  ASSERT_EQ(compared.status, 0) << compared;
  const std::pair<const char*, std::vector<std::string>> commands[] = {
      {"gptq-4-64", {"--method", "gptq", "--bits", "4", "--group-size", "64"}},
      {"awq-4-64", {"--method", "awq", "--bits", "4", "--group-size", "64"}},
      {"rtn-8--1", {"--method", "rtn", "--bits", "8", "--group-size", "-1"}},
      {"gptq-3-64-compat", {"--method", "gptq", "--bits", "3", "--group-size", "64", "--effort", "compat"}}};
  for (const auto& [id, flags] : commands) {
    const fs::path folder = work.path() / id;
    std::vector<std::string> quantize = {"quantize", model("tiny-llama"), "-o", folder.string(),
                                         "-q",       "--no-check"};
    quantize.insert(quantize.end(), flags.begin(), flags.end());
    if (flags[1] != "rtn") quantize.insert(quantize.end(), {"--nsamples", "2", "--seqlen", "64"});
    const ProgramResult made = run_program(quantize);
    ASSERT_EQ(made.status, 0) << made;
    const auto config = [](const fs::path& of) {
      return parse_json(read_text_file(of / "config.json").value()).value().at("quantization_config");
    };
    EXPECT_EQ(config(dir / "models" / id), config(folder)) << id;
  }
}

TEST(Compare, TheSameCheckpointTwiceIsIdentical) {
  const TemporaryFolder work;
  fs::copy(model("gptq-4b-g128"), work.path() / "copy");
  const ProgramResult result =
      run_program({"compare", model("gptq-4b-g128"), (work.path() / "copy").string(), "-o",
                   (work.path() / "r").string(), "--tokens", "1024", "--window", "256", "--no-speed",
                   "--no-layers", "--tasks", "none", "--json", "-q"});
  ASSERT_EQ(result.status, 0) << result;
  const Json report = result.json();
  EXPECT_EQ(report["candidates"][1]["quality"]["kl"]["mean"], 0.0);
  EXPECT_EQ(report["candidates"][1]["identical_to_reference"], true);
  EXPECT_THAT(report["verdict"]["headline"].get<std::string>(), HasSubstr("identical to the reference"));
  EXPECT_THAT(report["model"]["notes"][0].get<std::string>(), HasSubstr("itself a quantized model"));
}

TEST(Compare, GoesOnAfterAnInterruption) {
  const TemporaryFolder work;
  const fs::path dir = work.path() / "report";
  const std::vector<std::string> arguments = compare_arguments("nf4,gptq:4:128", dir);
  RunOptions stop;
  stop.interrupt_when = [&](const std::string&) {
    return fs::exists(dir / "candidates" / "float" / "scores.safetensors");
  };
  const ProgramResult stopped = run_program(arguments, stop);
  EXPECT_EQ(stopped.status, 130) << stopped;
  const auto made = fs::last_write_time(dir / "models" / "gptq-4-128" / "config.json");
  const ProgramResult result = run_program(arguments);
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_EQ(fs::last_write_time(dir / "models" / "gptq-4-128" / "config.json"), made);
  EXPECT_EQ(result.json()["candidates"].size(), 3u);
}

struct WrongUse {
  const char* name;
  std::vector<std::string> arguments;
  const char* message;
};

std::string architecture(const char* name) { return (data_folder() / "architectures" / name).string(); }

TEST(Compare, WrongUseSaysWhatIsWrong) {
  const TemporaryFolder work;
  const std::string dir = (work.path() / "r").string();
  const fs::path short_text = work.path() / "short.txt";
  std::ofstream(short_text) << "a";
  std::ofstream(work.path() / "file") << "x";
  const WrongUse cases[] = {
      {"a quantized model alone", {"compare", model("bnb-nf4"), "-o", dir}, "quantized already"},
      {"an unknown method",
       {"compare", model("tiny-llama"), "--methods", "gguf", "-o", dir},
       "no such method"},
      {"an unknown preference", {"compare", model("tiny-llama"), "--prefer", "price", "-o", dir}, "none of"},
      {"another tokenizer", {"compare", model("tiny-llama"), architecture("qwen2"), "-o", dir}, "tokenizer"},
      {"a file as folder", {"compare", model("tiny-llama"), "-o", (work.path() / "file").string()}, "file"},
      {"a short text",
       {"eval", model("tiny-llama"), "--text", short_text.string(), "--bos", "no"},
       "at least 2"},
      {"no such text", {"eval", model("tiny-llama"), "--text", "/nowhere.txt"}, "/nowhere.txt"},
      {"layers of one", {"eval", model("tiny-llama"), "--layers"}, "--reference"},
      {"another vocabulary",
       {"eval", model("tiny-llama"), "--tokens", "300", "--reference", architecture("qwen2")},
       "same tokenizer"},
      {"no reference",
       {"compare", model("tiny-llama"), model("bnb-nf4"), "--reference", "x", "-o", dir},
       "none of the models"},
      {"a strange level", {"eval", model("tiny-llama"), "--confidence", "95"}, "--confidence"},
  };
  for (const WrongUse& use : cases) {
    SCOPED_TRACE(use.name);
    const ProgramResult result = run_program(use.arguments);
    EXPECT_NE(result.status, 0) << result;
    EXPECT_THAT(result.err, HasSubstr(use.message)) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
  }
}

TEST(Eval, PrintsTheProtocolBesideTheNumbers) {
  const ProgramResult result =
      run_program({"eval", model("gptq-4b-g128"), "--reference", model("tiny-llama"), "--tokens", "1024",
                   "--window", "256", "--layers", "--tasks", "default"});
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.out, AllOf(HasSubstr("windows of 256, stride 256, without BOS"), HasSubstr("perplexity"),
                                HasSubstr("KL"), HasSubstr("model.layers.0"), HasSubstr("24 questions"),
                                HasSubstr("--compute auto")));
}

}  // namespace
}  // namespace nibble::test
