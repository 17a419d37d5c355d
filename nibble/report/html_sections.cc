#include "nibble/report/html_sections.h"

#include <fmt/format.h>

#include "nibble/report/figure.h"
#include "nibble/report/first_difference.h"
#include "nibble/report/numbers.h"
#include "nibble/report/text.h"

namespace nibble::report {
namespace {

std::string metric_name(const std::string& metric) {
  constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"kl", "KL divergence"},
      {"perplexity", "Perplexity"},
      {"bits_per_byte", "Bits per byte"},
      {"top1_agreement", "Top-1 agreement"},
      {"top5_overlap", "Top-5 overlap"},
      {"delta_logprob", "Change in log-probability"},
      {"rms_delta_prob", "RMS change in probability"}};
  for (const auto& [key, name] : kNames) {
    if (key == metric) return std::string(name);
  }
  return metric;
}

// The answer, with the first word that the original does not have marked.
std::string answer_text(const std::string& text, const Sample* original) {
  if (original == nullptr) return escape_html(text);
  const FirstDifference parts = first_difference(original->text, text);
  if (parts.identical) return escape_html(text);
  std::string out = escape_html(parts.same);
  if (parts.different.empty()) {
    out += R"( <mark class="end">[ends here]</mark>)";
  } else {
    out += fmt::format(
        R"(<mark><span class="sr">[first difference] </span>{}</mark><span class="after">{}</span>)",
        escape_html(parts.different), escape_html(parts.rest));
  }
  return out;
}

std::string answer_note(const std::string& text, const Sample* original) {
  if (original == nullptr) return {};
  const FirstDifference parts = first_difference(original->text, text);
  if (parts.identical) return "the same, word for word";
  return fmt::format("{} at word {}", parts.different.empty() ? "ends" : "differs", parts.word);
}

std::string answer(const Candidate& candidate, size_t index, const Sample& sample, const Sample* original) {
  const std::string note = candidate.is_reference ? "the original" : answer_note(sample.text, original);
  return fmt::format(
      R"(<article class="answer{}" data-candidate="{}"><h4>{}</h4><p class="note">{}</p><div class="text" dir="auto">{}</div></article>)",
      candidate.is_choice ? " choice" : "", index, isolated(candidate.label), note,
      candidate.is_reference ? escape_html(sample.text) : answer_text(sample.text, original));
}

std::string facts_list(std::string_view title, const Facts& facts) {
  if (facts.empty()) return {};
  std::string out = fmt::format("<div><h3>{}</h3><dl class=\"facts\">", title);
  for (const auto& [name, value] : facts) {
    out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, isolated(value));
  }
  return out + "</dl></div>";
}

std::string command_block(std::string_view name, std::string_view commands) {
  return fmt::format(
      R"(<pre class="scroll" role="region" tabindex="0" aria-label="{}"><code>{}</code></pre>)",
      escape_html(name), escape_html(commands));
}

}  // namespace

std::string section(std::string_view id, std::string_view title, std::string_view content) {
  if (content.empty()) return {};
  return fmt::format("<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n{2}\n</section>\n", id,
                     escape_html(title), content);
}

std::string isolated(std::string_view text) { return fmt::format("<bdi>{}</bdi>", escape_html(text)); }

std::string bullet_list(const std::vector<std::string>& items) {
  std::string out = "<ul>";
  for (const std::string& item : items) out += fmt::format("<li dir=\"auto\">{}</li>", escape_html(item));
  return out + "</ul>";
}

std::string pairs_section(const Report& report) {
  std::vector<std::vector<std::string>> rows;
  for (const Pair& pair : report.pairs) {
    rows.push_back({fmt::format("{} − {}", pair.a, pair.b), metric_name(pair.metric),
                    format_signed(pair.difference),
                    fmt::format("{} to {}", format_signed(pair.low), format_signed(pair.high)),
                    format_p(pair.p_value), pair.verdict});
  }
  if (rows.empty()) return {};
  const std::string intro = fmt::format(
      "<p>Two candidates are compared on the same words, so that how hard the text is cancels out. Intervals "
      "hold "
      "the true difference with {} confidence.</p>",
      format_confidence(report.confidence));
  std::string table =
      plain_table("Differences between pairs", {"Pair", "Measure", "Difference", "Interval", "p", "Verdict"},
                  rows, "llrrrl");
  constexpr size_t kManyRows = 12;
  if (rows.size() > kManyRows) {
    table = fmt::format(R"(<details class="numbers"><summary>All {} pairs</summary>{}</details>)",
                        rows.size(), table);
  }
  return section("pairs", "Different, or just chance?", intro + table);
}

std::string samples_section(const Report& report) {
  std::string out;
  for (const std::string& prompt : prompts(report)) {
    const Sample* original =
        report.reference ? find_sample(report.candidates[*report.reference], prompt) : nullptr;
    std::string answers;
    for (size_t i = 0; i < report.candidates.size(); ++i) {
      const Sample* sample = find_sample(report.candidates[i], prompt);
      if (sample != nullptr) answers += answer(report.candidates[i], i, *sample, original);
    }
    out += fmt::format(
        "<section class=\"prompt\"><h3 dir=\"auto\"><span class=\"kicker\">Prompt</span>{}</h3>"
        "<div class=\"answers\">{}</div></section>\n",
        escape_html(prompt), answers);
  }
  if (out.empty()) return out;
  constexpr std::string_view kIntro =
      "<p>The most likely word at every step. The first word that the original does not have is marked; what "
      "follows it is another story, not a worse one.</p>";
  return section("answers", "The same prompt, answered by each", std::string(kIntro) + out);
}

std::string repeat_section(const Report& report) {
  std::string facts = facts_list("Protocol", report.protocol) + facts_list("Machine", report.machine) +
                      facts_list("Model", report.model) + facts_list("Limits", report.limits);
  if (!facts.empty()) facts = fmt::format("<div class=\"columns\">{}</div>", facts);
  if (!report.command.empty()) {
    facts += "<h3>How to repeat it</h3>" + command_block("The command of this comparison", report.command);
  }
  std::string commands;
  for (const Candidate& candidate : report.candidates) {
    if (!candidate.quantize_command.empty()) commands += candidate.quantize_command + "\n";
  }
  if (!commands.empty()) {
    commands.pop_back();
    facts += "<h3>How the candidates were made</h3>" +
             command_block("Commands that made the candidates", commands);
  }
  return section("repeat", "How it was measured", facts);
}

}  // namespace nibble::report
