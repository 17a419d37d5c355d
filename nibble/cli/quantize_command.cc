#include <memory>

#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/pipeline/quantize.h"

namespace nibble::cli {
namespace {

constexpr size_t kQuickSamples = 32;
constexpr size_t kQuickLength = 512;

struct Options {
  CommonOptions common;
  ModelOption model;
  OutputFolderOptions out;
  std::string method = "gptq";
  std::string effort = "default";
  std::string format;
  std::string compute = "auto";
  std::string dataset;
  std::optional<int64_t> bits, group_size, nsamples, seqlen, seed;
  std::optional<double> damp_percent, mse;
  bool sym = true;
  bool desc_act = false, static_groups = false, no_gar = false, double_quant = false, quick = false;
};

bool is_bitsandbytes(const Options& options) {
  return options.method == "nf4" || options.method == "fp4" || options.method == "int8";
}

Expected<GPTQConfig> gptq_config(const Options& options) {
  GPTQConfig config;
  config.bits = static_cast<int>(options.bits.value_or(4));
  config.group_size = options.group_size.value_or(128);
  config.sym = options.sym;
  config.has_sym = true;
  config.desc_act = options.desc_act;
  config.static_groups = options.static_groups;
  config.act_group_aware = !options.no_gar && !options.desc_act && config.group_size > 0;
  config.damp_percent = options.damp_percent.value_or(options.effort == "compat" ? 0.05 : 0.01);
  // The v1 layout cannot hold a zero point of 0, which asymmetric groups may have.
  config.checkpoint_format = !options.format.empty() ? options.format : config.sym ? "gptq" : "gptq_v2";
  config.quantizer = {"nibble:" NIBBLE_VERSION};
  NIBBLE_RETURN_IF_ERROR(config.validate());
  return config;
}

Expected<AwqConfig> awq_config(const Options& options) {
  AwqConfig config;
  config.bits = static_cast<int>(options.bits.value_or(4));
  config.group_size = options.group_size.value_or(128);
  config.zero_point = true;
  config.version = options.format.empty() ? "gemm" : options.format;
  NIBBLE_RETURN_IF_ERROR(config.validate());
  return config;
}

Expected<BitsAndBytesConfig> bnb_config(const Options& options) {
  BitsAndBytesConfig config;
  config.load_in_8bit = options.method == "int8";
  config.load_in_4bit = !config.load_in_8bit;
  if (config.load_in_4bit) config.bnb_4bit_quant_type = options.method;
  config.bnb_4bit_use_double_quant = options.double_quant;
  NIBBLE_RETURN_IF_ERROR(config.validate());
  return config;
}

Status check_combination(const Options& options) {
  if (is_bitsandbytes(options) &&
      (options.bits || options.group_size || !options.format.empty() || !options.dataset.empty())) {
    return fail(ErrorCode::kInvalidArgument, "--bits, --group-size, --format and --dataset say nothing to {}",
                options.method)
        .with_fix("bitsandbytes has one layout and needs no data: leave them out.");
  }
  if (options.double_quant && (!is_bitsandbytes(options) || options.method == "int8")) {
    return fail(ErrorCode::kInvalidArgument, "--double-quant goes with nf4 and fp4");
  }
  return {};
}

Expected<QuantizeOptions> to_quantize_options(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(check_combination(options));
  QuantizeOptions out;
  if (is_bitsandbytes(options)) {
    NIBBLE_TRY(out.config, bnb_config(options));
  } else if (options.method == "awq-rtn") {
    NIBBLE_TRY(out.config, awq_config(options));
  } else {
    NIBBLE_TRY(out.config, gptq_config(options));
  }
  out.round_to_nearest = options.method == "rtn" || options.method == "awq-rtn";
  out.effort = options.effort == "compat" ? Effort::kCompat
               : options.effort == "fast" ? Effort::kFast
               : options.effort == "best" ? Effort::kBest
                                          : Effort::kDefault;
  out.mse = options.mse.value_or(0.0);
  if (!options.dataset.empty()) {
    NIBBLE_TRY(out.dataset, parse_dataset(options.dataset));
  }
  out.data.num_samples = static_cast<size_t>(
      options.nsamples.value_or(static_cast<int64_t>(options.quick ? kQuickSamples : 128)));
  out.data.sequence_length =
      static_cast<size_t>(options.seqlen.value_or(static_cast<int64_t>(options.quick ? kQuickLength : 2048)));
  out.data.seed = static_cast<uint64_t>(options.seed.value_or(0));
  out.compute = options.compute == "f32" ? ComputeMode::kF32 : ComputeMode::kAuto;
  out.max_shard_size = options.out.shard_size();
  out.show_progress = !options.common.quiet;
  return out;
}

Json to_json(const QuantizedModule& module) {
  return {{"module", module.module},   {"shape", {module.out_features, module.in_features}},
          {"bits", module.bits},       {"loss", module.loss},
          {"damp", module.damp},       {"tokens", module.tokens},
          {"seconds", module.seconds}, {"rounded_to_nearest", module.rounded_to_nearest}};
}

Status quantize(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_TRY(const QuantizeOptions request, to_quantize_options(options));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  NIBBLE_TRY(OutputFolder folder, OutputFolder::create(options.out.output, files, options.out.force));
  ThreadPool pool(options.common.num_threads());
  NIBBLE_TRY(const QuantizeResult result, quantize_model(files, folder.path(), request, pool));
  folder.keep();
  for (const std::string& warning : result.warnings) warn_once(warning);
  if (options.common.json) {
    Json modules = Json::array();
    for (const QuantizedModule& module : result.modules) modules.push_back(to_json(module));
    return write_json({{"output", options.out.output},
                       {"method", options.method},
                       {"modules", modules},
                       {"calibration_tokens", result.calibration_tokens},
                       {"seconds", result.seconds},
                       {"peak_memory_bytes", peak_memory_bytes()},
                       {"warnings", warnings()}});
  }
  for (const QuantizedModule& module : result.modules) {
    log_verbose("{}  {} x {}  loss {:.3g}  {:.2f} s{}", module.module, module.out_features,
                module.in_features, module.loss, module.seconds,
                module.rounded_to_nearest ? "  rounded to nearest" : "");
  }
  log_line(LogLevel::kNormal, fmt::format("{}: {} in {:.1f} s, peak memory {}", options.out.output,
                                          options.method, result.seconds, human_bytes(peak_memory_bytes())));
  return {};
}

Action define(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  add_model_option(app, options->model);
  add_output_folder_options(app, options->out);
  add_choice(app, "--method", options->method, "How to quantize",
             {"gptq", "rtn", "awq-rtn", "nf4", "fp4", "int8"});
  add_choice(app, "--effort", options->effort,
             "gptq: compat is the original algorithm; fast, default and best are closer to the float model",
             {"compat", "fast", "default", "best"});
  add_integer(app, "--bits", options->bits, "Bits per weight (gptq, rtn)", 2, 8);
  add_integer(app, "--group-size", options->group_size, "Inputs that share a scale; -1 for all", -1, 1 << 20);
  app.add_flag("--sym,!--no-sym", options->sym, "Symmetric grids (default) or grids with zero points");
  app.add_flag("--desc-act", options->desc_act, "Columns by falling activation");
  app.add_flag("--static-groups", options->static_groups, "Grids from the weights before any update");
  app.add_flag("--no-act-group-aware", options->no_gar, "Columns in their natural order");
  add_number(app, "--damp-percent", options->damp_percent,
             "Damping of the Hessian (default 0.01; compat 0.05)");
  add_number(app, "--mse", options->mse, "Exponent of the clip search, 2.4 is usual; 0 for none (default)");
  add_choice(app, "--format", options->format, "Layout on disk",
             {"gptq", "gptq_v2", "gptq_p", "gemm", "gemv", "gemv_fast"});
  app.add_flag("--double-quant", options->double_quant, "nf4, fp4: quantize the scales too");
  app.add_option("--dataset", options->dataset,
                 "Calibration data: text, .jsonl or .safetensors with input_ids; FILE:num=N,FILE (default: "
                 "built-in text)");
  add_integer(app, "--nsamples", options->nsamples, "Sequences (default 128)", 1, 1 << 20);
  add_integer(app, "--seqlen", options->seqlen, "Tokens per sequence (default 2048)", 2, 1 << 20);
  add_integer(app, "--seed", options->seed, "Of the choice of text", 0, int64_t{1} << 53);
  app.add_flag("--quick", options->quick, "32 sequences of 512 tokens");
  add_choice(app, "--compute", options->compute, "Arithmetic of the calibration", {"auto", "f32"});
  add_common_options(app, options->common, "Print what was done as JSON");
  return [options] { return quantize(*options); };
}

}  // namespace

const Command kQuantizeCommand = {
    .name = "quantize",
    .summary = "Write a float model as a GPTQ or bitsandbytes one",
    .examples =
        "  nibble quantize ./model -o ./model-gptq --bits 4 --group-size 128\n"
        "  nibble quantize ./model -o ./model-3bit --bits 3 --dataset my.txt --nsamples 64 --seqlen 512\n"
        "  nibble quantize ./model -o ./model-nf4 --method nf4 --double-quant",
    .define = define,
};

}  // namespace nibble::cli
