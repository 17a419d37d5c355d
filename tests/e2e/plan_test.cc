// `nibble plan` and `nibble doctor` as a user runs them.

#include <filesystem>
#include <fstream>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"
#include "tests/support/hub_server.h"

namespace nibble::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

TEST(Plan, TellsWhatEachMethodTakes) {
  const ProgramResult result = run_program({"plan", model("tiny-llama"), "--json"});
  ASSERT_EQ(result.status, 0) << result;
  const Json json = result.json();
  EXPECT_EQ(json["context"], 1024);
  EXPECT_EQ(json["methods"].size(), 7u);
  for (const Json& row : json["methods"]) {
    EXPECT_EQ(row["fits"], true) << row;
    EXPECT_GT(row["run"]["peak_memory_bytes"], row["run"]["weight_bytes"]);
    EXPECT_GT(row["run"]["decode_tokens_per_second"], 0);
  }
  EXPECT_TRUE(json["methods"][0]["quantize"].is_null());
  EXPECT_EQ(json["methods"][4]["quantize"]["calibration_tokens"], 128 * 1024);

  const ProgramResult text = run_program({"plan", model("gptq-4b-g128"), "-c", "64", "--parallel", "3"});
  ASSERT_EQ(text.status, 0) << text;
  EXPECT_THAT(text.out, HasSubstr("gptq:4:128"));
  EXPECT_THAT(text.out, HasSubstr("64 tokens of context, 3 sequences"));
  EXPECT_THAT(text.err, IsEmpty());
}

TEST(Plan, KnowsHowKeysAndValuesAreStored) {
  std::map<std::string, double> bytes;
  for (const char* const type : {"f32", "f16", "int8"}) {
    const ProgramResult result = run_program({"plan", model("tiny-llama"), "--ctx-size", "1024", "--methods",
                                              "float", "--kv-cache-type", type, "--json"});
    ASSERT_EQ(result.status, 0) << result;
    bytes[type] = result.json()["methods"][0]["run"]["kv_cache_bytes"].get<double>();
  }
  EXPECT_LT(bytes["int8"], 0.7 * bytes["f16"]);
  EXPECT_LT(bytes["f16"], 0.7 * bytes["f32"]);
  EXPECT_EQ(run_program({"plan", model("tiny-llama"), "--kv-cache-type", "int4"}).status, 2);
}

TEST(Plan, ForetellsWhatARunTakes) {
  const std::string folder = model("tiny-llama");
  const ProgramResult run = run_program(
      {"run", folder, "-p", "a dog and", "--raw", "-n", "32", "--ignore-eos", "--ctx-size", "64", "--json"});
  const ProgramResult plan =
      run_program({"plan", folder, "--ctx-size", "64", "--methods", "float", "--json"});
  ASSERT_EQ(run.status, 0) << run;
  ASSERT_EQ(plan.status, 0) << plan;
  const Json foretold = plan.json()["methods"][0]["run"];
  EXPECT_EQ(foretold["weight_bytes"], run.json()["weight_bytes"]);
  // Here nearly all is the program itself, which differs between builds; docs/plan.md has real models.
  EXPECT_LT(run.json()["peak_memory_bytes"].get<double>(),
            2 * patience() * foretold["peak_memory_bytes"].get<double>());
}

TEST(Plan, WhatFitsInNoWayIsStatus3WithTheWayOut) {
  const ProgramResult result = run_program({"plan", model("tiny-llama"), "--max-memory", "20M", "--json"});
  EXPECT_EQ(result.status, 3) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result.err;
  const Json error = result.json()["error"];
  EXPECT_EQ(error["code"], "out_of_memory");
  EXPECT_THAT(error["what"].get<std::string>(), HasSubstr("--max-memory"));
  EXPECT_THAT(error["fix"].get<std::string>(), HasSubstr("fits --max-memory"));
  EXPECT_EQ(result.json()["plan"]["methods"][0]["fits"], false);

  const ProgramResult table = run_program({"plan", model("tiny-llama"), "--max-memory", "20M"});
  EXPECT_EQ(table.status, 3);
  EXPECT_THAT(table.out, HasSubstr("* more than the 20 MB that there are"));
}

TEST(Plan, AQuantizationThatDoesNotFitIsOneObjectToo) {
  const TemporaryFolder folder;
  const ProgramResult result =
      run_program({"quantize", model("tiny-llama"), "-o", (folder.path() / "out").string(), "--dry-run",
                   "--json", "--max-memory", "1M"});
  EXPECT_EQ(result.status, 3) << result;
  EXPECT_EQ(result.json()["error"]["code"], "out_of_memory");
  EXPECT_GT(result.json()["plan"]["peak_memory_bytes"], 1'000'000);
}

TEST(Plan, WrongRequestsAreStatus2) {
  const std::string folder = model("tiny-llama");
  for (const std::vector<std::string>& options : {std::vector<std::string>{"--methods", "q4_0"},
                                                  {"--max-memory", "much"},
                                                  {"--ctx-size", "0"},
                                                  {"--ctx-size", "99999"},
                                                  {"--parallel", "0"},
                                                  {"--method", "nf4"}}) {
    std::vector<std::string> arguments = {"plan", folder};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.status, 2) << options.back() << result;
    EXPECT_TRUE(is_one_error(result.err)) << result.err;
  }
  EXPECT_EQ(run_program({"plan", "/no/such/model"}).status, 1);
}

