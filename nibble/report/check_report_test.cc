#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/report/report.h"
#include "nibble/report/test_reports.h"

namespace nibble {
namespace {

using report::read_test_report;

// The error of the usual report after `edit`.
template <class Edit>
Error error_after(Edit edit) {
  Json json = read_test_report("compare-report.json");
  edit(json);
  const Status status = check_report(json);
  return status ? Error{ErrorCode::kCancelled, "no error"} : status.error();
}

TEST(CheckReport, AcceptsTheExamples) {
  for (const char* name : {"compare-report.json", "compare-report-crowded.json"}) {
    const Status status = check_report(read_test_report(name));
    EXPECT_TRUE(status) << to_string(status.error());
  }
}

TEST(CheckReport, AcceptsWhatIsMissingNullOrNew) {
  EXPECT_TRUE(check_report({{"schema", "nibble.compare/1"}}));
  EXPECT_TRUE(check_report({{"schema", "nibble.compare/1"}, {"candidates", nullptr}, {"verdict", nullptr}}));
  EXPECT_TRUE(check_report({{"schema", "nibble.compare/1"}, {"news", {{"a", 1}}}}));
  EXPECT_TRUE(check_report(
      {{"schema", "nibble.compare/1"},
       {"candidates", {{{"id", "a"}, {"quality", nullptr}, {"size", {{"disk_bytes", nullptr}}}}}}}));
}

TEST(CheckReport, NamesTheKeyThatIsWrong) {
  const auto where = [](auto edit) { return error_after(edit).where; };
  EXPECT_EQ(where([](Json& r) { r["candidates"][2]["quality"]["kl"]["mean"] = "low"; }),
            "candidates[2].quality.kl.mean");
  EXPECT_EQ(where([](Json& r) { r["candidates"][0]["size"]["disk_bytes"] = -1; }),
            "candidates[0].size.disk_bytes");
  EXPECT_EQ(where([](Json& r) { r["candidates"][1]["quality"]["top1_agreement"]["value"] = 94.1; }),
            "candidates[1].quality.top1_agreement.value");
  EXPECT_EQ(where([](Json& r) { r["candidates"][1]["layers"][3] = 7; }), "candidates[1].layers[3]");
  EXPECT_EQ(where([](Json& r) { r["candidates"][1].erase("id"); }), "candidates[1].id");
  EXPECT_EQ(where([](Json& r) { r["candidates"][1]["id"] = "float"; }), "candidates[1].id");
  EXPECT_EQ(where([](Json& r) { r["candidates"] = "none"; }), "candidates");
  EXPECT_EQ(where([](Json& r) { r["verdict"]["reasons"][0] = 1; }), "verdict.reasons[0]");
  EXPECT_EQ(where([](Json& r) { r["verdict"]["choice"] = "nobody"; }), "verdict.choice");
  EXPECT_EQ(where([](Json& r) { r["reference"] = "nobody"; }), "reference");
  EXPECT_EQ(where([](Json& r) { r["pairs"][1]["b"] = "nobody"; }), "pairs[1].b");
  EXPECT_EQ(where([](Json& r) { r["protocol"]["bos"] = 0; }), "protocol.bos");
  EXPECT_EQ(where([](Json& r) { r.erase("schema"); }), "schema");
}

TEST(CheckReport, SaysWhatIsWrongAndHowToMendIt) {
  const Error error = error_after([](Json& r) { r["candidates"][2]["quality"]["kl"]["mean"] = "low"; });
  EXPECT_EQ(error.code, ErrorCode::kDataLoss);
  EXPECT_EQ(error.what, "a string where a number belongs");
  EXPECT_THAT(error.fix, testing::HasSubstr("run the comparison again"));
}

TEST(CheckReport, AnotherVersionIsUnsupported) {
  const Error error = error_after([](Json& r) { r["schema"] = "nibble.compare/2"; });
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_THAT(error.what, testing::HasSubstr("nibble.compare/2"));
  const Status status = check_report(Json::array());
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDataLoss);
}

}  // namespace
}  // namespace nibble
