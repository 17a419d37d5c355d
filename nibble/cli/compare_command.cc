// `nibble compare`: every method on one model, measured here, and which one to take.

#include <filesystem>
#include <memory>

#include "nibble/base/atomic_file.h"
#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/memory.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/cli/child_process.h"
#include "nibble/cli/command.h"
#include "nibble/cli/evaluation_options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/evaluation/compare.h"
#include "nibble/report/report.h"

namespace nibble::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kTokens = 32768;
constexpr size_t kSamples = 64;  // of calibration
constexpr size_t kSampleLength = 512;
constexpr size_t kRounds = 3;

// --quick: a look, in a few minutes.
constexpr size_t kQuickTokens = 8192;
constexpr size_t kQuickSamples = 24;

constexpr const char* kPrompts[] = {"What is the capital of France, and what is it known for?",
                                    "Explain in two sentences why the sky is blue.",
                                    "Write a short story about a robot who learns to paint."};

struct CompareArguments {
  CommonOptions common;
  std::vector<std::string> models;
  std::string revision, methods = std::string(kDefaultMethods), reference, workdir;
  TextOptions text;
  std::string compute = "auto";
  std::string dataset, tasks = "default";
  std::optional<int64_t> nsamples, seqlen, seed, rounds;
  std::vector<std::string> prompts;
  std::string max_memory, prefer = "balanced";
  std::optional<double> min_speed, max_kl;
  bool no_layers = false, no_speed = false, quick = false;
};

std::string quoted(const std::string& word) {
  const bool plain = !word.empty() && word.find_first_not_of(
                                          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789-_./:,=+@%") == std::string::npos;
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// As it was typed, for the report.
std::string typed_command() {
  const auto text = read_text_file("/proc/self/cmdline");
  std::string command = "nibble";
  if (!text) return command;
  size_t begin = text->find('\0');
  while (begin != std::string::npos && begin + 1 < text->size()) {
    const size_t end = text->find('\0', begin + 1);
    command += " " + quoted(text->substr(begin + 1, end - begin - 1));
    begin = end;
  }
  return command;
}

fs::path default_workdir(const std::string& model) {
  std::string name = last_name(model);
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  return "compare-" + name;
}

Expected<Limits> limits_of(const CompareArguments& options) {
  Limits limits;
  if (!options.max_memory.empty()) {
    NIBBLE_TRY(limits.max_memory, at("--max-memory", parse_bytes(options.max_memory)));
  }
  limits.min_speed = options.min_speed.value_or(0.0);
  limits.max_kl = options.max_kl.value_or(0.0);
  NIBBLE_TRY(limits.prefer, preference_from_name(options.prefer));
  if (options.no_speed && limits.min_speed > 0) {
    return fail(ErrorCode::kInvalidArgument, "--min-speed needs the speed that --no-speed leaves out")
        .with_fix("Use one of them.");
  }
  return limits;
}

Expected<CompareOptions> to_compare_options(const CompareArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.text.check());
  CompareOptions out;
  out.models = options.models;
  for (std::string& model : out.models) model = with_revision(model, options.revision);
  NIBBLE_TRY(out.methods, parse_methods(options.methods));
  out.reference = options.reference;
  out.workdir = options.workdir.empty() ? default_workdir(options.models.front()) : fs::path(options.workdir);
  NIBBLE_TRY(auto text, options.text.read());
  std::tie(out.text, out.text_name) = std::move(text);
  out.protocol = options.text.protocol(options.quick ? kQuickTokens : kTokens);
  out.compute = options.compute == "f32" ? ComputeMode::kF32 : ComputeMode::kAuto;
  out.confidence = options.text.level();
  if (!options.dataset.empty()) {
    NIBBLE_TRY(out.dataset, parse_dataset(options.dataset));
  }
  out.data.num_samples = static_cast<size_t>(
      options.nsamples.value_or(static_cast<int64_t>(options.quick ? kQuickSamples : kSamples)));
  out.data.sequence_length = static_cast<size_t>(options.seqlen.value_or(int64_t{kSampleLength}));
  out.data.seed = static_cast<uint64_t>(options.seed.value_or(0));
  NIBBLE_TRY(out.questions, read_questions(options.tasks == "none" ? "" : options.tasks));
  out.prompts = options.prompts;
  if (out.prompts.empty()) out.prompts.assign(std::begin(kPrompts), std::end(kPrompts));
  out.layer_tokens = options.no_layers ? 0 : kLayerTokens;
  out.speed_rounds =
      options.no_speed
          ? 0
          : static_cast<size_t>(options.rounds.value_or(options.quick ? int64_t{1} : int64_t{kRounds}));
  NIBBLE_TRY(out.limits, limits_of(options));
  out.command = typed_command();
  out.show_progress = !options.common.quiet;
  const std::string threads = options.common.threads ? std::to_string(*options.common.threads) : "";
  const std::string compute = options.compute;
  out.measure_speed = [threads, compute](const std::string& model,
                                         const SpeedOptions& speed) -> Expected<SpeedSample> {
    std::vector<std::string> arguments = {"bench",     model,
                                          "-p",        std::to_string(speed.prompt_tokens),
                                          "-n",        std::to_string(speed.generated_tokens),
                                          "-r",        "1",
                                          "--compute", compute,
                                          "--json",    "--no-probe",
                                          "-q"};
    if (!threads.empty()) arguments.insert(arguments.end(), {"-t", threads});
    NIBBLE_TRY(const std::string said, run_self(arguments));
    NIBBLE_TRY(const Json json, parse_json(said));
    return speed_sample_from_json(json);
  };
  return out;
}

Status write_reports(const Json& report, const fs::path& folder) {
  NIBBLE_RETURN_IF_ERROR(check_report(report));
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "report.json", dump_json(report) + "\n"));
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "report.md", render_markdown(report)));
  return write_file(folder / "report.html", render_html(report));
}

