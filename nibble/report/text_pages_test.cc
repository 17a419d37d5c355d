// The pages that are text: Markdown and the table for a terminal.

#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/report/report.h"
#include "nibble/report/test_reports.h"
#include "nibble/report/text.h"

namespace nibble {
namespace {

using report::display_columns;
using report::read_test_report;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) out.push_back(line);
  return out;
}

size_t unescaped_bars(const std::string& line) {
  size_t bars = 0;
  for (size_t i = 0; i < line.size(); ++i) bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\');
  return bars;
}

TEST(Markdown, HasEverySection) {
  const std::string page = render_markdown(read_test_report("compare-report.json"));
  EXPECT_THAT(page, StartsWith("# SmolLM2-135M-Instruct: which quantization?\n"));
  for (const char* part :
       {"**Take GPTQ 4-bit g128.**", "\nWhy:\n", "> This reference was itself rounded", "\n## All numbers\n",
        "| **GPTQ 4-bit g128** |", "0.0251 ± 0.0012", "| INT8 (left out) |", "\n## Pairs\n", "p < 0.001",
        "\n## The layer that is hurt most\n", "\n## Answers\n", "\n## Protocol\n", "\n## Machine\n",
        "nibble compare SmolLM2-135M-Instruct", "Made by Nibble 0.1.0"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
}

TEST(Markdown, RowsOfATableHaveAsManyCellsAsItsHead) {
  for (const char* name : {"compare-report.json", "compare-report-crowded.json"}) {
    size_t expected = 0;
    for (const std::string& line : lines(render_markdown(read_test_report(name)))) {
      if (!line.starts_with('|')) {
        expected = 0;
      } else if (expected == 0) {
        expected = unescaped_bars(line);
      } else {
        EXPECT_EQ(unescaped_bars(line), expected) << line;
      }
    }
  }
}

TEST(Markdown, NamesAreNotMarkupAndAnswersStayInTheirFence) {
  Json json = read_test_report("compare-report-crowded.json");
  json["candidates"][1]["label"] = "a|b\n# <b>";
  json["candidates"][1]["samples"][0]["text"] = "```\n# out\n````";
  const std::string page = render_markdown(json);
  EXPECT_THAT(page, HasSubstr("| a\\|b \\# &lt;b> |"));
  EXPECT_THAT(page, HasSubstr("\n`````\n```\n# out\n````\n`````\n"));
  EXPECT_THAT(page.substr(0, page.find("## Answers")), Not(HasSubstr("<script")));
}

TEST(Markdown, SurvivesAnEmptyReport) { EXPECT_THAT(render_markdown(Json()), StartsWith("# A model")); }

TEST(Table, FitsItsColumnsAndDropsTheLeastImportantOnes) {
  const Json json = read_test_report("compare-report.json");
  for (const size_t columns : {60u, 80u, 100u, 200u}) {
    for (const std::string& line : lines(render_table(json, columns, false))) {
      EXPECT_LE(display_columns(line), columns) << line;
    }
  }
  const std::string head = lines(render_table(json, 80, false)).front();
  EXPECT_THAT(head, HasSubstr("KL"));
  EXPECT_THAT(head, HasSubstr("disk"));
  EXPECT_THAT(head, HasSubstr("tok/s"));
  EXPECT_THAT(head, Not(HasSubstr("rms dp")));
  EXPECT_THAT(lines(render_table(json, 400, false)).front(), HasSubstr("rms dp"));
}

TEST(Table, IsAlignedWithWideCharacters) {
  const auto table = lines(render_table(read_test_report("compare-report-crowded.json"), 80, false));
  ASSERT_GE(table.size(), 14u);
  for (size_t i = 1; i < 14; ++i) EXPECT_EQ(display_columns(table[i]), display_columns(table[1])) << table[i];
}

TEST(Table, ShowsTheChoiceTheReasonsAndWhoIsLeftOut) {
  const std::string table = render_table(read_test_report("compare-report.json"), 80, false);
  EXPECT_THAT(table, HasSubstr("> GPTQ 4-bit g128"));
  EXPECT_THAT(table, HasSubstr("INT8: left out, needs 231 MB"));
  EXPECT_THAT(table, HasSubstr("\nTake GPTQ 4-bit g128.\n"));
  EXPECT_THAT(table, HasSubstr("Runner-up: AWQ 4-bit g128"));
}

TEST(Table, ANoteThatNamesTheRunnerUpDoesNotNameItTwice) {
  Json json = read_test_report("compare-report.json");
  json["verdict"]["runner_up_note"] = "AWQ 4-bit g128 is as good";
  EXPECT_THAT(render_table(json, 80, false), HasSubstr("Runner-up: AWQ 4-bit g128 is as good\n"));
}

TEST(Table, ColorOnlyWhenAskedAndNeverFromNames) {
  Json json = read_test_report("compare-report.json");
  json["candidates"][1]["label"] = "\x1b[2Jevil\nname";
  json["verdict"]["headline"] = "Take\x1b[31m it.";
  EXPECT_THAT(render_table(json, 80, false), Not(HasSubstr("\x1b")));
  EXPECT_THAT(render_table(json, 80, true), HasSubstr("\x1b[1m"));
  EXPECT_THAT(render_table(json, 80, true), Not(HasSubstr("\x1b[2J")));
  EXPECT_THAT(render_table(json, 80, true), Not(HasSubstr("\x1b[31m")));
}

TEST(Table, SurvivesLittleRoomAndNoReport) {
  EXPECT_THAT(render_table(read_test_report("compare-report.json"), 1, false), HasSubstr("KL"));
  EXPECT_EQ(render_table(Json(), 80, false), "");
}

}  // namespace
}  // namespace nibble
