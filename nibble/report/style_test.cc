// Colours of style.css: text must be readable in both themes (WCAG 2.2, 1.4.3 and 1.4.11).

#include <cmath>
#include <map>
#include <regex>
#include <string>

#include <gtest/gtest.h>

#include "nibble/report/assets.h"

namespace nibble::report {
namespace {

struct Themes {
  unsigned light, dark;  // 0xRRGGBB
};

std::map<std::string, Themes> colors() {
  const std::string css(style_css());
  std::map<std::string, Themes> found;
  const std::regex color("--([a-z-]+): light-dark\\(#([0-9a-f]{6}), #([0-9a-f]{6})\\);");
  for (std::sregex_iterator it(css.begin(), css.end(), color), end; it != end; ++it) {
    const auto number = [](const std::string& hex) {
      return static_cast<unsigned>(std::stoul(hex, nullptr, 16));
    };
    found[(*it)[1]] = {number((*it)[2]), number((*it)[3])};
  }
  return found;
}

// WCAG's relative luminance.
double luminance(unsigned rgb) {
  const auto linear = [](unsigned channel) {
    const double c = channel / 255.0;
    return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * linear(rgb >> 16 & 255) + 0.7152 * linear(rgb >> 8 & 255) + 0.0722 * linear(rgb & 255);
}

double contrast(unsigned a, unsigned b) {
  const double la = luminance(a), lb = luminance(b);
  return (std::max(la, lb) + 0.05) / (std::min(la, lb) + 0.05);
}

TEST(Style, TextIsReadableInBothThemes) {
  const auto all = colors();
  ASSERT_GE(all.size(), 14u);
  const std::pair<const char*, const char*> pairs[] = {
      {"ink", "paper"},     {"muted", "paper"}, {"accent", "paper"}, {"ink", "raised"}, {"muted", "raised"},
      {"accent", "raised"}, {"float", "paper"}, {"gptq", "paper"},   {"awq", "paper"},  {"bnb", "paper"},
      {"rtn", "paper"},     {"other", "paper"}, {"mark-ink", "mark"}};
  for (const auto& [text, ground] : pairs) {
    ASSERT_TRUE(all.contains(text) && all.contains(ground)) << text << " on " << ground;
    EXPECT_GE(contrast(all.at(text).light, all.at(ground).light), 4.5)
        << text << " on " << ground << ", light";
    EXPECT_GE(contrast(all.at(text).dark, all.at(ground).dark), 4.5) << text << " on " << ground << ", dark";
  }
}

TEST(Style, ContrastIsThatOfWcag) {
  EXPECT_NEAR(contrast(0x000000, 0xffffff), 21, 1e-9);
  EXPECT_NEAR(contrast(0x777777, 0xffffff), 4.48, 0.005);
}

TEST(Style, CannotEndItsElement) {
  EXPECT_EQ(style_css().find("</"), style_css().npos);
  EXPECT_EQ(script_js().find("</"), script_js().npos);
}

}  // namespace
}  // namespace nibble::report
