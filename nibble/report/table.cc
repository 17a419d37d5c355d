// The comparison for a terminal.

#include <algorithm>

#include "nibble/report/columns.h"
#include "nibble/report/numbers.h"
#include "nibble/report/report.h"
#include "nibble/report/report_data.h"
#include "nibble/report/text.h"

namespace nibble {
namespace {

using report::Candidate;
using report::Column;
using report::display_columns;
using report::Report;

constexpr size_t kGap = 2;        // spaces between columns
constexpr size_t kMaxLabel = 28;  // of a name that leaves room for numbers
constexpr std::string_view kBold = "\x1b[1m", kDim = "\x1b[2m", kPlain = "\x1b[0m";

struct TextColumn {
  int importance;
  std::vector<std::string> cells;  // the title first
  size_t width() const {
    size_t width = 0;
    for (const std::string& cell : cells) width = std::max(width, display_columns(cell));
    return width;
  }
};

std::string label_cell(const Candidate& candidate, size_t columns) {
  std::string label = report::shorten(report::one_line(candidate.label), columns - 2);
  return (candidate.is_choice ? "> " : "  ") + label;
}

std::vector<TextColumn> text_columns(const Report& report, size_t columns) {
  std::vector<TextColumn> texts(1);
  texts[0].cells = {"  model"};
  for (const Candidate& candidate : report.candidates) {
    texts[0].cells.push_back(label_cell(candidate, std::min(kMaxLabel, columns)));
  }
  for (const Column* column : columns_with_values(report)) {
    TextColumn text{column->importance, {column->short_title}};
    for (const Candidate& candidate : report.candidates)
      text.cells.push_back(cell(*column, candidate, false));
    texts.push_back(std::move(text));
  }
  return texts;
}

size_t total_width(const std::vector<TextColumn>& columns) {
  size_t width = kGap * (columns.size() - 1);
  for (const TextColumn& column : columns) width += column.width();
  return width;
}

// The least important ones go until the rest fits; names and one number always stay.
void drop_columns(std::vector<TextColumn>& columns, size_t limit) {
  while (columns.size() > 2 && total_width(columns) > limit) {
    columns.erase(std::max_element(columns.begin() + 1, columns.end(),
                                   [](const auto& a, const auto& b) { return a.importance < b.importance; }));
  }
}

std::string row_text(const std::vector<TextColumn>& columns, size_t row) {
  std::string line;
  for (size_t i = 0; i < columns.size(); ++i) {
    const std::string& cell = columns[i].cells[row];
    const std::string padding(columns[i].width() - display_columns(cell), ' ');
    if (i == 0) {
      line += cell + padding;
    } else {
      line += std::string(kGap, ' ') + padding + cell;
    }
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

std::string styled(std::string text, std::string_view style, bool color) {
  if (!color) return text;
  return std::string(style) + text + std::string(kPlain);
}

std::string bullets(char sign, const std::vector<std::string>& texts, size_t columns) {
  std::string out;
  for (const std::string& text : texts) {
    const std::string lines = report::wrap(report::one_line(text), columns < 24 ? 20 : columns - 4, "    ");
    out += fmt::format("  {} {}\n", sign, lines);
  }
  return out;
}

bool has_kl(const Report& report) {
  return std::any_of(report.candidates.begin(), report.candidates.end(),
                     [](const Candidate& candidate) { return report::is_known(candidate.kl.value); });
}

}  // namespace

std::string render_table(const Json& json, size_t columns, bool color) {
  const Report report = report::read_report(json);
  std::string out;
  if (!report.candidates.empty()) {
    std::vector<TextColumn> texts = text_columns(report, std::max<size_t>(columns, 12));
    drop_columns(texts, columns);
    out += styled(row_text(texts, 0), kDim, color) + "\n";
    for (size_t i = 0; i < report.candidates.size(); ++i) {
      const Candidate& candidate = report.candidates[i];
      std::string line = row_text(texts, i + 1);
      if (candidate.is_choice) line = styled(std::move(line), kBold, color);
      if (!candidate.fits) line = styled(std::move(line), kDim, color);
      out += line + "\n";
    }
    if (has_kl(report)) {
      const std::string legend = fmt::format(
          "KL: divergence from {} in nats, ± half of a {} interval; 0 is identical",
          report::one_line(report.reference_label()), report::format_confidence(report.confidence));
      out += styled(report::wrap(legend, columns, "    "), kDim, color) + "\n";
    }
    for (const Candidate& candidate : report.candidates) {
      for (const std::string& why : candidate.excluded_because) {
        out += report::wrap(
                   fmt::format("{}: left out, {}", report::one_line(candidate.label), report::one_line(why)),
                   columns, "    ") +
               "\n";
      }
    }
  }
  const report::Verdict& verdict = report.verdict;
  if (verdict.headline.empty()) return out;
  out += "\n" + styled(report::wrap(report::one_line(verdict.headline), columns, ""), kBold, color) + "\n";
  out += bullets('+', verdict.reasons, columns);
  out += bullets('-', verdict.cost, columns);
  out += bullets('?', verdict.would_change, columns);
  if (!verdict.runner_up.empty()) {
    out +=
        report::wrap(fmt::format("Runner-up: {}", report::one_line(verdict.runner_up)), columns, "  ") + "\n";
  }
  return out;
}

}  // namespace nibble
