// How the damage is spread over the words of the text: the middle, the tail and the worst of them.

#include <algorithm>

#include <fmt/format.h>

#include "nibble/report/figure.h"
#include "nibble/report/label_placement.h"
#include "nibble/report/numbers.h"
#include "nibble/report/scale.h"
#include "nibble/report/svg.h"
#include "nibble/report/text.h"

namespace nibble::report {
namespace {

constexpr double kDotRow = 40, kDotTop = 22, kDots = 26, kDotZeroLane = 26;

struct Mark {
  const char* name;
  double KlPercentiles::*value;
};
constexpr Mark kMarks[] = {{"median", &KlPercentiles::median},
                           {"90 %", &KlPercentiles::p90},
                           {"99 %", &KlPercentiles::p99},
                           {"99.9 %", &KlPercentiles::p999},
                           {"worst", &KlPercentiles::max}};

bool has_percentiles(const Candidate& candidate) {
  return !candidate.is_reference && std::any_of(std::begin(kMarks), std::end(kMarks), [&](const Mark& mark) {
    return is_known(candidate.kl_percentiles.*mark.value);
  });
}

std::string dots(const KlPercentiles& kl, const Scale& scale, double y) {
  std::string marks;
  double first = kNotMeasured, last = kNotMeasured;
  for (const Mark& mark : kMarks) {
    const double value = kl.*mark.value;
    if (!is_known(value)) continue;
    const double x = scale.at(value);
    first = std::fmin(first, x);
    last = std::fmax(last, x);
    if (mark.value == &KlPercentiles::median) {
      marks += svg_circle("mark", x, y, 5);
    } else if (mark.value == &KlPercentiles::max) {
      marks += svg_circle("mark hollow", x, y, 4);
    } else {
      marks += svg_line("notch", x, y - 5, x, y + 5);
    }
  }
  return svg_line("range", first, y, last, y) + marks;
}

// The marks of the first row carry their names, as far as there is room.
std::string mark_names(const KlPercentiles& kl, const Scale& scale, double y, double width) {
  std::string out;
  double used = -10;
  for (const Mark& mark : kMarks) {
    if (!is_known(kl.*mark.value)) continue;
    const double text = text_width(mark.name, kFontSize);
    const double x = std::clamp(scale.at(kl.*mark.value) - text / 2, 0.0, width - text);
    if (x < used + 4) continue;
    out += svg_text("tick", x, y, "start", mark.name);
    used = x + text;
  }
  return out;
}

std::string draw_percentiles(const Report& report, const Figure& figure, const Layout& layout) {
  std::vector<double> values;
  for (const Candidate& candidate : report.candidates) {
    if (!has_percentiles(candidate)) continue;
    for (const Mark& mark : kMarks) values.push_back(candidate.kl_percentiles.*mark.value);
  }
  const Scale scale = log_scale(values, 6, layout.width - 6, kDotZeroLane);
  const double rows = static_cast<double>(figure.rows.size());
  const double bottom = kDotTop + rows * kDotRow;
  std::string content;
  for (const double tick : scale.ticks(6)) {
    content += svg_line("grid", scale.at(tick), kDotTop, scale.at(tick), bottom);
    const double x = scale.at(tick);
    const char* const anchor = x < 24 ? "start" : x > layout.width - 24 ? "end" : "middle";
    content += svg_text("tick", x, bottom + 16, anchor, format_tick(tick));
  }
  if (scale.zero != scale.from) content += svg_text("tick", scale.zero, bottom + 16, "middle", "0");
  content += svg_text("axis-title", layout.width, bottom + 34, "end",
                      "KL divergence of single words, nats ← better");
  double top = kDotTop;
  for (size_t i = 0; i < report.candidates.size(); ++i) {
    const Candidate& candidate = report.candidates[i];
    if (!has_percentiles(candidate)) continue;
    if (top == kDotTop) content += mark_names(candidate.kl_percentiles, scale, 12, layout.width);
    content += fmt::format(R"(<g class="row {}{}" data-candidate="{}">)", family_class(candidate.family),
                           candidate.is_choice ? " choice" : "", i);
    content +=
        svg_text("label", 0, top + 13, "start", shorten(one_line(candidate.label), layout.label_columns));
    content += dots(candidate.kl_percentiles, scale, top + kDots) + "</g>";
    top += kDotRow;
  }
  return svg_picture({.id = fmt::format("{}-{}", figure.id, layout.name),
                      .layout = layout.name,
                      .width = layout.width,
                      .height = bottom + 40,
                      .title = figure.title,
                      .description = figure.caption + " The same numbers are in the table below the picture.",
                      .has_points = false,
                      .content = content});
}

}  // namespace

Figure kl_percentiles(const Report& report) {
  Figure figure{
      .id = "kl-percentiles", .title = "The usual word and the worst", .full_width = true, .head = {""}};
  for (const Mark& mark : kMarks) figure.head.push_back(mark.name);
  for (const Candidate& candidate : report.candidates) {
    if (!has_percentiles(candidate)) continue;
    std::vector<std::string> row = {candidate.label};
    for (const Mark& mark : kMarks) row.push_back(format_number(candidate.kl_percentiles.*mark.value));
    figure.rows.push_back(std::move(row));
  }
  if (figure.rows.empty()) return figure;
  figure.caption =
      "A mean hides its tail. The dot is the word in the middle, the notches are those that 10, 1 and 0.1 % "
      "of "
      "the words go beyond, the ring is the worst one.";
  for (const Layout& layout : kLayouts) figure.picture += draw_percentiles(report, figure, layout);
  figure.picture += draw_percentiles(report, figure, kFullWidth);
  return figure;
}

}  // namespace nibble::report
