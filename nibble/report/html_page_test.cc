#include <regex>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/report/report.h"
#include "nibble/report/test_reports.h"

namespace nibble {
namespace {

using report::read_test_report;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

size_t count(const std::string& text, std::string_view part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

// What is wrong with how tags are nested; "" if nothing. Enough for markup that is written by a program.
std::string nesting_error(std::string html) {
  for (const std::string name : {"style", "script"}) {
    const size_t begin = html.find("<" + name + ">"), end = html.find("</" + name + ">");
    if (begin == html.npos || end == html.npos) return "no " + name;
    html.erase(begin, end + name.size() + 3 - begin);
  }
  const std::set<std::string> empty_tags = {"meta", "link", "!doctype"};
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z0-9!]+)((?: [a-z0-9-]+(?:=\"[^\"<>]*\")?)*)(/?)>|<[^>]*>?",
                       std::regex::icase);
  for (std::sregex_iterator it(html.begin(), html.end(), tag), end; it != end; ++it) {
    const std::string name = (*it)[2];
    if (name.empty()) return "not a tag: " + it->str();
    if (empty_tags.contains(name) || (*it)[4].length() > 0) continue;
    if ((*it)[1].length() == 0) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return fmt::format("</{}> closes <{}>", name, open.empty() ? "" : open.back());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

TEST(HtmlPage, IsWholeForEveryReport) {
  for (const char* name : {"compare-report.json", "compare-report-crowded.json"}) {
    const std::string html = render_html(read_test_report(name));
    EXPECT_THAT(nesting_error(html), IsEmpty()) << name;
    EXPECT_EQ(count(html, "<h1"), 1u);
    EXPECT_EQ(count(html, "<main"), 1u);
    EXPECT_THAT(html, HasSubstr("<html lang=\"en\">"));
    EXPECT_THAT(html, Not(HasSubstr("nan"))) << name;
    EXPECT_THAT(html, Not(HasSubstr("inf\""))) << name;
  }
}

TEST(HtmlPage, IdsAreUniqueAndNamesOfPicturesExist) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  std::set<std::string> ids;
  const std::regex id(" id=\"([^\"]*)\"");
  for (std::sregex_iterator it(html.begin(), html.end(), id), end; it != end; ++it) {
    EXPECT_TRUE(ids.insert((*it)[1]).second) << (*it)[1];
  }
  const std::regex names("aria-labelledby=\"([^\" ]*)(?: ([^\"]*))?\"");
  for (std::sregex_iterator it(html.begin(), html.end(), names), end; it != end; ++it) {
    EXPECT_TRUE(ids.contains((*it)[1])) << (*it)[1];
    EXPECT_TRUE((*it)[2].length() == 0 || ids.contains((*it)[2])) << (*it)[2];
  }
}

TEST(HtmlPage, SaysTheVerdictWithThreeNumbers) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  EXPECT_THAT(html, HasSubstr("Take GPTQ 4-bit g128.</h2>"));
  EXPECT_EQ(count(html, "<li><b>"), 3u);
  EXPECT_THAT(html, HasSubstr("89.7<small> %</small>"));
  EXPECT_THAT(html, HasSubstr("111<small> MB</small>"));
  EXPECT_THAT(html, HasSubstr("171<small> tok/s</small>"));
  EXPECT_THAT(html, HasSubstr("This reference was itself rounded"));
}

TEST(HtmlPage, HasEveryPictureTwiceAndItsNumbersAsATable) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  for (const char* id : {"kl-by-bits", "kl-by-speed", "perplexity-by-size", "memory", "kl-percentiles"}) {
    EXPECT_EQ(count(html, fmt::format("<figure id=\"{}\">", id)), 1u) << id;
    EXPECT_EQ(count(html, fmt::format("<title id=\"{}-wide-t\">", id)), 1u) << id;
    EXPECT_EQ(count(html, fmt::format("<desc id=\"{}-narrow-d\">", id)), 1u) << id;
  }
  EXPECT_EQ(count(html, "<figure "), count(html, "<details class=\"numbers\"><summary>The numbers"));
  EXPECT_EQ(count(html, "class=\"multiple "), 6u);  // all but the reference
  EXPECT_EQ(count(html, "class=\"front\""), 4u);    // two pictures, two layouts
}

TEST(HtmlPage, EveryPointCanBeReachedAndHasAName) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  EXPECT_EQ(count(html, "<g class=\"point "), 2u * 3u * 7u);
  EXPECT_EQ(count(html, "tabindex=\"0\" role=\"img\" aria-label=\""), 2u * 3u * 7u);
  EXPECT_THAT(html,
              HasSubstr("aria-label=\"NF4: KL divergence, nats 0.0482 ± 0.0023, Bits per weight 4.50\""));
}

TEST(HtmlPage, LoadsNothing) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  EXPECT_THAT(html, HasSubstr("default-src 'none'; style-src 'sha256-"));
  const std::regex loads(
      "(src|href|action|srcset)=\"(?!#|data:)|url\\(|@import|fetch\\(|XMLHttpRequest|WebSocket");
  EXPECT_FALSE(std::regex_search(html, loads));
  // An attribute for style or an event would be refused by the policy.
  EXPECT_FALSE(std::regex_search(html, std::regex("<[^>]* (style|on[a-z]+)=\"")));
}

