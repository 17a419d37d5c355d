// The comparison as GitHub's Markdown.

#include <algorithm>

#include "nibble/report/columns.h"
#include "nibble/report/numbers.h"
#include "nibble/report/report.h"
#include "nibble/report/report_data.h"
#include "nibble/report/text.h"

namespace nibble {
namespace {

using report::Candidate;
using report::escape_markdown;
using report::Facts;
using report::Report;

// A fence that nothing in `text` can close.
std::string code_block(std::string_view text) {
  const std::string cleaned = report::clean(text);
  size_t longest = 2, run = 0;
  for (const char c : cleaned) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(longest + 1, '`');
  return fmt::format("{}\n{}\n{}\n", fence, cleaned, fence);
}

std::string list(const char* title, const std::vector<std::string>& items) {
  if (items.empty()) return {};
  std::string out = fmt::format("\n{}:\n\n", title);
  for (const std::string& item : items) out += fmt::format("- {}\n", escape_markdown(item));
  return out;
}

std::string verdict_text(const Report& report) {
  const report::Verdict& verdict = report.verdict;
  std::string out;
  if (!verdict.headline.empty()) out += fmt::format("\n**{}**\n", escape_markdown(verdict.headline));
  out += list("Why", verdict.reasons);
  out += list("What it costs", verdict.cost);
  out += list("What would change the answer", verdict.would_change);
  if (!verdict.runner_up.empty()) {
    out += fmt::format("\nRunner-up: {}\n", escape_markdown(verdict.runner_up));
  }
  return out;
}

std::string candidates_table(const Report& report) {
  if (report.candidates.empty()) return {};
  const auto columns = columns_with_values(report);
  std::string head = "| |", rule = "| --- |";
  for (const report::Column* column : columns) {
    head += fmt::format(" {}{}{} |", column->title, *column->unit != '\0' ? ", " : "", column->unit);
    rule += " ---: |";
  }
  std::string out = "\n## All numbers\n\n" + head + "\n" + rule + "\n";
  for (const Candidate& candidate : report.candidates) {
    const std::string mark = candidate.is_choice ? "**" : "";
    out += fmt::format("| {}{}{}{} |", mark, escape_markdown(candidate.label), mark,
                       candidate.fits ? "" : " (left out)");
    for (const report::Column* column : columns) out += fmt::format(" {} |", cell(*column, candidate, true));
    out += "\n";
  }
  if (report.reference) {
    out +=
        fmt::format("\nKL, agreement and overlap are measured against {}; ± is half of a {} interval.\n",
                    escape_markdown(report.reference_label()), report::format_confidence(report.confidence));
  }
  for (const Candidate& candidate : report.candidates) {
    if (candidate.excluded_because.empty()) continue;
    out += list(fmt::format("{} was left out", escape_markdown(candidate.label)).c_str(),
                candidate.excluded_because);
  }
  return out;
}

std::string pairs_table(const Report& report) {
  if (report.pairs.empty()) return {};
  std::string out =
      "\n## Pairs\n\n| | measure | difference | interval | p | verdict |\n| --- | --- | ---: | ---: | ---: | "
      "--- |\n";
  for (const report::Pair& pair : report.pairs) {
    out += fmt::format(
        "| {} − {} | {} | {} | {} to {} | {} | {} |\n", escape_markdown(pair.a), escape_markdown(pair.b),
        escape_markdown(pair.metric), report::format_signed(pair.difference), report::format_signed(pair.low),
        report::format_signed(pair.high), report::format_p(pair.p_value), escape_markdown(pair.verdict));
  }
  return out;
}

// The layer that is hurt most, for each candidate.
std::string layers_table(const Report& report) {
  std::string rows;
  for (const Candidate& candidate : report.candidates) {
    const report::LayerDamage* worst = worst_layer(candidate);
    if (worst == nullptr) continue;
    rows += fmt::format("| {} | {} | {} | {} | {} |\n", escape_markdown(candidate.label), worst->layer,
                        report::format_percent(worst->relative_error), report::format_number(worst->cosine),
                        escape_markdown(worst->worst_linear));
  }
  if (rows.empty()) return {};
  return "\n## The layer that is hurt most\n\n| | layer | relative error | cosine | worst linear |\n"
         "| --- | ---: | ---: | ---: | --- |\n" +
         rows;
}

std::string samples(const Report& report) {
  std::string out;
  for (const std::string& prompt : report::prompts(report)) {
    out += "\nPrompt:\n\n" + code_block(prompt);
    for (const Candidate& candidate : report.candidates) {
      const report::Sample* sample = report::find_sample(candidate, prompt);
      if (sample == nullptr) continue;
      out += fmt::format("\n{}:\n\n{}", escape_markdown(candidate.label), code_block(sample->text));
    }
  }
  return out.empty() ? out : "\n## Answers\n" + out;
}

std::string facts_table(const char* title, const Facts& facts) {
  if (facts.empty()) return {};
  std::string out = fmt::format("\n## {}\n\n| | |\n| --- | --- |\n", title);
  for (const auto& [name, value] : facts) out += fmt::format("| {} | {} |\n", name, escape_markdown(value));
  return out;
}

std::string commands(const Report& report) {
  std::string out;
  if (!report.command.empty()) out += report.command + "\n";
  for (const Candidate& candidate : report.candidates) {
    if (!candidate.quantize_command.empty()) out += candidate.quantize_command + "\n";
  }
  if (out.empty()) return out;
  out.pop_back();
  return "\n## How to repeat it\n\n" + code_block(out);
}

}  // namespace

std::string render_markdown(const Json& json) {
  const Report report = report::read_report(json);
  std::string out = fmt::format("# {}: which quantization?\n",
                                report.model_name.empty() ? "A model" : escape_markdown(report.model_name));
  for (const std::string& note : report.model_notes) out += fmt::format("\n> {}\n", escape_markdown(note));
  out += verdict_text(report);
  out += candidates_table(report);
  out += pairs_table(report);
  out += layers_table(report);
  out += samples(report);
  out += facts_table("Protocol", report.protocol);
  out += facts_table("Machine", report.machine);
  out += facts_table("Model", report.model);
  out += facts_table("Limits", report.limits);
  out += commands(report);
  if (!report.nibble.empty() || !report.created.empty()) {
    out += fmt::format("\nMade by Nibble {} {}{}\n", escape_markdown(report.nibble),
                       report.created.empty() ? "" : "on ", escape_markdown(report.created));
  }
  return out;
}

}  // namespace nibble