TEST(Plan, ReadsOnlyHeadersOfAModelOnTheHub) {
  HubServer server;
  const TemporaryFolder home;
  const RunOptions options = {.environment = {{"HF_ENDPOINT", server.endpoint()},
                                              {"HF_HOME", home.path().string()},
                                              {"no_proxy", "127.0.0.1,localhost"}}};
  for (const char* name : {"tiny-llama", "gptq-4b-g128", "bnb-nf4-dq"}) {
    HubRepo repo;
    for (const auto& entry : std::filesystem::directory_iterator(model(name))) {
      std::ifstream file(entry.path(), std::ios::binary);
      repo.files[entry.path().filename().string()] = {std::istreambuf_iterator<char>(file), {}};
    }
    server.add_repo(std::string("org/") + name, repo);
    const ProgramResult remote =
        run_program({"plan", std::string("org/") + name, "--json", "-t", "1"}, options);
    const ProgramResult local = run_program({"plan", model(name), "--json", "-t", "1"});
    ASSERT_EQ(remote.status, 0) << remote;
    ASSERT_EQ(local.status, 0) << local;
    const Json here = local.json()["methods"];
    const Json there = remote.json()["methods"];
    ASSERT_EQ(there.size(), here.size());
    for (size_t i = 0; i < here.size(); ++i) {
      EXPECT_EQ(there[i]["method"], here[i]["method"]);
      EXPECT_EQ(there[i]["disk_bytes"], here[i]["disk_bytes"]);
      EXPECT_EQ(there[i]["run"]["peak_memory_bytes"], here[i]["run"]["peak_memory_bytes"]);
    }
  }
  size_t weights = 0;
  for (const HubRequest& request : server.requests()) {
    if (request.target.find("tiny-llama/resolve") == std::string::npos) continue;
    EXPECT_EQ(request.target.find("tokenizer.json"), std::string::npos) << request.target;
    weights += request.target.find("model.safetensors") != std::string::npos ? 1 : 0;
  }
  EXPECT_LE(weights, 3u);  // the beginning of the file; asked for where it is, and there
  EXPECT_FALSE(std::filesystem::exists(home.path() / "hub"));

  const ProgramResult missing = run_program({"plan", "org/none"}, options);
  EXPECT_EQ(missing.status, 1) << missing;
  EXPECT_THAT(missing.err, HasSubstr("org/none"));
}

TEST(Doctor, SaysWhatAMachineIs) {
  const TemporaryFolder cache;
  std::filesystem::create_directory(cache.path() / "models--org--name");
  const RunOptions options = {
      .environment = {{"NIBBLE_CPU", "scalar"}, {"HF_HUB_CACHE", cache.path().string()}}};
  const ProgramResult result = run_program({"doctor", "--json"}, options);
  ASSERT_EQ(result.status, 0) << result;
  const Json json = result.json();
  EXPECT_GT(json["threads"], 0);
  EXPECT_GT(json["memory"]["total_bytes"], 0);
  EXPECT_FALSE(json["cpu"]["allowed"].empty());
  EXPECT_EQ(json["instruction_sets"]["used"], "scalar");
  EXPECT_GT(json["measured"]["read_bytes_per_second"]["all_threads"], 0);
  EXPECT_GT(json["measured"]["f32_operations_per_second"]["one_thread"], 0);
  EXPECT_EQ(json["cache"]["models"], 1);
  EXPECT_TRUE(json["advice"].is_array());
}

TEST(Doctor, TheReportIsAPageOnStdout) {
  const ProgramResult result = run_program({"doctor", "--no-measure", "-t", "1"});
  ASSERT_EQ(result.status, 0) << result;
  for (const char* label :
       {"nibble", "processor", "instruction sets", "memory", "huge pages", "model cache"}) {
    EXPECT_THAT("\n" + result.out, HasSubstr(std::string("\n") + label));
  }
  EXPECT_THAT(result.out, testing::Not(HasSubstr("memory reads")));
  EXPECT_THAT(result.err, IsEmpty());
}

TEST(Doctor, SaysWhichKernelsAModelGetsAndWhyNotFasterOnes) {
  const TemporaryFolder work;
  const std::string folder = (work.path() / "groups-of-16").string();
  const ProgramResult made = run_program({"quantize", model("tiny-llama"), "-o", folder, "--method", "rtn",
                                          "--group-size", "16", "--no-check", "-q"});
  ASSERT_EQ(made.status, 0) << made;
  const ProgramResult slow = run_program({"doctor", folder, "--no-measure", "--json"});
  ASSERT_EQ(slow.status, 0) << slow;
  const Json kernels = slow.json()["model"];
  EXPECT_THAT(kernels["kernels"].dump(), HasSubstr("int4-f32-"));
  ASSERT_EQ(kernels["slow"].size(), 1u);
  EXPECT_THAT(kernels["slow"][0]["reason"].get<std::string>(), HasSubstr("groups of 16"));
  EXPECT_GT(kernels["slow"][0]["modules"].size(), 6u);

  const ProgramResult fast = run_program({"doctor", model("gptq-4b-g128"), "--no-measure"});
  ASSERT_EQ(fast.status, 0) << fast;
  EXPECT_THAT(fast.out, testing::AllOf(HasSubstr("gptq, --compute auto"), HasSubstr("x int4-a"),
                                       HasSubstr("times activations in int"), HasSubstr("for kernels")));
  EXPECT_THAT(fast.out, testing::Not(HasSubstr("would be faster")));
  for (const auto& [name, kernel] :
       {std::pair("gptq-2b-g32-asym-v2", "x int2-a"), {"gptq-3b-g64", "x int3-a"}}) {
    const ProgramResult narrow = run_program({"doctor", model(name), "--no-measure"});
    ASSERT_EQ(narrow.status, 0) << narrow;
    EXPECT_THAT(narrow.out, HasSubstr(kernel));
  }
  EXPECT_EQ(run_program({"doctor", "/no/such/model", "--no-measure"}).status, 1);
}

}  // namespace
}  // namespace nibble::test
