#include "nibble/report/svg.h"

#include <fmt/format.h>

#include "nibble/report/text.h"

namespace nibble::report {

std::string coordinate(double value) {
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

std::string svg_line(std::string_view css_class, double x1, double y1, double x2, double y2) {
  return fmt::format(R"(<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>)", css_class, coordinate(x1),
                     coordinate(y1), coordinate(x2), coordinate(y2));
}

std::string svg_rect(std::string_view css_class, double x, double y, double width, double height) {
  return fmt::format(R"(<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>)", css_class, coordinate(x),
                     coordinate(y), coordinate(width), coordinate(height));
}

std::string svg_circle(std::string_view css_class, double x, double y, double radius) {
  return fmt::format(R"(<circle class="{}" cx="{}" cy="{}" r="{}"/>)", css_class, coordinate(x),
                     coordinate(y), coordinate(radius));
}

std::string svg_text(std::string_view css_class, double x, double y, std::string_view anchor,
                     std::string_view text) {
  return fmt::format(R"(<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>)", css_class, coordinate(x),
                     coordinate(y), anchor, escape_html(text));
}

std::string svg_marker(Family family, double x, double y, double radius) {
  const double r = radius;
  std::string path;
  switch (family) {
    case Family::kFloat:
      return svg_circle("mark", x, y, r);
    case Family::kGptq:
      return svg_rect("mark", x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    case Family::kAwq:
      path = fmt::format("M{},{}l{},{}h{}z", coordinate(x), coordinate(y - 1.1 * r), coordinate(1.15 * r),
                         coordinate(2 * r), coordinate(-2.3 * r));
      break;
    case Family::kBitsandbytes:
      path = fmt::format("M{},{}l{},{}l{},{}l{},{}z", coordinate(x), coordinate(y - 1.25 * r),
                         coordinate(1.25 * r), coordinate(1.25 * r), coordinate(-1.25 * r),
                         coordinate(1.25 * r), coordinate(-1.25 * r), coordinate(-1.25 * r));
      break;
    case Family::kRtn:
      path = fmt::format("M{},{}l{},{}h{}z", coordinate(x), coordinate(y + 1.1 * r), coordinate(1.15 * r),
                         coordinate(-2 * r), coordinate(-2.3 * r));
      break;
    case Family::kOther: {  // a cross with thick arms
      const double arm = 1.2 * r, half = 0.4 * r, side = arm - half;
      path = fmt::format("M{},{}h{}v{}h{}v{}h{}v{}h{}v{}h{}v{}h{}z", coordinate(x - half),
                         coordinate(y - arm), coordinate(2 * half), coordinate(side), coordinate(side),
                         coordinate(2 * half), coordinate(-side), coordinate(side), coordinate(-2 * half),
                         coordinate(-side), coordinate(-side), coordinate(-2 * half), coordinate(side));
      break;
    }
  }
  return fmt::format(R"(<path class="mark" d="{}"/>)", path);
}

std::string_view family_class(Family family) {
  switch (family) {
    case Family::kFloat:
      return "f-float";
    case Family::kGptq:
      return "f-gptq";
    case Family::kAwq:
      return "f-awq";
    case Family::kBitsandbytes:
      return "f-bnb";
    case Family::kRtn:
      return "f-rtn";
    case Family::kOther:
      break;
  }
  return "f-other";
}

std::string svg_picture(const Picture& picture) {
  return fmt::format(
      R"(<svg class="chart {0}" viewBox="0 0 {1} {2}" role="{3}" aria-labelledby="{4}-t {4}-d">)"
      R"(<title id="{4}-t">{5}</title><desc id="{4}-d">{6}</desc>{7}</svg>)",
      picture.layout, coordinate(picture.width), coordinate(picture.height),
      picture.has_points ? "group" : "img", picture.id, escape_html(picture.title),
      escape_html(picture.description), picture.content);
}

}  // namespace nibble::report
