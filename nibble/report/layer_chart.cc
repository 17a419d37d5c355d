// Where a candidate leaves the original: the error of each block's output, one small picture for each
// candidate, all on one scale.

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "nibble/report/figure.h"
#include "nibble/report/label_placement.h"
#include "nibble/report/numbers.h"
#include "nibble/report/scale.h"
#include "nibble/report/svg.h"
#include "nibble/report/text.h"

namespace nibble::report {
namespace {

constexpr double kWidth = 250, kHeight = 130, kLeft = 42, kRight = kWidth - 8, kTop = 22,
                 kBottom = kHeight - 20;
constexpr double kZeroLane = 10;

struct Scales {
  Scale layer, error;
};

Scales scales_of(const Report& report) {
  std::vector<double> errors;
  size_t last = 0;
  for (const Candidate& candidate : report.candidates) {
    for (const LayerDamage& layer : candidate.layers) {
      errors.push_back(layer.relative_error);
      last = std::max(last, layer.layer);
    }
  }
  return {.layer = linear_scale_from_zero(static_cast<double>(last), kLeft + 4, kRight),
          .error = log_scale(errors, kBottom, kTop, kZeroLane)};
}

std::string axes(const Scales& scales) {
  std::string out;
  for (const double tick : scales.error.ticks(3)) {
    out += svg_line("grid", kLeft, scales.error.at(tick), kRight, scales.error.at(tick));
    out += svg_text("tick", kLeft - 6, scales.error.at(tick) + 4, "end", format_tick(tick * 100) + " %");
  }
  out += svg_line("axis", kLeft, kBottom, kRight, kBottom);
  out += svg_text("tick", scales.layer.at(0), kHeight - 5, "middle", "0");
  out += svg_text("tick", kRight, kHeight - 5, "end", fmt::format("layer {:.0f}", scales.layer.high));
  return out;
}

std::string curve(const Candidate& candidate, const Scales& scales) {
  std::string path;
  for (const LayerDamage& layer : candidate.layers) {
    if (!is_known(layer.relative_error)) continue;
    path += fmt::format("{}{},{}", path.empty() ? "M" : "L",
                        coordinate(scales.layer.at(static_cast<double>(layer.layer))),
                        coordinate(scales.error.at(layer.relative_error)));
  }
  return fmt::format(R"(<path class="curve" d="{}"/>)", path);
}

std::string worst_mark(const LayerDamage& worst, const Scales& scales) {
  const double x = scales.layer.at(static_cast<double>(worst.layer)),
               y = scales.error.at(worst.relative_error);
  const std::string text = fmt::format("layer {}: {}", worst.layer, format_percent(worst.relative_error));
  const double half = text_width(text, kFontSize) / 2;
  return svg_circle("mark", x, y, 4) +
         svg_text("label", std::clamp(x, kLeft + half, kRight - half), std::max(y - 9, 11.0), "middle", text);
}

std::string short_module(std::string_view name) {
  const size_t last = name.rfind('.');
  if (last == name.npos || last == 0) return std::string(name);
  const size_t before = name.rfind('.', last - 1);
  return std::string(name.substr(before == name.npos ? 0 : before + 1));  // "mlp.down_proj"
}

std::string small_picture(const Candidate& candidate, size_t index, const Scales& scales) {
  const LayerDamage& worst = *worst_layer(candidate);
  std::string note = fmt::format("Most in layer {}", worst.layer);
  if (!worst.worst_linear.empty()) {
    note += fmt::format(", there in {}", short_module(worst.worst_linear));
    if (is_known(worst.worst_linear_error))
      note += fmt::format(" ({})", format_percent(worst.worst_linear_error));
  }
  const std::string label = escape_html(one_line(candidate.label));
  return fmt::format(
      R"(<div class="multiple {}{}" data-candidate="{}"><h4><bdi>{}</bdi></h4>{}<p>{}</p></div>)",
      family_class(candidate.family), candidate.is_choice ? " choice" : "", index, label,
      svg_picture({.id = fmt::format("layers-{}", index),
                   .layout = "small",
                   .width = kWidth,
                   .height = kHeight,
                   .title = fmt::format("Relative error by layer: {}", one_line(candidate.label)),
                   .description = note + ".",
                   .has_points = false,
                   .content = axes(scales) + curve(candidate, scales) + worst_mark(worst, scales)}),
      escape_html(note + "."));
}

// A row for each layer, a column for each candidate.
void fill_table(const std::vector<const Candidate*>& candidates, Figure& figure) {
  std::map<size_t, std::vector<double>> errors;
  for (size_t i = 0; i < candidates.size(); ++i) {
    figure.head.push_back(candidates[i]->label);
    for (const LayerDamage& layer : candidates[i]->layers) {
      auto& row = errors[layer.layer];
      row.resize(candidates.size(), kNotMeasured);
      row[i] = layer.relative_error;
    }
  }
  for (const auto& [layer, values] : errors) {
    std::vector<std::string> row = {fmt::format("{}", layer)};
    for (const double value : values) row.push_back(format_percent(value));
    figure.rows.push_back(std::move(row));
  }
}

}  // namespace

Figure layer_damage(const Report& report) {
  Figure figure{.id = "layers", .title = "Layer by layer", .full_width = true, .head = {"Layer"}};
  const Scales scales = scales_of(report);
  std::vector<const Candidate*> shown;
  for (size_t i = 0; i < report.candidates.size(); ++i) {
    const Candidate& candidate = report.candidates[i];
    if (candidate.is_reference || worst_layer(candidate) == nullptr) continue;
    figure.picture += small_picture(candidate, i, scales);
    shown.push_back(&candidate);
  }
  if (figure.picture.empty()) return figure;
  figure.picture = fmt::format(R"(<div class="multiples">{}</div>)", figure.picture);
  figure.caption = fmt::format(
      "How much the output of each block differs from {}, relative to its size. All "
      "pictures have one logarithmic scale.",
      report.reference_label());
  fill_table(shown, figure);
  return figure;
}

}  // namespace nibble::report