TEST(HtmlPage, NamesAndAnswersAreNotMarkup) {
  const std::string html = render_html(read_test_report("compare-report-crowded.json"));
  EXPECT_EQ(count(html, "<script"), 1u);
  EXPECT_EQ(count(html, "</title>"), 1u + count(html, "<title") - 1u);
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_THAT(html, Not(HasSubstr("\u202E")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;quotes&quot;"));
  EXPECT_THAT(html, HasSubstr("עברית"));
}

TEST(HtmlPage, MarksTheFirstWordThatDiffers) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  EXPECT_THAT(html,
              HasSubstr("or half of a byte. It <mark><span class=\"sr\">[first difference] </span>is</mark>"
                        "<span class=\"after\"> used to represent"));
  EXPECT_THAT(html, HasSubstr("differs at word 15"));
  EXPECT_THAT(html, HasSubstr("<mark class=\"end\">[ends here]</mark>"));
  EXPECT_EQ(count(html, "the same, word for word"), 4u);
}

TEST(HtmlPage, LeavesOutWhatWasNotMeasured) {
  for (const Json& json : {Json(), Json::object(), Json{{"schema", "nibble.compare/1"}},
                           Json{{"candidates", 7}}, Json{{"candidates", {1, nullptr, {{"id", 3}}}}}}) {
    const std::string html = render_html(json);
    EXPECT_THAT(nesting_error(html), IsEmpty());
    EXPECT_THAT(html, Not(HasSubstr("<figure")));
    EXPECT_THAT(html, HasSubstr("<h1"));
  }
}

// Every number becomes null, one key after the other: the page must stay whole.
TEST(HtmlPage, SurvivesEveryMissingKey) {
  const Json whole = read_test_report("compare-report.json");
  for (const auto& [path, value] : whole["candidates"][4].flatten().items()) {
    Json json = whole;
    const Json::json_pointer pointer(path);
    if (path.starts_with("/layers/2")) continue;  // the same as the first ones
    for (Json& candidate : json["candidates"]) {
      if (candidate.contains(pointer)) candidate[pointer] = nullptr;
    }
    const std::string html = render_html(json);
    EXPECT_THAT(html, HasSubstr("</html>")) << path;
    EXPECT_EQ(html.find("nan"), html.npos) << path;
    EXPECT_EQ(html.find("\"inf"), html.npos) << path;
  }
}

TEST(HtmlPage, OneCandidateIsNoPictureOfPoints) {
  Json json = read_test_report("compare-report.json");
  json["candidates"] = Json::array({json["candidates"][4]});
  json.erase("reference");
  const std::string html = render_html(json);
  EXPECT_THAT(nesting_error(html), IsEmpty());
  EXPECT_THAT(html, Not(HasSubstr("id=\"kl-by-bits\"")));
  EXPECT_THAT(html, HasSubstr("id=\"memory\""));
  EXPECT_THAT(html, HasSubstr("1 candidate measured"));
}

TEST(HtmlPage, ALimitIsDrawnAndWhoIsLeftOutIsTold) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  EXPECT_THAT(html, HasSubstr("limit 200 MB"));
  EXPECT_THAT(html, HasSubstr("INT8 is left out: needs 231 MB, the limit is 200 MB"));
}

}  // namespace
}  // namespace nibble
