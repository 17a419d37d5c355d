// How the answers of --explain and the findings of --check are shown: as JSON and as a page.

#include <algorithm>

#include <fmt/format.h>

#include "nibble/base/memory.h"
#include "nibble/base/printable.h"
#include "nibble/models/inspect_check.h"
#include "nibble/models/inspect_explain.h"

namespace nibble {

Json to_json(const std::vector<Answer>& answers) {
  Json list = Json::array();
  for (const Answer& answer : answers) {
    list.push_back({{"question", answer.question},
                    {"answer", answer.answer},
                    {"evidence", answer.evidence},
                    {"disagreed", answer.disagreed}});
  }
  return list;
}

std::string to_text(const std::vector<Answer>& answers) {
  std::string out;
  for (const Answer& answer : answers) {
    out += fmt::format("\n{:<16} {}\n", answer.question, printable(answer.answer));
    for (const std::string& line : answer.evidence)
      out += fmt::format("  because        {}\n", printable(line));
    for (const std::string& line : answer.disagreed)
      out += fmt::format("  disagreed      {}\n", printable(line));
  }
  return out;
}

Json to_json(const ModelCheck& check) {
  Json findings = Json::array();
  for (const CheckFinding& finding : check.findings) {
    findings.push_back({{"kind", finding.kind},
                        {"severity", finding.severity == Severity::kFault ? "fault" : "note"},
                        {"name", finding.name},
                        {"count", finding.count},
                        {"what", finding.what}});
  }
  return {{"tensors", check.tensors},
          {"bytes", check.bytes},
          {"modules", check.modules},
          {"faults", check.num_faults()},
          {"findings", findings}};
}

std::string to_text(const ModelCheck& check) {
  constexpr size_t kShown = 20;
  std::string out = fmt::format("\n{} tensors read, {}; {} modules decoded\n", check.tensors,
                                human_bytes(check.bytes), check.modules);
  for (size_t i = 0; i < std::min(kShown, check.findings.size()); ++i) {
    const CheckFinding& finding = check.findings[i];
    const std::string_view label = finding.severity == Severity::kFault ? "fault" : "note";
    const std::string name = finding.name.empty() ? std::string() : finding.name + ": ";
    out += fmt::format("{:<6} {:<10}  {}{}\n", label, finding.kind, printable(name), printable(finding.what));
  }
  if (check.findings.size() > kShown)
    out += fmt::format("and {} more (--json lists all)\n", check.findings.size() - kShown);
  const size_t faults = check.num_faults();
  out += check.findings.empty()
             ? "nothing found\n"
             : fmt::format("{} faults, {} notes\n", faults, check.findings.size() - faults);
  return out;
}

}  // namespace nibble
