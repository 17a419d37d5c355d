// `nibble plan` and `nibble doctor` as a user runs them.

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

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
  EXPECT_LT(run.json()["peak_memory_bytes"].get<double>(), 2 * foretold["peak_memory_bytes"].get<double>());
}

TEST(Plan, WhatFitsInNoWayIsStatus3WithTheWayOut) {
  const ProgramResult result = run_program({"plan", model("tiny-llama"), "--max-memory", "20M", "--json"});
  EXPECT_EQ(result.status, 3) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result.err;
  const Json error = result.json()["error"];
  EXPECT_EQ(error["code"], "out_of_memory");
  EXPECT_THAT(error["what"].get<std::string>(), HasSubstr("--max-memory"));
  EXPECT_THAT(error["fix"].get<std::string>(), HasSubstr("fits --max-memory"));

  const ProgramResult table = run_program({"plan", model("tiny-llama"), "--max-memory", "20M"});
  EXPECT_EQ(table.status, 3);
  EXPECT_THAT(table.out, HasSubstr("* more than the 20 MB that there are"));
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

}  // namespace
}  // namespace nibble::test
