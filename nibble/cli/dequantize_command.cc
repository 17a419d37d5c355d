#include <memory>

#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/dequantize_model.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"

namespace nibble::cli {
namespace {

struct DequantizeArguments {
  CommonOptions common;
  ModelOption model;
  OutputFolderOptions out;
  std::string dtype;
};

Status run_dequantize(const DequantizeArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  NIBBLE_TRY(OutputFolder folder, OutputFolder::create(options.out.output, files, options.out.force));
  const auto dtype = options.dtype.empty() ? std::nullopt : dtype_from_torch_name(options.dtype);
  NIBBLE_TRY(const DequantizedModel result,
             dequantize_model(files, folder.path(), dtype, options.out.shard_size()));
  folder.keep();
  if (options.common.json) {
    return write_json({{"output", options.out.output},
                       {"dtype", torch_dtype_name(result.dtype)},
                       {"modules", result.modules},
                       {"tensors", result.tensors},
                       {"bytes", result.bytes},
                       {"warnings", warnings()}});
  }
  log_line(LogLevel::kNormal, fmt::format("{}: {} tensors, {}; {} of them were quantized and are {} now",
                                          options.out.output, result.tensors, human_bytes(result.bytes),
                                          result.modules, torch_dtype_name(result.dtype)));
  return {};
}

Action define_dequantize(CLI::App& app) {
  const auto options = std::make_shared<DequantizeArguments>();
  add_model_option(app, options->model);
  add_output_folder_options(app, options->out);
  add_float_type(app, "--dtype", options->dtype,
                 "Type of the weights (default: what the original library dequantizes to)");
  add_common_options(app, options->common, "Print what was written as JSON");
  return [options] { return run_dequantize(*options); };
}

}  // namespace

const Command kDequantizeCommand = {
    .name = "dequantize",
    .summary = "Write a quantized model as a float one",
    .examples =
        "  nibble dequantize ./model-gptq -o ./model-float\n"
        "  nibble dequantize org/name-AWQ -o ./model-bf16 --dtype bfloat16",
    .define = define_dequantize,
};

}  // namespace nibble::cli
