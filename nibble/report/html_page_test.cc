#include <algorithm>
#include <map>
#include <set>
#include <sstream>
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

struct Tag {
  std::string name;  // "/p" for </p>
  std::map<std::string, std::string> attributes;
  bool is_empty = false;  // <path/>
};

// Enough for markup that is written by a program: attributes have double quotes. A tag with the name
// "?" is not one.
std::vector<Tag> tags_of(const std::string& html) {
  std::vector<Tag> tags;
  for (size_t at = html.find('<'); at != html.npos; at = html.find('<', at)) {
    const size_t end = std::min(html.find('>', at), html.size());
    std::istringstream inside(html.substr(at + 1, end - at - 1));
    Tag tag;
    inside >> tag.name;
    if (tag.name.ends_with('/')) tag.name.pop_back(), tag.is_empty = true;
    for (std::string key; std::getline(inside >> std::ws, key, '=') && !inside.eof();) {
      std::string value;
      if (inside.get() != '"' || !std::getline(inside, value, '"')) tag.name = "?";
      if (!tag.attributes.emplace(key, value).second) tag.name = "?";
      if (inside.peek() == '/') tag.is_empty = true;
    }
    tags.push_back(tag);
    at = end;
    // What is inside of these is no markup.
    if (tag.name == "style" || tag.name == "script") at = html.find("</" + tag.name, at);
  }
  return tags;
}

// What is wrong with how tags are nested; "" if nothing.
std::string nesting_error(const std::string& html) {
  std::vector<std::string> open;
  for (const Tag& tag : tags_of(html)) {
    if (tag.is_empty || tag.name == "meta" || tag.name == "link" || tag.name == "!doctype") continue;
    if (tag.name == "?" || tag.name.empty()) return "not a tag";
    if (!tag.name.starts_with('/')) {
      open.push_back(tag.name);
    } else if (open.empty() || "/" + open.back() != tag.name) {
      return fmt::format("<{}> closes <{}>", tag.name, open.empty() ? "" : open.back());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

TEST(HtmlPage, ThisTestFindsBadNesting) {
  EXPECT_EQ(nesting_error("<p class=\"a b\">x<path d=\"M0\"/></p>"), "");
  EXPECT_EQ(nesting_error("<p><b></p>"), "</p> closes <b>");
  EXPECT_EQ(nesting_error("<p>"), "not closed: p");
  EXPECT_EQ(nesting_error("<p class=a></p>"), "not a tag");
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
  const auto tags = tags_of(render_html(read_test_report("compare-report.json")));
  std::set<std::string> ids;
  for (const Tag& tag : tags) {
    const auto id = tag.attributes.find("id");
    EXPECT_TRUE(id == tag.attributes.end() || ids.insert(id->second).second) << id->second;
  }
  size_t named = 0;
  for (const Tag& tag : tags) {
    const auto names = tag.attributes.find("aria-labelledby");
    if (names == tag.attributes.end()) continue;
    std::istringstream words(names->second);
    for (std::string id; words >> id; ++named) EXPECT_TRUE(ids.contains(id)) << id;
  }
  EXPECT_GT(named, 30u);
}

TEST(HtmlPage, HeadingsSkipNoLevel) {
  int level = 0;
  for (const Tag& tag : tags_of(render_html(read_test_report("compare-report.json")))) {
    if (tag.name.size() != 2 || tag.name[0] != 'h' || tag.name[1] < '1' || tag.name[1] > '6') continue;
    EXPECT_LE(tag.name[1] - '0', level + 1);
    level = tag.name[1] - '0';
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
    EXPECT_EQ(count(html, fmt::format("<figure id=\"{}\"", id)), 1u) << id;
    EXPECT_EQ(count(html, fmt::format("<title id=\"{}-wide-t\">", id)), 1u) << id;
    EXPECT_EQ(count(html, fmt::format("<desc id=\"{}-narrow-d\">", id)), 1u) << id;
  }
  EXPECT_EQ(count(html, "<figure "), count(html, "<details class=\"numbers\"><summary>The numbers"));
  EXPECT_EQ(count(html, "class=\"multiple "), 6u);  // all but the reference
  // The front of the first picture has six points, in both layouts.
  const size_t first = html.find("<figure id=\"kl-by-bits\"");
  EXPECT_EQ(count(html.substr(first, html.find("</figure>", first) - first), "class=\"front\""), 2u * 12u);
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
  for (const char* word : {"url(", "@import", "fetch(", "XMLHttpRequest", "WebSocket", "EventSource"}) {
    EXPECT_THAT(html, Not(HasSubstr(word)));
  }
  for (const Tag& tag : tags_of(html)) {
    for (const auto& [key, value] : tag.attributes) {
      EXPECT_TRUE(key != "href" || value.starts_with('#') || value.starts_with("data:")) << value;
      // The policy would refuse attributes for style and events.
      EXPECT_TRUE(key != "src" && key != "srcset" && key != "action" && key != "style" &&
                  !key.starts_with("on"))
          << key;
    }
  }
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
  const Json keys = whole["candidates"][4].flatten();
  ASSERT_GT(keys.size(), 80u);
  for (const auto& [path, value] : keys.items()) {
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

TEST(HtmlPage, AnIdenticalCandidateIsCalledThatAndDrawnAtZero) {
  Json json = read_test_report("compare-report.json");
  json["candidates"][3]["identical_to_reference"] = true;
  json["candidates"][3]["quality"]["kl"] = {{"mean", 0}, {"low", 0}, {"high", 0}};
  const std::string html = render_html(json);
  EXPECT_THAT(html, HasSubstr("<bdi>INT8</bdi> <span class=\"badge\">identical, left out</span>"));
  EXPECT_THAT(html, HasSubstr("INT8: KL divergence, nats 0, Bits per weight 8.03"));
}

TEST(HtmlPage, ALimitIsDrawnAndWhoIsLeftOutIsTold) {
  const std::string html = render_html(read_test_report("compare-report.json"));
  EXPECT_THAT(html, HasSubstr("limit 200 MB"));
  EXPECT_THAT(html, HasSubstr("INT8 is left out: needs 231 MB, the limit is 200 MB"));
}

}  // namespace
}  // namespace nibble
