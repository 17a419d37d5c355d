#include <memory>

#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/cli/command.h"
#include "nibble/cli/dequantize_model.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"

namespace nibble::cli {
namespace {

struct Options {
  CommonOptions common;
  ModelOption model;
  std::string output;
  std::string dtype;
  std::optional<int64_t> max_shard_size;
  bool force = false;
};

Status run(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  NIBBLE_TRY(OutputFolder folder, OutputFolder::create(options.output, files, options.force));
  const size_t shard_size = options.max_shard_size ? static_cast<size_t>(*options.max_shard_size)
                                                   : CheckpointWriterOptions().max_shard_size;
  const auto dtype = options.dtype.empty() ? std::nullopt : dtype_from_torch_name(options.dtype);
  NIBBLE_TRY(const DequantizedModel result, dequantize_model(files, folder.path(), dtype, shard_size));
  folder.keep();
  if (options.common.json) {
    return write_json({{"output", options.output},
                       {"dtype", torch_dtype_name(result.dtype)},
                       {"modules", result.modules},
                       {"tensors", result.tensors},
                       {"bytes", result.bytes},
                       {"warnings", warnings()}});
  }
  log_line(LogLevel::kNormal, fmt::format("{}: {} tensors, {}; {} of them were quantized and are {} now",
                                          options.output, result.tensors, human_bytes(result.bytes),
                                          result.modules, torch_dtype_name(result.dtype)));
  return {};
}

Action define(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  add_model_option(app, options->model);
  app.add_option("-o,--output", options->output, "The folder to write")->type_name("DIR")->required();
  add_float_type(app, "--dtype", options->dtype,
                 "Type of the weights (default: what the original library dequantizes to)");
  add_integer(app, "--max-shard-size", options->max_shard_size,
              "Bytes of tensors per file (default: 5000000000)", 1, int64_t{1} << 50);
  app.add_flag("--force", options->force, "Write into a folder that has files in it");
  add_common_options(app, options->common, "Print what was written as JSON");
  return [options] { return run(*options); };
}

}  // namespace

const Command kDequantizeCommand = {
    .name = "dequantize",
    .summary = "Write a quantized model as a float one",
    .examples =
        "  nibble dequantize ./model-gptq -o ./model-float\n"
        "  nibble dequantize org/name-AWQ -o ./model-bf16 --dtype bfloat16",
    .define = define,
};

}  // namespace nibble::cli
