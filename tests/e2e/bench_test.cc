// `nibble bench` as a user runs it.

#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/run_program.h"

namespace nibble::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Bench, ListsMakeTheProductOfModelsTestsAndThreads) {
  const ProgramResult result =
      run_program({"bench", model("gptq-4b-g128"), model("bnb-nf4"), "-p", "32,16", "-n", "4", "-b", "1,2",
                   "-d", "0,32", "-t", "1,2", "-r", "2", "--json"});
  ASSERT_EQ(result.status, 0) << result;
  const Json json = result.json();
  ASSERT_EQ(json["models"].size(), 2u);
  EXPECT_EQ(json["repetitions"], 2);
  for (const Json& one : json["models"]) {
    EXPECT_EQ(one["tests"].size(), 16u);
    EXPECT_EQ(one["limits"].size(), 2u);
    EXPECT_GT(one["peak_memory_bytes"], 0);
    for (const Json& row : one["tests"]) {
      SCOPED_TRACE(row["test"].get<std::string>());
      EXPECT_GT(row["tokens_per_second"]["median"], 0);
      const bool decode = row["kind"] == "decode";
      EXPECT_EQ(row["share_of_read"].is_number(), decode);
      EXPECT_EQ(row["share_of_arithmetic"].is_number(), !decode);
    }
  }
  EXPECT_EQ(json["models"][1]["quantization"], "bitsandbytes nf4");
}

TEST(Bench, PrintsATableAndCsv) {
  std::vector<std::string> arguments = {"bench", model("bnb-nf4"), "-p", "16", "-n", "4", "-r", "1"};
  const ProgramResult table = run_program(arguments);
  ASSERT_EQ(table.status, 0) << table;
  EXPECT_THAT(table.out, AllOf(HasSubstr("| pp16 |"), HasSubstr("|  tg4 |"), HasSubstr("--compute auto"),
                               HasSubstr("peak memory"), HasSubstr("read ")));
  arguments.insert(arguments.end(), {"-o", "csv", "--no-probe"});
  const ProgramResult csv = run_program(arguments);
  ASSERT_EQ(csv.status, 0) << csv;
  EXPECT_THAT(csv.out, AllOf(HasSubstr("\n"), HasSubstr(",pp16,prefill,16,1,0,1,")));
  EXPECT_EQ(csv.err, "");
}

TEST(Bench, WhatDoesNotFitTheContextIsSaidBeforeAnythingIsMeasured) {
  const ProgramResult result = run_program({"bench", model("bnb-nf4"), "-d", "1000", "-n", "128"});
  EXPECT_EQ(result.status, 2) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, AllOf(HasSubstr("pp512 @ d1000"), HasSubstr("1512"), HasSubstr("1024")));
}

TEST(Bench, TooManyThreadsAreAWarning) {
  const std::string threads = std::to_string(std::thread::hardware_concurrency() + 1);
  const ProgramResult result =
      run_program({"bench", model("bnb-nf4"), "-p", "8", "-n", "0", "-r", "1", "-t", threads, "--no-probe"});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.err, HasSubstr("warning: " + threads + " threads"));
}

TEST(Bench, WrongListsAreUsageErrors) {
  for (const char* list : {"1,", "", "a", "0", "1;2", "-1"}) {
    const ProgramResult result = run_program({"bench", model("bnb-nf4"), "-b", list});
    EXPECT_EQ(result.status, 2) << list << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
  }
  const ProgramResult nothing = run_program({"bench", model("bnb-nf4"), "-p", "0", "-n", "0"});
  EXPECT_EQ(nothing.status, 2) << nothing;
  EXPECT_THAT(nothing.err, HasSubstr("leave nothing to measure"));
}

TEST(Bench, StopsAtCtrlC) {
  const ProgramResult result = run_program(
      {"bench", model("bnb-nf4"), "-n", "500", "-r", "1000", "-v"},
      {.interrupt_when = [](const std::string& said) { return said.find("backend auto") != said.npos; }});
  EXPECT_EQ(result.status, 130) << result;
  EXPECT_EQ(result.out, "");
}

}  // namespace
}  // namespace nibble::test
