#include "nibble/checkpoint/convert.h"

#include <algorithm>
#include <memory>

#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/dequantize_model.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/cli/quantize_report.h"
#include "nibble/pipeline/convert_proof.h"
#include "nibble/pipeline/convert_quantized.h"

namespace nibble::cli {
namespace {

constexpr std::string_view kFloat = "float";  // in the type that the original library dequantizes to

struct ConvertArguments {
  CommonOptions common;
  ModelOption model;
  OutputFolderOptions out;
  std::string to;
  bool requantize = false;
  bool check = true;
};

Status convert_gguf(const ConvertArguments& options, const ModelFiles& files) {
  NIBBLE_TRY(const auto checkpoint, open_checkpoint(files));
  NIBBLE_TRY(OutputFolder folder, OutputFolder::create(options.out.output, files, options.out.force));
  NIBBLE_RETURN_IF_ERROR(write_model_folder(files, *checkpoint, folder.path(), options.out.shard_size()));
  size_t bytes = 0;
  std::vector<TensorSource> tensors;
  for (const auto& [name, info] : checkpoint->tensors()) {
    bytes += num_bytes(info).value_or(0);
    tensors.push_back({name, info, [&checkpoint, &name = name] { return checkpoint->tensor(name); },
                       [&checkpoint, &name = name] { checkpoint->drop(name); }});
  }
  NIBBLE_RETURN_IF_ERROR(prove_tensors(tensors, folder.path()));
  folder.keep();

  if (options.common.json) {
    return write_json({{"output", options.out.output},
                       {"from", "gguf"},
                       {"to", kFloat},
                       {"tensors", checkpoint->tensors().size()},
                       {"bytes", bytes},
                       {"warnings", warnings()}});
  }
  log_line(LogLevel::kNormal, fmt::format("{}: {} tensors, {}", options.out.output,
                                          checkpoint->tensors().size(), human_bytes(bytes)));
  return {};
}

Status convert_to_float(const ConvertArguments& options, const ModelFiles& files) {
  const auto dtype = options.to == kFloat ? std::nullopt : dtype_from_torch_name(options.to);
  NIBBLE_TRY(OutputFolder folder, OutputFolder::create(options.out.output, files, options.out.force));
  NIBBLE_TRY(const DequantizedModel result,
             dequantize_model(files, folder.path(), dtype, options.out.shard_size()));
  folder.keep();
  if (options.common.json) {
    return write_json({{"output", options.out.output},
                       {"to", torch_dtype_name(result.dtype)},
                       {"modules", result.modules},
                       {"tensors", result.tensors},
                       {"bytes", result.bytes},
                       {"warnings", warnings()}});
  }
  log_line(LogLevel::kNormal,
           fmt::format("{}: {} modules are {} now; {} tensors, {}", options.out.output, result.modules,
                       torch_dtype_name(result.dtype), result.tensors, human_bytes(result.bytes)));
  return {};
}

Json to_json(const ConvertArguments& options, const ConversionResult& result) {
  Json counts = Json::object();
  for (const StoredAs stored_as :
       {StoredAs::kExact, StoredAs::kSameCodes, StoredAs::kRequantized, StoredAs::kFloat}) {
    counts[std::string(stored_as_name(stored_as))] = result.count(stored_as);
  }
  Json changed = Json::array();
  for (const ConvertedModule& module : result.modules) {
    if (module.stored_as == StoredAs::kExact) continue;
    changed.push_back(
        {{"module", module.module}, {"stored_as", stored_as_name(module.stored_as)}, {"why", module.why}});
  }
  return {{"output", options.out.output},
          {"from", result.from},
          {"to", options.to},
          {"modules", counts},
          {"proved", result.proved},
          {"copied", result.copied},
          {"changed", changed},
          {"tensors", result.tensors},
          {"bytes", result.bytes},
          {"check", check_json(result.check)},
          {"warnings", warnings()}};
}

void report(const ConvertArguments& options, const ConversionResult& result) {
  log_line(LogLevel::kNormal, fmt::format("{}: {} from {}, {} tensors, {}", options.out.output, options.to,
                                          result.from, result.tensors, human_bytes(result.bytes)));
  std::string text =
      fmt::format("{} of {} modules hold the same codes, scales and weights, compared bit by bit",
                  result.proved, result.modules.size());
  if (const size_t n = result.count(StoredAs::kSameCodes); n > 0) {
    text += fmt::format("; {} the same codes and scales", n);
  }
  if (const size_t n = result.count(StoredAs::kRequantized); n > 0) {
    text += fmt::format("; {} were rounded anew", n);
  }
  if (const size_t n = result.count(StoredAs::kFloat); n > 0) {
    text += fmt::format("; {} are floating point now", n);
  }
  log_line(LogLevel::kNormal, text);
  if (result.check) {
    text = fmt::format("beside the source: KL {:.3g} nats, the same first choice at {:.1f} % of {} tokens",
                       result.check->kl, 100.0 * result.check->top1_agreement, result.check->tokens);
    log_line(LogLevel::kNormal, text);
  }
}

Status convert_layout(const ConvertArguments& options, const ModelFiles& files) {
  ConvertOptions convert;
  convert.layout = options.to;
  convert.requantize = options.requantize;
  convert.check = options.check;
  convert.max_shard_size = options.out.shard_size();
  convert.show_progress = true;
  ThreadPool pool(options.common.num_threads());
  NIBBLE_TRY(OutputFolder folder, OutputFolder::create(options.out.output, files, options.out.force));
  NIBBLE_TRY(const ConversionResult result, convert_quantized(files, folder.path(), convert, pool));
  folder.keep();
  if (result.check && result.check->broken()) {
    warn("the result predicts other text than the model it was made of: do not use it");
  }
  if (options.common.json) return write_json(to_json(options, result));
  report(options, result);
  return {};
}

bool is_float_name(const std::string& to) { return to == kFloat || dtype_from_torch_name(to); }

Status convert(const ConvertArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  if (!files.gguf.empty()) {
    if (options.to.empty() || options.to == kFloat) return convert_gguf(options, files);
    return fail(ErrorCode::kUnsupported, "a .gguf file becomes a float folder only, not {}", options.to)
        .at(options.model.model)
        .with_fix("Convert it without --to; then quantize the folder, or convert it to another type.");
  }
  if (options.to.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--to is missing: the layout to write")
        .at(options.model.model)
        .with_fix(fmt::format("Layouts are {}, float.", fmt::join(conversion_layouts(), ", ")));
  }
  return is_float_name(options.to) ? convert_to_float(options, files) : convert_layout(options, files);
}

Action define_convert(CLI::App& app) {
  const auto options = std::make_shared<ConvertArguments>();
  add_model_option(app, options->model);
  std::vector<std::string> targets = conversion_layouts();
  for (const char* const name : {"float", "float16", "bfloat16", "float32"}) targets.emplace_back(name);
  add_choice(app, "--to", options->to, "Layout to write (a .gguf file becomes float without it)", targets,
             {{"awq", "gemm"},
              {"pack-quantized", "compressed-tensors"},
              {"f16", "float16"},
              {"fp16", "float16"},
              {"bf16", "bfloat16"},
              {"f32", "float32"},
              {"fp32", "float32"}});
  app.add_flag("--requantize", options->requantize,
               "Round anew what the layout cannot hold as it is, and measure what that costs");
  app.add_flag("!--no-check", options->check, "With --requantize: do not measure");
  add_output_folder_options(app, options->out);
  add_common_options(app, options->common, "Print what was written as JSON");
  return [options] { return convert(*options); };
}

}  // namespace

const Command kConvertCommand = {
    .name = "convert",
    .summary = "Write a model in another layout, and prove that it is the same",
    .examples =
        "  nibble convert awq-model --to gptq_v2 -o gptq-model\n"
        "  nibble convert gptq-3bit --to gemm --requantize -o awq-model\n"
        "  nibble convert model-q8_0.gguf -o model",
    .define = define_convert,
};

}  // namespace nibble::cli
