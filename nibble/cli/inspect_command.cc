#include <memory>

#include "nibble/base/log.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/models/inspect_model.h"

namespace nibble::cli {
namespace {

struct Options {
  CommonOptions common;
  ModelOption model;
};

Status run(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  NIBBLE_TRY(const ModelSummary summary, inspect_model(files));
  if (!options.common.json) return write_stdout(to_text(summary));
  Json json = to_json(summary);
  json["warnings"] = warnings();
  return write_json(json);
}

Action define(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  add_model_option(app, options->model);
  add_common_options(app, options->common, "Print the summary as JSON");
  return [options] { return run(*options); };
}

}  // namespace

const Command kInspectCommand = {
    .name = "inspect",
    .summary = "Say what a model is, without reading its weights",
    .examples =
        "  nibble inspect ./model\n"
        "  nibble inspect org/name --json",
    .define = define,
};

}  // namespace nibble::cli
