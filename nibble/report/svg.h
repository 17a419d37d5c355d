#ifndef NIBBLE_REPORT_SVG_H_
#define NIBBLE_REPORT_SVG_H_

// Elements of pictures. Colours and fonts come from classes of style.css, so that one picture serves the
// light page, the dark one and paper.

#include <string>
#include <string_view>

#include "nibble/report/report_data.h"

namespace nibble::report {

inline constexpr double kFontSize = 12, kLineHeight = 15;  // as in style.css, in units of the viewBox

std::string coordinate(double value);  // one decimal at most

std::string svg_line(std::string_view css_class, double x1, double y1, double x2, double y2);
std::string svg_rect(std::string_view css_class, double x, double y, double width, double height);
std::string svg_circle(std::string_view css_class, double x, double y, double radius);
// anchor: "start", "middle" or "end"; `text` is escaped here.
std::string svg_text(std::string_view css_class, double x, double y, std::string_view anchor,
                     std::string_view text);

// Circle, square, triangle, diamond...: each family has a shape, since not everyone tells colours apart.
std::string svg_marker(Family family, double x, double y, double radius);
std::string_view family_class(Family family);  // "f-gptq"

struct Picture {
  std::string id;           // unique on the page
  std::string_view layout;  // "wide", "narrow" or "small": which screens show it
  double width, height;
  std::string title, description;  // for screen readers
  bool has_points;  // parts that take the focus: then it is a group, for an image hides what is inside
  std::string content;
};

std::string svg_picture(const Picture& picture);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_SVG_H_
