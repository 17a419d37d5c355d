#include <memory>

#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/cli/quantize_report.h"
#include "nibble/config/dynamic_rules.h"
#include "nibble/pipeline/method.h"
#include "nibble/pipeline/model_plan.h"

namespace nibble::cli {
namespace {

constexpr size_t kQuickCalibrationSamples = 32;
constexpr size_t kQuickCalibrationLength = 512;

struct QuantizeArguments {
  CommonOptions common;
  ModelOption model;
  OutputFolderOptions out;
  std::string method = "gptq";
  std::string effort = "default";
  std::string format;
  std::string engine;
  std::string compute = "auto";
  std::string dataset, dynamic, max_memory;
  std::vector<std::string> skip;
  std::optional<int64_t> bits, group_size, blocksize, nsamples, seqlen, seed;
  std::optional<double> damp_percent, mse, int8_threshold;
  bool sym = true;
  CLI::Option* sym_option = nullptr;
  bool desc_act = false, static_groups = false, no_gar = false, lm_head = false, signed_scales = false;
  bool double_quant = false, quick = false, dry_run = false, no_check = false, from_quantized = false;
};

bool is_bitsandbytes(const QuantizeArguments& options) {
  return options.method == "nf4" || options.method == "fp4" || options.method == "int8";
}

bool is_awq_layout(const std::string& format) { return format.starts_with("gem"); }

bool writes_awq(const QuantizeArguments& options) {
  return options.method == "awq" || (options.method == "rtn" && is_awq_layout(options.format));
}

// An option that was given, and the methods that it says something to.
struct Meaning {
  std::string_view option;
  bool given;
  bool meant;
};

Status check_combination(const QuantizeArguments& o) {
  const bool bnb = is_bitsandbytes(o);
  const bool four_bit = bnb && o.method != "int8";
  const bool awq = writes_awq(o);
  const bool gptq = !bnb && !awq;
  const bool calibrated = !bnb && o.method != "rtn";
  const Meaning meanings[] = {
      {"--bits", o.bits.has_value(), !bnb},
      {"--group-size", o.group_size.has_value(), !bnb},
      {"--blocksize", o.blocksize.has_value(), four_bit},
      {"--double-quant", o.double_quant, four_bit},
      {"--llm-int8-threshold", o.int8_threshold.has_value(), o.method == "int8"},
      {"--format", !o.format.empty(), !bnb},
      {"--for", !o.engine.empty(), !bnb},
      {"--sym/--no-sym", o.sym_option->count() > 0, gptq},
      {"--desc-act", o.desc_act, gptq && calibrated},
      {"--static-groups", o.static_groups, gptq && calibrated && o.effort == "compat"},
      {"--no-act-group-aware", o.no_gar, gptq && calibrated && o.effort == "compat"},
      {"--mse", o.mse.has_value(), gptq && (o.method == "rtn" || o.effort == "compat")},
      {"--damp-percent", o.damp_percent.has_value(), calibrated && !(awq && o.effort == "compat")},
      {"--signed-scales", o.signed_scales, gptq && calibrated && o.sym && o.effort != "compat"},
      {"--dynamic", !o.dynamic.empty(), gptq},
      {"--lm-head", o.lm_head, gptq && calibrated},
      {"--dataset", !o.dataset.empty(), calibrated},
      {"--nsamples", o.nsamples.has_value(), calibrated},
      {"--seqlen", o.seqlen.has_value(), calibrated},
      {"--quick", o.quick, calibrated},
  };
  for (const Meaning& meaning : meanings) {
    if (!meaning.given || meaning.meant) continue;
    return fail(ErrorCode::kInvalidArgument, "{} says nothing to {}{}", meaning.option, o.method,
                calibrated ? fmt::format(" with --effort {}", o.effort) : "")
        .with_fix("Leave it out, or see nibble quantize --help for what it goes with.");
  }
  if (o.method == "awq" && !o.format.empty() && !is_awq_layout(o.format)) {
    return fail(ErrorCode::kInvalidArgument, "--format {} is a layout of GPTQ files", o.format)
        .with_fix("AWQ files are gemm (the default), gemv or gemv_fast.");
  }
  if (o.method == "gptq" && is_awq_layout(o.format)) {
    return fail(ErrorCode::kInvalidArgument, "--format {} is a layout of AWQ files", o.format)
        .with_fix("Write --method awq: it takes the same solver and the same options.");
  }
  return {};
}

// Nothing: round-to-nearest.
std::optional<Effort> effort_of(const QuantizeArguments& options) {
  return options.method == "rtn" ? std::nullopt : effort_from_name(options.effort);
}

Expected<GPTQConfig> gptq_config(const QuantizeArguments& options) {
  GPTQConfig config = default_gptq_config(static_cast<int>(options.bits.value_or(4)),
                                          options.group_size.value_or(128), options.sym, effort_of(options));
  config.desc_act = options.desc_act;
  config.static_groups = options.static_groups;
  config.lm_head = options.lm_head;
  if (options.no_gar || options.desc_act) config.act_group_aware = false;
  if (options.damp_percent) config.damp_percent = *options.damp_percent;
  if (!options.format.empty()) config.checkpoint_format = options.format;
  if (!options.dynamic.empty()) {
    std::string text = options.dynamic;
    if (!text.starts_with('{')) {
      auto read = read_text_file(options.dynamic);
      if (!read)
        return Failure(read.error()).with_fix("--dynamic takes JSON, or the name of a file that holds it.");
      text = std::move(*read);
    }
    NIBBLE_TRY(config.dynamic, at("--dynamic", parse_dynamic(text)));
  }
  for (const std::string& word : options.skip) {
    config.dynamic.insert(config.dynamic.begin(), {".*" + escape_pattern(word), true, Json::object()});
  }
  NIBBLE_RETURN_IF_ERROR(config.validate());
  return config;
}

Expected<AwqConfig> awq_config(const QuantizeArguments& options) {
  AwqConfig config = default_awq_config(static_cast<int>(options.bits.value_or(4)),
                                        options.group_size.value_or(128), effort_of(options));
  if (!options.format.empty()) config.version = options.format;
  config.modules_to_not_convert = options.skip;
  NIBBLE_RETURN_IF_ERROR(config.validate());
  return config;
}

Expected<BitsAndBytesConfig> bnb_config(const QuantizeArguments& options) {
  BitsAndBytesConfig config;
  config.load_in_8bit = options.method == "int8";
  config.load_in_4bit = !config.load_in_8bit;
  if (config.load_in_4bit) config.bnb_4bit_quant_type = options.method;
  config.bnb_4bit_use_double_quant = options.double_quant;
  config.llm_int8_threshold = options.int8_threshold.value_or(6.0);
  if (!options.skip.empty()) config.llm_int8_skip_modules = options.skip;
  NIBBLE_RETURN_IF_ERROR(config.validate());
  return config;
}

Expected<QuantizeOptions> to_quantize_options(const QuantizeArguments& options) {
  NIBBLE_RETURN_IF_ERROR(check_combination(options));
  QuantizeOptions out;
  if (is_bitsandbytes(options)) {
    NIBBLE_TRY(out.config, bnb_config(options));
  } else if (writes_awq(options)) {
    NIBBLE_TRY(out.config, awq_config(options));
  } else {
    NIBBLE_TRY(out.config, gptq_config(options));
  }
  out.fit_group_size = !options.group_size;
  if (!options.engine.empty()) {
    NIBBLE_TRY(out.engine, engine_from_name(options.engine));
  }
  out.effort = effort_from_name(options.effort).value_or(Effort::kDefault);
  out.round_to_nearest = options.method == "rtn";
  out.mse = options.mse.value_or(0.0);
  out.damp_percent = options.damp_percent;
  out.signed_scales = options.signed_scales;
  out.bnb_blocksize = static_cast<size_t>(options.blocksize.value_or(64));
  if (!options.dataset.empty()) {
    NIBBLE_TRY(out.dataset, parse_dataset(options.dataset));
  }
  out.data.num_samples = static_cast<size_t>(
      options.nsamples.value_or(static_cast<int64_t>(options.quick ? kQuickCalibrationSamples : 128)));
  out.data.sequence_length = static_cast<size_t>(
      options.seqlen.value_or(static_cast<int64_t>(options.quick ? kQuickCalibrationLength : 2048)));
  out.data.seed = static_cast<uint64_t>(options.seed.value_or(0));
  out.compute = options.compute == "f32" ? ComputeMode::kF32 : ComputeMode::kAuto;
  if (!options.max_memory.empty()) {
    NIBBLE_TRY(out.max_memory, at("--max-memory", parse_bytes(options.max_memory)));
  }
  out.from_quantized = options.from_quantized;
  out.overwrite = options.out.force;
  out.max_shard_size = options.out.shard_size();
  out.check = !options.no_check;
  out.show_progress = !options.common.quiet;
  return out;
}

Status quantize(const QuantizeArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const QuantizeOptions request, to_quantize_options(options));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  ThreadPool pool(options.common.num_threads());
  if (options.dry_run) {
    NIBBLE_TRY(const QuantizePlan plan, plan_quantization(files, options.out.output, request, pool));
    const Status fits = check_fits(plan, request, options.out.output);
    if (!fits) attach_to_error("plan", nibble::to_json(plan));
    if (!options.common.json) {
      NIBBLE_RETURN_IF_ERROR(write_stdout(to_text(plan) + "\n"));
    } else if (fits) {
      NIBBLE_RETURN_IF_ERROR(write_json(nibble::to_json(plan)));
    }
    return fits;
  }
  NIBBLE_TRY(const QuantizeResult result, quantize_model(files, options.out.output, request, pool));
  for (const std::string& warning : result.warnings) warn_once(warning);
  if (!options.common.json) {
    report_quantization(result, options.out.output, options.method);
    return {};
  }
  Json json = {{"output", options.out.output}, {"method", options.method}};
  json.update(cli::to_json(result));
  json["peak_memory_bytes"] = peak_memory_bytes();
  json["warnings"] = warnings();
  return write_json(json);
}

Action define_quantize(CLI::App& app) {
  const auto options = std::make_shared<QuantizeArguments>();
  add_model_option(app, options->model);
  add_output_folder_options(app, options->out);
  add_choice(app, "--method", options->method, "How to quantize",
             {"gptq", "awq", "nf4", "fp4", "int8", "rtn"});
  add_choice(app, "--effort", options->effort,
             "gptq, awq: compat is the original algorithm; fast, default and best come closer to the float "
             "model in the same bytes",
             {"compat", "fast", "default", "best"});
  app.add_flag("--dry-run", options->dry_run, "Say what it would take, and stop");
  app.add_option("--max-memory", options->max_memory,
                 "Stay below this: 4G; activations go to disk if they must")
      ->type_name("SIZE");
  app.add_flag("--from-quantized", options->from_quantized,
               "Take a quantized model for what its codes stand for");
  app.add_flag("--no-check", options->no_check, "Do not compare the written model with the original");

  const std::string grid = "What the result is";
  add_integer(app, "--bits", options->bits, "Bits per weight (default 4)", 2, 8)->group(grid);
  add_integer(app, "--group-size", options->group_size, "Inputs that share a scale (default 128); -1 for all",
              -1, 1 << 20)
      ->group(grid);
  options->sym_option =
      app.add_flag("--sym,!--no-sym", options->sym, "Symmetric grids (default) or grids with zero points")
          ->group(grid);
  add_choice(app, "--format", options->format,
             "Layout on disk: gptq, gptq_v2, gptq_p; of AWQ: gemm, gemv, gemv_fast",
             {"gptq", "gptq_v2", "gptq_p", "gemm", "gemv", "gemv_fast"})
      ->group(grid);
  add_choice(app, "--for", options->engine,
             "Who will read it: limits are checked before the work, and a group size is chosen that fits",
             {"vllm", "transformers", "gptqmodel"})
      ->group(grid);
  app.add_option("--skip", options->skip, "Leave modules alone whose name contains this; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->group(grid);
  app.add_option(
         "--dynamic", options->dynamic,
         "Rules for modules, GPTQModel's way: '{\"-:.*down\": {}, \"+:.*q_proj\": {\"bits\": 8}}', or a file")
      ->type_name("JSON")
      ->group(grid);
  app.add_flag("--lm-head", options->lm_head,
               "Quantize the head too: 8 bits, groups of 32, as GPTQModel does")
      ->group(grid);
  app.add_flag("--double-quant", options->double_quant, "nf4, fp4: quantize the scales too")->group(grid);
  add_integer(app, "--blocksize", options->blocksize, "nf4, fp4: weights that share a scale (default 64)", 32,
              4096)
      ->group(grid);
  add_number(app, "--llm-int8-threshold", options->int8_threshold,
             "int8: larger inputs stay float (default 6)")
      ->group(grid);

  const std::string solver = "Solver";
  app.add_flag("--desc-act", options->desc_act, "Columns by falling activation")->group(solver);
  app.add_flag("--static-groups", options->static_groups, "compat: grids from the weights before any update")
      ->group(solver);
  app.add_flag("--no-act-group-aware", options->no_gar, "compat: columns in their natural order")
      ->group(solver);
  add_number(app, "--damp-percent", options->damp_percent,
             "Damping of the Hessian (default: by the tokens there are, 0.01 to 0.2; compat 0.05)")
      ->group(solver);
  add_number(app, "--mse", options->mse,
             "compat, rtn: exponent of the clip search, 2.4 is usual; 0 for none (default)")
      ->group(solver);
  app.add_flag("--signed-scales", options->signed_scales,
               "Symmetric groups may have a negative scale: closer, but not every reader has been tried")
      ->group(solver);

  const std::string data = "Calibration";
  app.add_option("--dataset", options->dataset,
                 "Text, .jsonl, or .safetensors with input_ids; FILE:num=N,FILE (default: built-in text)")
      ->type_name("FILES")
      ->group(data);
  add_integer(app, "--nsamples", options->nsamples, "Sequences (default 128)", 1, 1 << 20)->group(data);
  add_integer(app, "--seqlen", options->seqlen, "Tokens per sequence (default 2048)", 2, 1 << 20)
      ->group(data);
  add_integer(app, "--seed", options->seed, "Of the choice of text", 0, int64_t{1} << 53)->group(data);
  app.add_flag("--quick", options->quick, "32 sequences of 512 tokens")->group(data);
  add_choice(app, "--compute", options->compute, "Arithmetic of the calibration", {"auto", "f32"})
      ->group(data);
  add_common_options(app, options->common, "Print what was done as JSON");
  return [options] { return quantize(*options); };
}

}  // namespace

const Command kQuantizeCommand = {
    .name = "quantize",
    .summary =
        "Write a float model as a GPTQ, AWQ or bitsandbytes one. A run that was interrupted goes on with the "
        "same command",
    .examples =
        "  nibble quantize ./model -o ./model-gptq --bits 4 --group-size 128\n"
        "  nibble quantize ./model -o ./model-awq --method awq --dataset chats.jsonl:num=64,book.txt\n"
        "  nibble quantize ./model -o ./model-3bit --bits 3 --effort best --nsamples 64 --seqlen 512\n"
        "  nibble quantize ./model -o ./model-nf4 --method nf4 --double-quant\n"
        "  nibble quantize ./model -o ./model-gptq --for vllm --max-memory 4G --dry-run",
    .define = define_quantize,
};

}  // namespace nibble::cli
