#include "nibble/checkpoint/convert.h"

#include <memory>

#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"

namespace nibble::cli {
namespace {

struct Options {
  CommonOptions common;
  ModelOption model;
  OutputFolderOptions out;
};

Status convert(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  if (files.gguf.empty()) {
    return fail(ErrorCode::kInvalidArgument, "is not a .gguf file, and only those are converted")
        .at(options.model.model)
        .with_fix("A quantized model becomes a float one with: nibble dequantize MODEL -o DIR");
  }
  NIBBLE_TRY(const auto checkpoint, open_checkpoint(files));
  NIBBLE_TRY(OutputFolder folder, OutputFolder::create(options.out.output, files, options.out.force));
  NIBBLE_RETURN_IF_ERROR(write_model_folder(files, *checkpoint, folder.path(), options.out.shard_size()));
  folder.keep();

  size_t bytes = 0;
  for (const auto& [name, info] : checkpoint->tensors()) bytes += num_bytes(info).value_or(0);
  if (options.common.json) {
    return write_json({{"output", options.out.output},
                       {"tensors", checkpoint->tensors().size()},
                       {"bytes", bytes},
                       {"warnings", warnings()}});
  }
  log_line(LogLevel::kNormal, fmt::format("{}: {} tensors, {}", options.out.output,
                                          checkpoint->tensors().size(), human_bytes(bytes)));
  return {};
}

Action define(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  add_model_option(app, options->model);
  add_output_folder_options(app, options->out);
  add_common_options(app, options->common, "Print what was written as JSON");
  return [options] { return convert(*options); };
}

}  // namespace

const Command kConvertCommand = {
    .name = "convert",
    .summary = "Write a .gguf file as a Hugging Face folder",
    .examples =
        "  nibble convert model-q8_0.gguf -o model\n"
        "  nibble convert model-f16.gguf -o model --max-shard-size 2000000000",
    .define = define,
};

}  // namespace nibble::cli
