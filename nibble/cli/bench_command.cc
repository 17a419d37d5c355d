// `nibble bench`: speed and memory of one model, measured in this process.

#include <memory>

#include "nibble/base/memory.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/cli/pull_model.h"
#include "nibble/evaluation/speed.h"

namespace nibble::cli {
namespace {

struct Options {
  CommonOptions common;
  ModelOption model;
  LoadOptions load;
  std::optional<int64_t> prompt, generated;
};

Status bench(const Options& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  NIBBLE_RETURN_IF_ERROR(offer_pull(options.model, options.common));
  NIBBLE_TRY(const FromPretrainedOptions load, options.load.to_from_pretrained(options.model.revision));
  SpeedOptions speed;
  if (options.prompt) speed.prompt_tokens = static_cast<size_t>(*options.prompt);
  if (options.generated) speed.generated_tokens = static_cast<size_t>(*options.generated);
  ThreadPool pool(options.common.num_threads());
  NIBBLE_TRY(const SpeedSample sample, measure_speed(options.model.model, load, speed, pool));
  if (options.common.json) {
    Json json = {{"model", options.model.model},
                 {"compute", options.load.compute},
                 {"threads", pool.num_threads()},
                 {"prompt_tokens", speed.prompt_tokens},
                 {"generated_tokens", speed.generated_tokens}};
    json.update(to_json(sample));
    return write_json(json);
  }
  return write_stdout(fmt::format(
      "load {:.2f} s\nprefill {} tokens: {:.1f} tok/s\ndecode {} tokens: {:.1f} tok/s\n"
      "weights {}, peak memory {}\nkernels: {} (--compute {}, {} threads)\n",
      sample.load_seconds, speed.prompt_tokens, sample.prefill_tokens_per_second, speed.generated_tokens,
      sample.decode_tokens_per_second, human_bytes(sample.weight_bytes),
      human_bytes(sample.peak_memory_bytes), sample.kernels, options.load.compute, pool.num_threads()));
}

Action define(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  add_model_option(app, options->model);
  add_integer(app, "-p,--n-prompt", options->prompt, "Tokens of the prompt (default 512)", 1, 1 << 24);
  add_integer(app, "-n,--n-gen", options->generated, "Tokens to decode (default 64)", 1, 1 << 24);
  add_load_options(app, options->load);
  add_common_options(app, options->common, "Print the figures as JSON");
  return [options] { return bench(*options); };
}

}  // namespace

const Command kBenchCommand = {
    .name = "bench",
    .summary = "Measure load, prefill and decode of a model, and its memory",
    .examples =
        "  nibble bench ./model\n"
        "  nibble bench ./model -p 512 -n 128 -t 1 --json",
    .define = define,
};

}  // namespace nibble::cli
