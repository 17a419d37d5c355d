// `nibble eval`: how good one model is on a text, alone or beside a reference.

#include <memory>

#include "nibble/base/log.h"
#include "nibble/cli/command.h"
#include "nibble/cli/evaluation_options.h"
#include "nibble/cli/numa_placement.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/evaluation/layer_comparison.h"
#include "nibble/evaluation/quality.h"
#include "nibble/evaluation/score_text.h"

namespace nibble::cli {
namespace {

constexpr size_t kDefaultTokens = 0;  // all of the text

struct EvalArguments {
  CommonOptions common;
  ModelOption model;
  LoadOptions load;
  TextOptions text;
  std::string reference;
  std::string reference_compute;  // empty: as the model
  std::string tasks;
  std::optional<int64_t> layer_tokens;
  bool layers = false;
};

std::string interval_text(const Interval& interval, int digits) {
  if (std::isnan(interval.low)) return fmt::format("{:.{}f}", interval.value, digits);
  return fmt::format("{:.{}f}  ({:.{}f} to {:.{}f})", interval.value, digits, interval.low, digits,
                     interval.high, digits);
}

std::string quality_text(const Quality& quality, const TextWindows& text, double confidence) {
  std::string out =
      fmt::format("{}: {} tokens scored, {} windows of {}, stride {}, {} BOS; {:.0f} % intervals\n",
                  text.name, text.positions, text.windows.size(), text.window, text.stride,
                  text.bos ? "with" : "without", 100 * confidence);
  const auto line = [&](std::string_view name, const std::string& value) {
    out += fmt::format("  {:<22}{}\n", name, value);
  };
  line("perplexity per token", interval_text(quality.perplexity, 4));
  line("bits per byte", interval_text(quality.bits_per_byte, 5));
  line("perplexity per word", interval_text(quality.word_perplexity, 3));
  line("nll", fmt::format("{:.6f} ± {:.6f}", quality.nll.value, quality.nll_standard_error));
  if (!quality.divergence) return out;
  const Divergence& d = *quality.divergence;
  out += "beside the reference\n";
  line("KL", interval_text(d.kl, 6));
  line("KL median, 90 %, 99 %",
       fmt::format("{:.6f}  {:.6f}  {:.6f}", d.kl_median.value, d.kl_p90.value, d.kl_p99.value));
  line("KL 99.9 %, largest", fmt::format("{:.4f}  {:.4f}", d.kl_p999.value, d.kl_max));
  line("same top token", interval_text(d.top1_agreement, 4));
  line("top-5 overlap", interval_text(d.top5_overlap, 4));
  line("change of log p", interval_text(d.delta_logprob, 5));
  line("RMS change of p", interval_text(d.rms_delta_prob, 5));
  return out;
}

std::string layers_text(const LayerComparison& comparison) {
  std::string out = "layer   error    cosine    adds most\n";
  double largest = 0.0;
  for (const LayerDifference& layer : comparison.layers) largest = std::max(largest, layer.relative_error);
  for (const LayerDifference& layer : comparison.layers) {
    const auto bar = static_cast<size_t>(largest > 0 ? 20 * layer.relative_error / largest : 0);
    const LinearDifference* const worst = layer.worst();
    out += fmt::format("{:>5}  {:>7.4f}  {:.6f}  {:<20}  {}\n", layer.layer, layer.relative_error,
                       layer.cosine, std::string(bar, '#'),
                       worst != nullptr ? fmt::format("{} {:.4f}", worst->module, worst->added()) : "");
  }
  out += comparison.damaged.empty() ? "No linear stands out from those of its kind.\n"
                                    : fmt::format("Damaged: {}\n", comparison.damaged);
  return out;
}

Status evaluate(const EvalArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_RETURN_IF_ERROR(options.text.check());
  if (options.layers && options.reference.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--layers needs a model to compare with")
        .with_fix("Name it with --reference.");
  }
  NIBBLE_TRY(const auto named_text, options.text.read());
  const auto& [text, name] = named_text;
  NIBBLE_TRY(const std::vector<Question> questions, read_questions(options.tasks));
  NIBBLE_TRY(const FromPretrainedOptions load, options.load.to_from_pretrained(options.model.revision));
  NIBBLE_TRY(const ModelFiles files, find_model(options.model.model, options.model.revision));
  const size_t threads = options.common.num_threads();
  ThreadPool pool(threads, numa_placement(options.model, threads));
  NIBBLE_TRY(const auto model, AutoModelForCausalLM::from_pretrained(options.model.model, load, pool));
  NIBBLE_TRY(const TextWindows windows,
             cut_text(text, name, options.text.protocol(kDefaultTokens), files, model->config()));
  std::unique_ptr<CausalLM> reference;
  std::optional<ReferenceModel> yardstick;
  if (!options.reference.empty()) {
    FromPretrainedOptions plain;
    plain.compute = options.reference_compute.empty()    ? load.compute
                    : options.reference_compute == "f32" ? ComputeMode::kF32
                                                         : ComputeMode::kAuto;
    NIBBLE_TRY(reference, AutoModelForCausalLM::from_pretrained(options.reference, plain, pool));
    yardstick.emplace(ReferenceModel{*reference, {}});
  }
  NIBBLE_TRY(const TokenScores scores,
             at(options.model.model,
                score_text(*model, yardstick ? &*yardstick : nullptr, windows, "scoring", pool)));
  const double level = options.text.level();
  const Quality quality = summarize(scores, windows, level);
  Json json = {{"model", options.model.model},
               {"reference", options.reference.empty() ? Json(nullptr) : Json(options.reference)},
               {"compute", options.load.compute},
               {"kernels", model->kernels()},
               {"protocol", to_json(windows)},
               {"confidence", level},
               {"quality", to_json(quality)}};
  std::string page = quality_text(quality, windows, level);
  if (reference != nullptr) {
    const bool identical = is_identical(scores);
    json["identical_to_reference"] = identical;
    if (identical) page += "Identical to the reference at every position.\n";
  }
  if (options.layers) {
    const auto tokens = static_cast<size_t>(options.layer_tokens.value_or(kLayerTokens));
    NIBBLE_TRY(const LayerComparison layers, compare_layers(*reference, *model, windows, tokens, pool));
    json["layers"] = to_json(layers);
    json["damaged_linear"] = layers.damaged.empty() ? Json(nullptr) : Json(layers.damaged);
    page += layers_text(layers);
  }
  if (!questions.empty()) {
    NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_files(files));
    NIBBLE_TRY(const ChoiceResult result,
               answer_questions(*model, tokenizer, questions, level, "questions", pool));
    json["tasks"] = to_json(result);
    page += fmt::format("{} questions: acc {}, acc_norm {}\n", questions.size(), interval_text(result.acc, 3),
                        interval_text(result.acc_norm, 3));
  }
  page += fmt::format("arithmetic: --compute {}\n", options.load.compute);
  json["warnings"] = warnings();
  return options.common.json ? write_json(json) : write_stdout(page);
}

Action define_eval(CLI::App& app) {
  const auto options = std::make_shared<EvalArguments>();
  add_model_option(app, options->model);
  app.add_option("--reference", options->reference,
                 "Compare with this model on the same tokens: KL divergence, agreement")
      ->type_name("MODEL");
  add_choice(app, "--reference-compute", options->reference_compute,
             "Arithmetic of the reference (default: that of --compute)", {"f32", "auto"});
  app.add_flag("--layers", options->layers, "Show where the model leaves the reference, block by block");
  add_integer(app, "--layer-tokens", options->layer_tokens, "Tokens for --layers (default 1024)", 1, 1 << 20);
  app.add_option(
         "--tasks", options->tasks,
         "Multiple-choice questions, JSONL: {\"prompt\", \"choices\", \"answer\"}; default: 24 built-in ones")
      ->type_name("FILE");
  add_text_options(app, options->text, "all");
  add_load_options(app, options->load);
  add_common_options(app, options->common, "Print all figures as JSON");
  return [options] { return evaluate(*options); };
}

}  // namespace

const Command kEvalCommand = {
    .name = "eval",
    .summary = "Perplexity of a model on a text, and its distance from a reference model",
    .examples =
        "  nibble eval ./model\n"
        "  nibble eval ./model --text wiki.test.raw --window 512 --compute f32 --json\n"
        "  nibble eval ./model-gptq --reference ./model --layers\n"
        "  nibble eval ./model-gptq --compute auto --reference ./model-gptq --reference-compute f32\n"
        "  nibble eval ./model --quantize nf4 --reference ./model --tasks questions.jsonl",
    .define = define_eval,
};

}  // namespace nibble::cli