Status run_compare(const CompareArguments& options) {
  if (options.models.empty()) {
    return fail(ErrorCode::kInvalidArgument, "no MODEL was named")
        .with_fix("Name a float model, or several checkpoints of one.");
  }
  for (const std::string& model : options.models) {
    NIBBLE_RETURN_IF_ERROR(offer_pull({model, options.revision}, options.common));
  }
  NIBBLE_TRY(const CompareOptions request, to_compare_options(options));
  ThreadPool pool(options.common.num_threads());
  NIBBLE_TRY(Json report, compare(request, pool));
  report["warnings"] = warnings();
  NIBBLE_RETURN_IF_ERROR(write_reports(report, request.workdir));
  if (options.common.json) return write_json(report);
  NIBBLE_RETURN_IF_ERROR(write_stdout(render_table(report, terminal_columns(), stdout_has_color())));
  return write_stdout(fmt::format("\nThe page: {}\n", (request.workdir / "report.html").string()));
}

Action define_compare(CLI::App& app) {
  const auto options = std::make_shared<CompareArguments>();
  app.add_option("MODEL,-m,--model", options->models,
                 "A float model, which is quantized by --methods; or several checkpoints of one base model")
      ->type_name("MODEL...");
  app.add_option("--revision", options->revision, "Branch, tag or commit of names without @revision")
      ->type_name("NAME");
  app.add_option("--methods", options->methods,
                 "float, nf4, nf4-dq, fp4, fp4-dq, int8, and gptq, awq or rtn[:BITS[:GROUP_SIZE[:EFFORT]]] "
                 "(default " +
                     std::string(kDefaultMethods) + ")")
      ->type_name("LIST");
  app.add_option("--reference", options->reference,
                 "Of several models: the one that others are compared with (default: the first float one)")
      ->type_name("MODEL");
  app.add_option("-o,--workdir", options->workdir,
                 "Models, measurements and report; what is there is not done again (default compare-NAME)")
      ->type_name("DIR");
  app.add_flag("--quick", options->quick, "A look: less text, less calibration, speed measured once");
  add_choice(app, "--compute", options->compute, "Arithmetic: the fastest, or as the originals",
             {"auto", "f32"});
  app.add_option("--tasks", options->tasks,
                 "Multiple-choice questions, JSONL; default: 24 built-in ones; none")
      ->type_name("FILE");
  app.add_option("--prompt", options->prompts,
                 "Show answers to this; may be repeated (default: three prompts)")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  app.add_flag("--no-layers", options->no_layers, "Do not look at the models layer by layer");
  app.add_flag("--no-speed", options->no_speed, "Do not measure speed and memory");
  add_integer(app, "--rounds", options->rounds, "How often speed is measured, in turns (default 3)", 1, 1000);

  const std::string limits = "What you need";
  app.add_option("--max-memory", options->max_memory, "Peak memory while it runs: 2GB")
      ->type_name("SIZE")
      ->group(limits);
  add_number(app, "--min-speed", options->min_speed, "Decoded tokens per second")->group(limits);
  add_number(app, "--max-kl", options->max_kl, "Mean KL divergence from the reference, in nats")
      ->group(limits);
  add_choice(app, "--prefer", options->prefer, "What decides between those that keep the limits",
             {"balanced", "quality", "speed", "size"})
      ->group(limits);

  add_text_options(app, options->text, std::to_string(kTokens));
  const std::string data = "Calibration";
  app.add_option("--dataset", options->dataset, "As of nibble quantize (default: built-in text)")
      ->type_name("FILES")
      ->group(data);
  add_integer(app, "--nsamples", options->nsamples, "Sequences (default 64)", 1, 1 << 20)->group(data);
  add_integer(app, "--seqlen", options->seqlen, "Tokens per sequence (default 512)", 2, 1 << 20)->group(data);
  add_integer(app, "--seed", options->seed, "Of the choice of text", 0, int64_t{1} << 53)->group(data);
  add_common_options(app, options->common, "Print the report as JSON");
  return [options] { return run_compare(*options); };
}

}  // namespace

const Command kCompareCommand = {
    .name = "compare",
    .summary = "Quantize a model with every method, measure all here, and say which one to take",
    .examples =
        "  nibble compare ./model\n"
        "  nibble compare ./model --methods gptq:4:128,gptq:3:64:best,awq,nf4 --max-memory 2GB\n"
        "  nibble compare ./model ./model-gptq ./model-awq model-q4_0.gguf -o report\n"
        "  nibble compare ./model --quick --prefer size --json",
    .define = define_compare,
};

}  // namespace nibble::cli
