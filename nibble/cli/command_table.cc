#include "nibble/cli/command_table.h"

#include <algorithm>
#include <array>

#include "nibble/cli/options.h"

namespace nibble::cli {
namespace {

constexpr std::array kCommands = {
    &kRunCommand,        &kChatCommand,         &kPullCommand,       &kCompareCommand, &kQuantizeCommand,
    &kEvalCommand,       &kBenchCommand,        &kPlanCommand,       &kDoctorCommand,  &kInspectCommand,
    &kDiffCommand,       &kConvertCommand,      &kDequantizeCommand, &kLogitsCommand,  &kTokenizeCommand,
    &kDetokenizeCommand, &kChatTemplateCommand, &kCompletionCommand, &kManCommand};

OptionInfo describe(const CLI::Option& option) {
  OptionInfo info;
  for (const std::string& name : option.get_snames()) info.flags.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) info.flags.push_back("--" + name);
  if (option.get_items_expected_max() > 0) info.value = option.get_type_name();
  info.words = words_of(option);
  info.description = option.get_description();
  info.group = option.get_group();
  info.repeats = option.get_expected_max() > 1;
  return info;
}

}  // namespace

std::span<const Command* const> commands() { return kCommands; }

const Command* find_command(std::string_view name) {
  for (const Command* command : kCommands) {
    if (command->name == name) return command;
  }
  return nullptr;
}

bool OptionInfo::takes_file() const {
  return value == "FILE" || value == "FILES" || value == "DIR" || value.starts_with("MODEL");
}

std::vector<CommandInfo> describe_commands() {
  std::vector<CommandInfo> list;
  for (const Command* command : kCommands) {
    CLI::App app;
    app.set_help_flag("-h,--help", "Print the page of this command");
    app.get_help_ptr()->group("Common");
    const Action unused = command->define(app);
    CommandInfo info;
    info.name = command->name;
    info.summary = command->summary;
    info.examples = command->examples;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_positional() && info.positional.empty()) info.positional = option->get_name(true);
      OptionInfo described = describe(*option);
      if (!described.flags.empty()) info.options.push_back(std::move(described));
    }
    list.push_back(std::move(info));
  }
  return list;
}

}  // namespace nibble::cli
