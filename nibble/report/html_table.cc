// All numbers of all candidates.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "nibble/report/columns.h"
#include "nibble/report/html_sections.h"
#include "nibble/report/numbers.h"
#include "nibble/report/svg.h"
#include "nibble/report/text.h"

namespace nibble::report {
namespace {

constexpr int kOnPaper = 9;  // columns up to this importance fit an A4 page

std::string_view paper_class(const Column& column) {
  return column.importance > kOnPaper ? "screen-only" : "";
}

// Of the candidates that are not the original itself; nullptr if there are not two to choose from.
const Candidate* best_of(const Column& column, const Report& report) {
  const Candidate* best = nullptr;
  size_t known = 0;
  for (const Candidate& candidate : report.candidates) {
    const double value = column.value(candidate);
    if (candidate.is_reference || !is_known(value)) continue;
    ++known;
    if (best == nullptr ||
        (column.less_is_better ? value < column.value(*best) : value > column.value(*best))) {
      best = &candidate;
    }
  }
  return known > 1 ? best : nullptr;
}

std::string name_cell(const Candidate& candidate) {
  std::vector<std::string_view> roles;
  if (candidate.is_choice) roles.push_back("chosen");
  if (candidate.is_reference) roles.push_back("original");
  if (candidate.is_identical && !candidate.is_reference) roles.push_back("identical");
  if (!candidate.fits) roles.push_back("left out");
  const std::string badges =
      roles.empty() ? "" : fmt::format(" <span class=\"badge\">{}</span>", fmt::join(roles, ", "));
  return fmt::format(
      R"(<th scope="row"><svg class="key-mark {}" viewBox="0 0 16 16" aria-hidden="true">{}</svg>{}{}</th>)",
      family_class(candidate.family), svg_marker(candidate.family, 8, 8, 5), isolated(candidate.label),
      badges);
}

std::string row(const Candidate& candidate, size_t index, const std::vector<const Column*>& columns,
                const std::vector<const Candidate*>& best) {
  std::string out =
      fmt::format(R"(<tr class="{}{}" data-candidate="{}">)", candidate.is_choice ? "choice" : "",
                  candidate.fits ? "" : " left-out", index);
  out += name_cell(candidate);
  for (size_t i = 0; i < columns.size(); ++i) {
    const double value = columns[i]->value(candidate);
    const std::string key = is_known(value) ? fmt::format(" data-value=\"{}\"", value) : "";
    out += fmt::format(R"(<td class="{}{}"{}>{}</td>)", paper_class(*columns[i]),
                       best[i] == &candidate ? " best" : "", key, cell(*columns[i], candidate, true));
  }
  return out + "</tr>\n";
}

std::string meanings(const std::vector<const Column*>& columns) {
  std::string out = R"(<details class="numbers"><summary>What the columns mean</summary><dl class="facts">)";
  for (const Column* column : columns) {
    out += fmt::format("<div><dt>{}</dt><dd>{}; {} is better</dd></div>", column->title,
                       escape_html(column->meaning), column->less_is_better ? "less" : "more");
  }
  return out + "</dl></details>";
}

std::string exclusions(const Report& report) {
  std::vector<std::string> lines;
  for (const Candidate& candidate : report.candidates) {
    for (const std::string& why : candidate.excluded_because) {
      lines.push_back(fmt::format("{} is left out: {}", candidate.label, why));
    }
  }
  return lines.empty() ? "" : bullet_list(lines);
}

}  // namespace

std::string table_section(const Report& report) {
  const auto columns = columns_with_values(report);
  if (columns.empty()) return {};
  std::vector<const Candidate*> best;
  std::string head = "<th scope=\"col\">Candidate</th>";
  for (const Column* column : columns) {
    best.push_back(best_of(*column, report));
    const std::string unit =
        *column->unit == '\0' ? "" : fmt::format(" <small>{}</small>", escape_html(column->unit));
    head += fmt::format(R"(<th scope="col" class="{}">{}{}</th>)", paper_class(*column), column->title, unit);
  }
  std::string rows;
  for (size_t i = 0; i < report.candidates.size(); ++i) rows += row(report.candidates[i], i, columns, best);
  const std::string note = fmt::format(
      "<p>± is half of a {} interval, or for speed and memory the largest distance from the median of the "
      "runs. Bold "
      "is the best of a column, the original left out; – was not measured.</p>",
      format_confidence(report.confidence));
  return section(
      "numbers", "All numbers",
      fmt::format(
          R"(<div class="scroll" role="region" tabindex="0" aria-labelledby="numbers"><table class="sortable">)"
          R"(<caption class="sr">Size, quality and speed of each candidate</caption><thead><tr>{}</tr></thead>)"
          "<tbody>\n{}</tbody></table></div>{}{}{}",
          head, rows, note, exclusions(report), meanings(columns)));
}

}  // namespace nibble::report
