// Quality against size, and against speed: a point with error bars for each candidate.

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "nibble/report/figure.h"
#include "nibble/report/label_placement.h"
#include "nibble/report/numbers.h"
#include "nibble/report/scale.h"
#include "nibble/report/svg.h"
#include "nibble/report/text.h"

namespace nibble::report {
namespace {

struct Point {
  size_t candidate;
  Measured x, y;
};

struct Scatter {
  std::string id = {}, title = {}, description = {};
  std::string x_title = {}, y_title = {};  // with units
  bool log_x = false, log_y = false, more_x_is_better = false;
  bool with_front = false;
  std::vector<Point> points = {};
};

struct Frame {
  double left, right, top, bottom;
};

constexpr double kScatterHeight = 350, kRadius = 5.5, kScatterZeroLane = 30;

// Points that no other one beats in both x and y, from the best x to the best y.
std::vector<const Point*> pareto_front(const Scatter& scatter) {
  std::vector<const Point*> sorted;
  for (const Point& point : scatter.points) sorted.push_back(&point);
  const double sign = scatter.more_x_is_better ? -1 : 1;
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Point* a, const Point* b) {
    return a->x.value != b->x.value ? sign * a->x.value < sign * b->x.value : a->y.value < b->y.value;
  });
  std::vector<const Point*> front;
  for (const Point* point : sorted) {
    if (front.empty() || point->y.value < front.back()->y.value) front.push_back(point);
  }
  return front;
}

Scale scale_of(const Scatter& scatter, bool y_axis, double from, double to) {
  const bool log = y_axis ? scatter.log_y : scatter.log_x;
  std::vector<double> values;
  for (const Point& point : scatter.points) {
    const Measured& m = y_axis ? point.y : point.x;
    values.push_back(m.value);
    // An interval that reaches 0 has no end on a logarithmic scale: it is cut at the frame.
    if (!log || m.low > m.value / 10) values.push_back(m.low);
    values.push_back(m.value > 0 || !log ? m.high : kNotMeasured);
  }
  return log ? log_scale(values, from, to, kScatterZeroLane) : linear_scale(values, from, to);
}

// Widths that people know.
std::vector<double> bit_ticks(const Scale& x) {
  std::vector<double> ticks;
  for (const double bits : {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 16.0, 32.0}) {
    if (std::log10(bits) >= x.low && std::log10(bits) <= x.high) ticks.push_back(bits);
  }
  return ticks;
}

std::string axes(const Scatter& scatter, const Frame& frame, const Scale& x, const Scale& y) {
  std::string out;
  for (const double tick : y.ticks(6)) {
    out += svg_line("grid", frame.left, y.at(tick), frame.right, y.at(tick));
    out += svg_text("tick", frame.left - 8, y.at(tick) + 4, "end", format_tick(tick));
  }
  if (y.zero != y.from) {
    out += svg_line("break", frame.left, y.from, frame.right, y.from);
    out += svg_text("tick", frame.left - 8, y.zero + 4, "end", "0");
  }
  const double per_tick = 62;
  const auto x_ticks =
      x.log ? bit_ticks(x) : x.ticks(static_cast<int>((frame.right - frame.left) / per_tick));
  for (const double tick : x_ticks) {
    out += svg_line("grid", x.at(tick), frame.bottom, x.at(tick), frame.bottom + 4);
    out += svg_text("tick", x.at(tick), frame.bottom + 18, "middle", format_tick(tick));
  }
  out += svg_line("axis", frame.left, frame.bottom, frame.right, frame.bottom);
  out += svg_text("axis-title", 0, 12, "start", scatter.y_title + " ↓ better");
  out += svg_text("axis-title", frame.right, frame.bottom + 37, "end",
                  scatter.x_title + (scatter.more_x_is_better ? " → better" : " ← better"));
  return out;
}

struct Segment {
  double x1, y1, x2, y2;
};

// Steps: between two points of the front nothing better is known than the one before.
std::vector<Segment> front_segments(const Scatter& scatter, const Frame& frame, const Scale& x,
                                    const Scale& y) {
  std::vector<Segment> segments;
  if (!scatter.with_front) return segments;
  double px = kNotMeasured, py = frame.top;
  for (const Point* point : pareto_front(scatter)) {
    const double next_x = x.at(point->x.value), next_y = y.at(point->y.value);
    if (is_known(px)) segments.push_back({px, py, next_x, py});
    segments.push_back({next_x, py, next_x, next_y});
    px = next_x, py = next_y;
  }
  segments.push_back({px, py, scatter.more_x_is_better ? frame.left : frame.right, py});
  return segments;
}

