// `nibble bench`: speed and memory of models, next to what the machine can do, measured in this process.

#include <algorithm>
#include <charconv>
#include <memory>

#include "nibble/base/log.h"
#include "nibble/cli/command.h"
#include "nibble/cli/numa_placement.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/evaluation/speed_table.h"

namespace nibble::cli {
namespace {

struct BenchArguments {
  CommonOptions common;
  std::vector<std::string> models;
  std::string revision;
  LoadOptions load;
  WorkloadLists lists;
  std::vector<size_t> threads;
  std::optional<int64_t> repetitions;
  bool no_probe = false;
  std::string format = "md";
};

// "1,4,8": numbers from min to max, each one once.
std::string read_list(const std::string& text, size_t min, size_t max, std::vector<size_t>& values) {
  values.clear();
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    size_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    const bool ends = next == end;
    if (error != std::errc() || value < min || value > max || (!ends && *next != ',')) {
      return fmt::format("\"{}\" is not a list of whole numbers from {} to {}, with commas", text, min, max);
    }
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
    if (ends) return "";
    at = next + 1;
  }
}

void add_list(CLI::App& app, const std::string& names, std::vector<size_t>& values,
              const std::string& description, size_t min, size_t max) {
  app.add_option_function<std::string>(
         names, [](const std::string&) {}, description)
      ->type_name("N,...")
      ->check([&values, min, max](const std::string& text) { return read_list(text, min, max, values); }, "",
              "");
}

Expected<BenchOptions> to_bench_options(const BenchArguments& options) {
  BenchOptions bench;
  bench.workloads = all_workloads(options.lists);
  if (bench.workloads.empty()) {
    return fail(ErrorCode::kInvalidArgument, "-p 0 and -n 0 leave nothing to measure")
        .with_fix("Name a number of tokens for one of them.");
  }
  if (options.models.size() == 1) {
    const size_t most = options.threads.empty() ? 0 : *std::ranges::max_element(options.threads);
    bench.nodes = numa_placement({options.models.front(), options.revision}, most);
  }
  const size_t available = available_threads(bench.nodes);
  bench.threads = options.threads.empty() ? std::vector<size_t>{available} : options.threads;
  for (const size_t threads : bench.threads) {
    if (threads <= available) continue;
    warn("{} threads, but this process may use {}: they will wait for each other", threads, available);
  }
  if (options.repetitions) bench.repetitions = static_cast<size_t>(*options.repetitions);
  bench.probe_limits = !options.no_probe;
  if (options.load.ctx_size) bench.context = static_cast<size_t>(*options.load.ctx_size);
  return bench;
}

Status run_bench(const BenchArguments& options) {
  if (options.models.empty()) {
    return fail(ErrorCode::kInvalidArgument, "no MODEL was named")
        .with_fix("Name a folder, a name in the Hugging Face cache (org/name), or a .gguf file.");
  }
  NIBBLE_TRY(const FromPretrainedOptions load, options.load.to_from_pretrained(options.revision));
  NIBBLE_TRY(const BenchOptions bench, to_bench_options(options));
  for (const std::string& model : options.models) {
    NIBBLE_RETURN_IF_ERROR(offer_pull({model, options.revision}, options.common));
    NIBBLE_RETURN_IF_ERROR(check_model_context(model, load, bench));
  }
  std::vector<ModelBench> measured;
  for (const std::string& model : options.models) {
    NIBBLE_TRY(ModelBench one, bench_model(model, load, bench));
    measured.push_back(std::move(one));
  }
  if (options.common.json || options.format == "json") {
    Json json = {{"nibble", NIBBLE_VERSION}};
    json.update(bench_json(measured));
    json["warnings"] = warnings();
    return write_json(json);
  }
  return write_stdout(options.format == "csv" ? bench_csv(measured) : bench_markdown(measured));
}

Action define_bench(CLI::App& app) {
  constexpr size_t kMaxTokens = 1 << 24;
  const auto options = std::make_shared<BenchArguments>();
  app.add_option("MODEL,-m,--model", options->models,
                 "Folders, names in the Hugging Face cache (org/name), or .gguf files")
      ->type_name("MODEL");
  app.add_option("--revision", options->revision, "Branch, tag or commit of names without @revision")
      ->type_name("NAME");
  add_list(app, "-p,--n-prompt", options->lists.prompts, "Tokens of a prompt (default 512; 0: none)", 0,
           kMaxTokens);
  add_list(app, "-n,--n-gen", options->lists.generated, "Tokens to decode (default 128; 0: none)", 0,
           kMaxTokens);
  add_list(app, "-b,--batch", options->lists.batches, "Sequences that are decoded together (default 1)", 1,
           4096);
  add_list(app, "-d,--n-depth", options->lists.depths, "Tokens that the cache holds before (default 0)", 0,
           kMaxTokens);
  add_integer(app, "-r,--repetitions", options->repetitions, "Of each test, in turns (default 5)", 1, 1000);
  add_choice(app, "-o,--output", options->format, "Format", {"md", "csv", "json"}, {{"markdown", "md"}});
  app.add_flag("--no-probe", options->no_probe,
               "Do not measure what memory and arithmetic can do at most, for the shares of it");
  add_load_options(app, options->load);
  add_common_options(app, options->common, "The same as -o json");
  app.remove_option(app.get_option("--threads"));  // here it is a list
  add_list(app, "-t,--threads", options->threads, "Threads to compute with (default: all cores)", 1, 1024);
  return [options] { return run_bench(*options); };
}

}  // namespace

const Command kBenchCommand = {
    .name = "bench",
    .summary = "Measure prefill and decode of models, and their memory, next to the machine's limits",
    .examples =
        "  nibble bench ./model\n"
        "  nibble bench ./model-gptq ./model-awq -p 512 -n 128 -b 1,4,8 -d 0,4096 -t 1,2 -o csv",
    .define = define_bench,
};

}  // namespace nibble::cli
