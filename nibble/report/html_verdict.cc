// The top of the page: the answer in a sentence, with the three numbers that matter.

#include <fmt/format.h>

#include "nibble/report/html_sections.h"
#include "nibble/report/numbers.h"
#include "nibble/report/text.h"

namespace nibble::report {
namespace {

struct KeyFigure {
  std::string number, unit, meaning;
};

// "88.1 MB" as "88.1" and "MB": the unit is set smaller.
KeyFigure key_figure(const std::string& text, std::string meaning) {
  const size_t space = text.rfind(' ');
  if (space == text.npos) return {text, "", std::move(meaning)};
  return {text.substr(0, space), text.substr(space + 1), std::move(meaning)};
}

std::vector<KeyFigure> key_figures(const Report& report) {
  std::vector<KeyFigure> figures;
  if (!report.choice) return figures;
  const Candidate& choice = report.candidates[*report.choice];
  const Candidate* original =
      report.reference && !choice.is_reference ? &report.candidates[*report.reference] : nullptr;
  const std::string name = report.reference_label();
  const std::string kl =
      is_known(choice.kl.value) ? fmt::format("KL divergence {} nats", format_with_margin(choice.kl)) : "";
  if (is_known(choice.top1_agreement.value)) {
    figures.push_back(key_figure(
        format_percent(choice.top1_agreement.value),
        fmt::format("of the time the same next word as {}{}{}", name, kl.empty() ? "" : "; ", kl)));
  } else if (!kl.empty()) {
    figures.push_back(key_figure(format_number(choice.kl.value) + " nats", "KL divergence from " + name));
  }
  if (is_known(choice.disk_bytes)) {
    std::string meaning = "on disk";
    if (original != nullptr && original->disk_bytes > 0) {
      meaning += fmt::format(", {} of {}", format_percent(choice.disk_bytes / original->disk_bytes), name);
    }
    figures.push_back(key_figure(format_bytes(choice.disk_bytes), std::move(meaning)));
  }
  if (is_known(choice.decode.value)) {
    std::string meaning = "while it answers";
    if (original != nullptr && original->decode.value > 0) {
      meaning +=
          fmt::format(", {} times {}", format_number(choice.decode.value / original->decode.value), name);
    }
    figures.push_back(key_figure(format_number(choice.decode.value) + " tok/s", std::move(meaning)));
  }
  return figures;
}

std::string figures_list(const std::vector<KeyFigure>& figures) {
  if (figures.empty()) return {};
  std::string out = "<ul class=\"key\">";
  for (const KeyFigure& figure : figures) {
    out += fmt::format(R"(<li><b>{}<small> {}</small></b> <span>{}</span></li>)", escape_html(figure.number),
                       escape_html(figure.unit), escape_html(figure.meaning));
  }
  return out + "</ul>";
}

std::string argument(std::string_view title, const std::vector<std::string>& items) {
  if (items.empty()) return {};
  return fmt::format("<div><h3>{}</h3>{}</div>", title, bullet_list(items));
}

}  // namespace

std::string verdict_section(const Report& report) {
  const Verdict& verdict = report.verdict;
  std::string arguments = argument("Why", verdict.reasons) + argument("What it costs", verdict.cost) +
                          argument("What would change it", verdict.would_change);
  if (!verdict.runner_up.empty()) {
    arguments += fmt::format("<div><h3>Runner-up</h3><p>{}.</p></div>", isolated(verdict.runner_up));
  }
  if (verdict.headline.empty() && arguments.empty()) return {};
  if (!arguments.empty()) arguments = fmt::format("<div class=\"columns\">{}</div>", arguments);
  return fmt::format(
      "<section class=\"verdict\" aria-labelledby=\"verdict\">\n<h2 id=\"verdict\" "
      "dir=\"auto\">{}</h2>\n{}\n{}\n"
      "</section>\n",
      escape_html(verdict.headline.empty() ? "No verdict" : verdict.headline),
      figures_list(key_figures(report)), arguments);
}

}  // namespace nibble::report