std::vector<Segment> error_bars(const Point& point, const Frame& frame, const Scale& x, const Scale& y) {
  std::vector<Segment> bars;
  const double px = x.at(point.x.value), py = y.at(point.y.value);
  if (is_known(point.y.low) && is_known(point.y.high) && !y.in_zero_lane(point.y.value)) {
    const double low = y.in_zero_lane(point.y.low) ? frame.bottom : y.at(point.y.low);
    const double high = y.at(point.y.high);
    if (low - high > 2 * kRadius) bars.push_back({px, low, px, high});
  }
  if (is_known(point.x.low) && is_known(point.x.high)) {
    const double low = x.at(point.x.low), high = x.at(point.x.high);
    if (high - low > 2 * kRadius) bars.push_back({low, py, high, py});
  }
  return bars;
}

std::string draw_segments(std::string_view css_class, const std::vector<Segment>& segments) {
  std::string out;
  for (const Segment& s : segments) out += svg_line(css_class, s.x1, s.y1, s.x2, s.y2);
  return out;
}

Box box_of(const Segment& s) {
  return {std::min(s.x1, s.x2) - 1, std::min(s.y1, s.y2) - 1, std::abs(s.x2 - s.x1) + 2,
          std::abs(s.y2 - s.y1) + 2};
}

struct PointLabel {
  std::string text;
  PlacedLabel place;
};

// In the order of the points; the choice and the reference get the best places.
std::vector<PointLabel> label_points(const Report& report, const Scatter& scatter, const Frame& frame,
                                     const Scale& x, const Scale& y, size_t label_columns) {
  std::vector<size_t> order(scatter.points.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto rank = [&](size_t i) {
    const Candidate& candidate = report.candidates[scatter.points[i].candidate];
    return candidate.is_choice ? 0 : candidate.is_reference ? 1 : 2;
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rank(a) < rank(b); });

  std::vector<PointLabel> labels(scatter.points.size());
  std::vector<LabelRequest> requests;
  Obstacles obstacles;
  for (const Segment& segment : front_segments(scatter, frame, x, y))
    obstacles.lines.push_back(box_of(segment));
  for (const size_t i : order) {
    const Point& point = scatter.points[i];
    const Candidate& candidate = report.candidates[point.candidate];
    labels[i].text = shorten(one_line(candidate.label), label_columns);
    const double width = text_width(labels[i].text, kFontSize) * (candidate.is_choice ? 1.12 : 1.0);  // bold
    const double px = x.at(point.x.value), py = y.at(point.y.value);
    requests.push_back({px, py, width + 4, kLineHeight});
    const double r = kRadius + 2.5;
    obstacles.points.push_back({px - r, py - r, 2 * r, 2 * r});
    for (const Segment& bar : error_bars(point, frame, x, y)) obstacles.lines.push_back(box_of(bar));
  }
  const Box area{frame.left + 2, frame.top, frame.right - frame.left - 2, frame.bottom - frame.top - 2};
  const auto placed = place_labels(requests, obstacles, area);
  for (size_t i = 0; i < order.size(); ++i) labels[order[i]].place = placed[i];
  return labels;
}

std::string leader(double x, double y, const Box& box) {
  return svg_line("leader", x, y, std::clamp(x, box.x, box.x + box.width),
                  std::clamp(y, box.y, box.y + box.height));
}

std::string point_markup(const Report& report, const Scatter& scatter, const Point& point,
                         const PointLabel& label, const Frame& frame, const Scale& x, const Scale& y) {
  const Candidate& candidate = report.candidates[point.candidate];
  const double px = x.at(point.x.value), py = y.at(point.y.value);
  const std::string says =
      fmt::format("{}: {} {}, {} {}", one_line(candidate.label), scatter.y_title, format_with_margin(point.y),
                  scatter.x_title, format_with_margin(point.x));
  std::string out =
      fmt::format(R"(<g class="point {}{}{}" data-candidate="{}" tabindex="0" role="img" aria-label="{}">)",
                  family_class(candidate.family), candidate.is_choice ? " choice" : "",
                  candidate.fits ? "" : " left-out", point.candidate, escape_html(says));
  out += fmt::format("<title>{}</title>", escape_html(says));  // what a pointer that rests on it shows
  out += svg_circle("target", px, py, 14);
  out += draw_segments("error", error_bars(point, frame, x, y));
  if (label.place.placed && label.place.needs_leader) out += leader(px, py, label.place.box);
  out += svg_circle("ring", px, py, kRadius + 4.5);
  out += svg_marker(candidate.family, px, py, kRadius);
  if (label.place.placed) {
    out +=
        svg_text("label", label.place.box.x + 2, label.place.box.y + kLineHeight - 3.5, "start", label.text);
  }
  return out + "</g>";
}

