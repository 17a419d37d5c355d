#include "nibble/cli/help.h"

#include <algorithm>
#include <sstream>
#include <string_view>
#include <vector>

#include <fmt/format.h>

namespace nibble::cli {
namespace {

constexpr size_t kWidth = 100;         // of a line
constexpr size_t kDescriptionAt = 36;  // column
constexpr std::string_view kCommon = "Common";
constexpr std::string_view kNoGroup = "Options";  // what CLI11 calls options without a group

// "  name            description", continued below itself where it is long.
std::string entry(const std::string& name, const std::string& description) {
  std::string line = fmt::format("  {:<{}}", name, kDescriptionAt - 2);
  std::string out;
  if (name.size() + 4 > kDescriptionAt) {  // two spaces on either side
    out = line + "\n";
    line = std::string(kDescriptionAt, ' ');
  }
  std::istringstream words(description);
  for (std::string word; words >> word;) {
    if (line.size() + word.size() > kWidth && line.size() > kDescriptionAt) {
      out += line.substr(0, line.size() - 1) + "\n";
      line = std::string(kDescriptionAt, ' ');
    }
    line += word + " ";
  }
  line.pop_back();
  return out + line + "\n";
}

std::string names_of(const CLI::Option& option) {
  std::string out;
  for (const std::string& name : option.get_snames())
    out += fmt::format("{}-{}", out.empty() ? "" : ", ", name);
  for (const std::string& name : option.get_lnames())
    out += fmt::format("{}--{}", out.empty() ? "" : ", ", name);
  // Flags take no value.
  if (option.get_items_expected_max() > 0 && !option.get_type_name().empty())
    out += " " + option.get_type_name();
  return out;
}

std::vector<std::string> groups_of(const CLI::App& app) {
  std::vector<std::string> groups = {std::string(kNoGroup)};
  for (const CLI::Option* option : app.get_options()) {
    const std::string& group = option->get_group();
    if (group != kCommon && std::find(groups.begin(), groups.end(), group) == groups.end()) {
      groups.push_back(group);
    }
  }
  groups.emplace_back(kCommon);
  return groups;
}

}  // namespace

std::string help_page(const Command& command, const CLI::App& app) {
  std::string usage = fmt::format("Usage: nibble {}", command.name);
  std::string arguments;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    const std::string name = option->get_name(/*positional=*/true);
    usage += fmt::format(" [{}{}]", name, option->get_allow_extra_args() ? "..." : "");
    arguments += entry(name, option->get_description());
  }
  std::string out = fmt::format("{}.\n\n{} [OPTIONS]\n\n{}", command.summary, usage, arguments);
  for (const std::string& group : groups_of(app)) {
    std::string lines;
    for (const CLI::Option* option : app.get_options()) {
      const std::string names = names_of(*option);
      if (option->get_group() != group || names.empty()) continue;
      // What a positional is, was said above.
      const std::string description = option->get_positional()
                                          ? "The same as " + option->get_name(/*positional=*/true)
                                          : option->get_description();
      lines += entry(names, description + (option->get_required() ? " (required)" : ""));
    }
    if (!lines.empty()) out += fmt::format("\n{}:\n{}", group, lines);
  }
  return fmt::format("{}\nExamples:\n{}\n", out, command.examples);
}

}  // namespace nibble::cli
