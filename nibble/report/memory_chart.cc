// Bars of memory: the weights inside the peak of the process, and the limit where there is one.

#include <algorithm>

#include <fmt/format.h>

#include "nibble/report/figure.h"
#include "nibble/report/label_placement.h"
#include "nibble/report/numbers.h"
#include "nibble/report/svg.h"
#include "nibble/report/text.h"

namespace nibble::report {
namespace {

constexpr double kRow = 40, kBarTop = 20, kBar = 12, kLimitRow = 22;

bool has_memory(const Candidate& candidate) {
  return is_known(candidate.peak_memory.value) || is_known(candidate.weight_bytes);
}

double longest_bar(const Report& report) {
  double longest = is_known(report.memory_limit) ? report.memory_limit : 0;
  for (const Candidate& candidate : report.candidates) {
    for (const double bytes : {candidate.peak_memory.value, candidate.weight_bytes}) {
      if (bytes > longest) longest = bytes;
    }
  }
  return longest;
}

std::string values_text(const Candidate& candidate) {
  if (!is_known(candidate.weight_bytes)) return format_bytes(candidate.peak_memory.value);
  if (!is_known(candidate.peak_memory.value))
    return fmt::format("weights {}", format_bytes(candidate.weight_bytes));
  return fmt::format("{}, weights {}", format_bytes(candidate.peak_memory.value),
                     format_bytes(candidate.weight_bytes));
}

// The name on the left and the numbers on the right, above the bar: long names need no margin.
std::string row(const Candidate& candidate, size_t index, const Layout& layout, double top,
                double pixels_per_byte) {
  const std::string values = values_text(candidate);
  const double room = layout.width - text_width(values, kFontSize) - 12;
  std::string name = one_line(candidate.label);
  for (size_t columns = 60; text_width(name, kFontSize) * 1.12 > room && columns > 3; --columns) {
    name = shorten(name, columns);
  }
  std::string out =
      fmt::format(R"(<g class="row {}{}{}" data-candidate="{}">)", family_class(candidate.family),
                  candidate.is_choice ? " choice" : "", candidate.fits ? "" : " left-out", index);
  out += svg_text("label", 0, top + 13, "start", name);
  out += svg_text("value", layout.width, top + 13, "end", values);
  if (is_known(candidate.peak_memory.value)) {
    out += svg_rect("bar-peak", 0, top + kBarTop, candidate.peak_memory.value * pixels_per_byte, kBar);
  }
  if (is_known(candidate.weight_bytes)) {
    out += svg_rect("bar", 0, top + kBarTop, candidate.weight_bytes * pixels_per_byte, kBar);
  }
  return out + "</g>";
}

std::string draw_memory(const Report& report, const Figure& figure, const Layout& layout) {
  const double longest = longest_bar(report);
  const double pixels_per_byte = longest > 0 ? (layout.width - 2) / longest : 0;
  const bool limited = is_known(report.memory_limit);
  double top = limited ? kLimitRow : 0;
  std::string content;
  for (size_t i = 0; i < report.candidates.size(); ++i) {
    if (!has_memory(report.candidates[i])) continue;
    content += row(report.candidates[i], i, layout, top, pixels_per_byte);
    top += kRow;
  }
  if (limited) {
    const double x = report.memory_limit * pixels_per_byte;
    // Between the rows only, so that it does not strike names and numbers out.
    for (double bar = kLimitRow + kBarTop - 3; bar < top; bar += kRow) {
      content += svg_line("limit", x, bar, x, bar + kBar + 8);
    }
    const std::string text = fmt::format("limit {}", format_bytes(report.memory_limit));
    const bool left = x > layout.width / 2;
    content += svg_text("axis-title", x, 12, left ? "end" : "start", text);
  }
  return svg_picture({.id = fmt::format("{}-{}", figure.id, layout.name),
                      .layout = layout.name,
                      .width = layout.width,
                      .height = top,
                      .title = figure.title,
                      .description = figure.caption + " The same numbers are in the table below the picture.",
                      .has_points = false,
                      .content = content});
}

}  // namespace

Figure memory_bars(const Report& report) {
  Figure figure{.id = "memory", .title = "Memory", .head = {"", "Peak memory", "Weights"}};
  for (const Candidate& candidate : report.candidates) {
    if (!has_memory(candidate)) continue;
    figure.rows.push_back({candidate.label, format_bytes_with_margin(candidate.peak_memory),
                           format_bytes(candidate.weight_bytes)});
  }
  if (figure.rows.empty()) return figure;
  figure.caption = "The most that the process held while it answered (pale), and the weights in it (solid).";
  for (const Layout& layout : kLayouts) figure.picture += draw_memory(report, figure, layout);
  return figure;
}

}  // namespace nibble::report