std::string draw_scatter(const Report& report, const Scatter& scatter, const Layout& layout) {
  const Frame frame{.left = 52, .right = layout.width - 18, .top = 26, .bottom = kScatterHeight - 44};
  const Scale x = scale_of(scatter, false, frame.left, frame.right);
  const Scale y = scale_of(scatter, true, frame.bottom, frame.top);
  std::string content = axes(scatter, frame, x, y);
  content += draw_segments("front", front_segments(scatter, frame, x, y));
  const auto labels = label_points(report, scatter, frame, x, y, layout.label_columns);
  for (size_t i = 0; i < scatter.points.size(); ++i) {
    content += point_markup(report, scatter, scatter.points[i], labels[i], frame, x, y);
  }
  return svg_picture({.id = fmt::format("{}-{}", scatter.id, layout.name),
                      .layout = layout.name,
                      .width = layout.width,
                      .height = kScatterHeight,
                      .title = scatter.title,
                      .description = scatter.description,
                      .has_points = true,
                      .content = content});
}

// Only candidates of which both values are known are drawn and listed.
void add_points(const Report& report, Scatter& scatter, Measured (*x)(const Candidate&),
                Measured (*y)(const Candidate&)) {
  for (size_t i = 0; i < report.candidates.size(); ++i) {
    const Point point{i, x(report.candidates[i]), y(report.candidates[i])};
    if (is_known(point.x.value) && is_known(point.y.value)) scatter.points.push_back(point);
  }
}

std::string front_sentence(const Report& report, const Scatter& scatter) {
  std::vector<std::string> names;
  for (const Point* point : pareto_front(scatter)) names.push_back(report.candidates[point->candidate].label);
  return fmt::format("Nothing here beats these in both: {}.", fmt::join(names, ", "));
}

Figure make_figure(const Report& report, Scatter scatter, std::string caption) {
  Figure figure{.id = scatter.id, .title = scatter.title, .caption = std::move(caption)};
  if (scatter.points.size() < 2) return figure;
  if (scatter.with_front) figure.caption += " " + front_sentence(report, scatter);
  const auto is_left_out = [&](const Point& point) { return !report.candidates[point.candidate].fits; };
  if (std::any_of(scatter.points.begin(), scatter.points.end(), is_left_out)) {
    figure.caption += " Hollow points do not meet the limits.";
  }
  scatter.description =
      fmt::format("{} The same numbers are in the table below the picture.", figure.caption);
  for (const Layout& layout : kLayouts) figure.picture += draw_scatter(report, scatter, layout);
  figure.head = {"", scatter.x_title, scatter.y_title};
  for (const Point& point : scatter.points) {
    figure.rows.push_back(
        {report.candidates[point.candidate].label, format_with_margin(point.x), format_with_margin(point.y)});
  }
  return figure;
}

Measured kl_of(const Candidate& candidate) {
  // A model that is compared with itself is the same by definition.
  if (candidate.is_reference && !is_known(candidate.kl.value)) return {0, 0, 0};
  return candidate.kl;
}

}  // namespace

Figure kl_by_bits(const Report& report) {
  Scatter scatter{.id = "kl-by-bits",
                  .title = "Quality for the bits",
                  .x_title = "Bits per weight",
                  .y_title = "KL divergence, nats",
                  .log_x = true,
                  .log_y = true,
                  .with_front = true};
  add_points(
      report, scatter, [](const Candidate& c) { return Measured{.value = c.bits_per_weight}; }, kl_of);
  return make_figure(
      report, std::move(scatter),
      fmt::format("How far each candidate strays from {}, on logarithmic scales.", report.reference_label()));
}

Figure kl_by_speed(const Report& report) {
  Scatter scatter{.id = "kl-by-speed",
                  .title = "Quality for the speed",
                  .x_title = "Answer speed, tok/s",
                  .y_title = "KL divergence, nats",
                  .log_y = true,
                  .more_x_is_better = true,
                  .with_front = true};
  add_points(
      report, scatter, [](const Candidate& c) { return c.decode; }, kl_of);
  return make_figure(report, std::move(scatter),
                     "The same distance against the speed of an answer on this machine.");
}

Figure perplexity_by_size(const Report& report) {
  double largest = 0;
  for (const Candidate& candidate : report.candidates) {
    if (candidate.disk_bytes > largest) largest = candidate.disk_bytes;
  }
  const bool giga = largest >= 1e9;
  Scatter scatter{.id = "perplexity-by-size",
                  .title = "Perplexity for the size",
                  .x_title = giga ? "Size on disk, GB" : "Size on disk, MB",
                  .y_title = "Perplexity"};
  const auto size = giga ? +[](const Candidate& c) { return Measured{.value = c.disk_bytes / 1e9}; }
                         : +[](const Candidate& c) { return Measured{.value = c.disk_bytes / 1e6}; };
  add_points(report, scatter, size, [](const Candidate& c) { return c.perplexity; });
  return make_figure(
      report, std::move(scatter),
      "How surprising the test text is to each candidate. The error bars include how hard the text "
      "itself is, which all candidates share: the pairs below tell them apart better.");
}

}  // namespace nibble::report
