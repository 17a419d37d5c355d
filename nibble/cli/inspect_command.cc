#include <memory>

#include "nibble/base/log.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/models/inspect_check.h"
#include "nibble/models/inspect_explain.h"
#include "nibble/models/inspect_model.h"

namespace nibble::cli {
namespace {

struct InspectArguments {
  CommonOptions common;
  ModelOption model;
  bool explain = false;
  bool check = false;
};

Status run_inspect(const InspectArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  // With --check or --explain a model whose tensors do not fit still is described as far as it goes.
  auto summary = inspect_model(files);
  if (!summary && !options.explain && !options.check) return Failure(std::move(summary).error());
  Json json = summary ? to_json(*summary) : Json::object();
  std::string text = summary ? to_text(*summary) : std::string();
  if (options.explain) {
    NIBBLE_TRY(const std::vector<Answer> answers, explain_model(files));
    json["explain"] = to_json(answers);
    text += to_text(answers);
  }
  if (options.check) {
    NIBBLE_TRY(const ModelCheck check, check_model(files));
    json["check"] = to_json(check);
    text += to_text(check);
    if (check.num_faults() > 0) set_result_status(1);
  }
  json["warnings"] = warnings();
  return options.common.json ? write_json(json) : write_stdout(text);
}

Action define_inspect(CLI::App& app) {
  const auto options = std::make_shared<InspectArguments>();
  add_model_option(app, options->model);
  app.add_flag("--explain", options->explain,
               "Say for each answer which file, key or tensor it comes from, and what disagreed");
  app.add_flag(
      "--check", options->check,
      "Read all weights: NaN, infinities, zero groups, zero points and absmax that cannot be, duplicate, "
      "missing and unused tensors; exit status 1 for a fault");
  add_common_options(app, options->common, "Print the summary as JSON");
  return [options] { return run_inspect(*options); };
}

}  // namespace

const Command kInspectCommand = {
    .name = "inspect",
    .summary = "Say what a model is, without reading its weights",
    .examples =
        "  nibble inspect ./model\n"
        "  nibble inspect ./model --explain\n"
        "  nibble inspect ./model --check\n"
        "  nibble inspect org/name --json",
    .define = define_inspect,
};

}  // namespace nibble::cli
