#ifndef NIBBLE_REPORT_LABEL_PLACEMENT_H_
#define NIBBLE_REPORT_LABEL_PLACEMENT_H_

// Names beside points, so that a chart needs no legend: no name covers another one or a point.

#include <cstddef>
#include <string_view>
#include <vector>

namespace nibble::report {

struct Box {
  double x = 0, y = 0, width = 0, height = 0;  // x, y: its top left corner, in pixels
};

bool overlap(const Box& a, const Box& b);

struct LabelRequest {
  double x = 0, y = 0;           // the point
  double width = 0, height = 0;  // of the text
};

struct PlacedLabel {
  bool placed = false;  // false: there was no room for it
  Box box = {};
  bool needs_leader = false;  // too far from its point to be understood without a line
};

struct Obstacles {
  std::vector<Box> points;  // never covered
  std::vector<Box> lines;   // covered only by a label that would stand too far away otherwise
};

// One label after the other, the most important first: beside its point where that is free, or else at
// the nearest free place of `area`.
std::vector<PlacedLabel> place_labels(const std::vector<LabelRequest>& labels, const Obstacles& obstacles,
                                      const Box& area);

// The width of text in a proportional sans-serif font, rather too wide than too narrow: the page is made
// where no font is at hand, and read with another one on every system.
double text_width(std::string_view text, double font_size);

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_LABEL_PLACEMENT_H_
