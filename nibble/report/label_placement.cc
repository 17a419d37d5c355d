#include "nibble/report/label_placement.h"

#include <algorithm>
#include <cmath>

#include "nibble/report/text.h"

namespace nibble::report {
namespace {

constexpr double kGap = 10;               // from the middle of a point to its label
constexpr double kStepX = 8, kStepY = 5;  // of the search for a free place
constexpr double kNear = 14;              // farther away, a line is needed

bool inside(const Box& box, const Box& area) {
  return box.x >= area.x && box.y >= area.y && box.x + box.width <= area.x + area.width &&
         box.y + box.height <= area.y + area.height;
}

bool is_free(const Box& box, const std::vector<Box>& obstacles, const Box& area) {
  return inside(box, area) && std::none_of(obstacles.begin(), obstacles.end(),
                                           [&](const Box& other) { return overlap(box, other); });
}

double distance(const LabelRequest& label, const Box& box) {
  const double dx = std::max({box.x - label.x, label.x - box.x - box.width, 0.0});
  const double dy = std::max({box.y - label.y, label.y - box.y - box.height, 0.0});
  return std::hypot(dx, dy);
}

// Right, left, above, below, then the corners.
std::vector<Box> places_beside(const LabelRequest& label) {
  const double w = label.width, h = label.height, diagonal = 0.7 * kGap;
  const double left = label.x - kGap - w, right = label.x + kGap;
  const double above = label.y - kGap - h, below = label.y + kGap;
  const double corner_left = label.x - diagonal - w, corner_right = label.x + diagonal;
  const double corner_above = label.y - diagonal - h, corner_below = label.y + diagonal;
  return {{right, label.y - h / 2, w, h},     {left, label.y - h / 2, w, h},
          {label.x - w / 2, above, w, h},     {label.x - w / 2, below, w, h},
          {corner_right, corner_above, w, h}, {corner_right, corner_below, w, h},
          {corner_left, corner_above, w, h},  {corner_left, corner_below, w, h}};
}

PlacedLabel place(const LabelRequest& label, const std::vector<Box>& obstacles, const Box& area) {
  for (const Box& box : places_beside(label)) {
    if (is_free(box, obstacles, area)) return {.placed = true, .box = box};
  }
  PlacedLabel best;
  double nearest = 0;
  for (double y = area.y; y + label.height <= area.y + area.height; y += kStepY) {
    for (double x = area.x; x + label.width <= area.x + area.width; x += kStepX) {
      const Box box{x, y, label.width, label.height};
      const double far = distance(label, box);
      if ((best.placed && far >= nearest) || !is_free(box, obstacles, area)) continue;
      best = {.placed = true, .box = box, .needs_leader = far > kNear};
      nearest = far;
    }
  }
  return best;
}

double character_width(char c) {
  constexpr std::string_view kNarrow = "iljtf.,:;'|!()[]- ";
  if (kNarrow.find(c) != kNarrow.npos) return 0.38;
  if (c == 'm' || c == 'w' || c == 'M' || c == 'W' || c == '%' || c == '@') return 0.98;
  if (c >= 'A' && c <= 'Z') return 0.72;
  return 0.635;
}

}  // namespace

bool overlap(const Box& a, const Box& b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

std::vector<PlacedLabel> place_labels(const std::vector<LabelRequest>& labels, const Obstacles& obstacles,
                                      const Box& area) {
  std::vector<PlacedLabel> placed;
  std::vector<Box> solid = obstacles.points, all = obstacles.lines;
  all.insert(all.end(), solid.begin(), solid.end());
  for (const LabelRequest& label : labels) {
    PlacedLabel best = place(label, all, area);
    if (!best.placed || best.needs_leader) {
      const PlacedLabel crossing = place(label, solid, area);
      if (!best.placed || !crossing.needs_leader) best = crossing;
    }
    if (best.placed) {
      solid.push_back(best.box);
      all.push_back(best.box);
    }
    placed.push_back(best);
  }
  return placed;
}

double text_width(std::string_view text, double font_size) {
  double ems = 0;
  std::string others;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80) {
      ems += character_width(c);
    } else {
      others += c;
    }
  }
  // A Latin letter is one column of a terminal, a Chinese one two.
  ems += 0.72 * static_cast<double>(display_columns(others));
  return ems * font_size;
}

}  // namespace nibble::report
