// What each step of the solver gives and costs: one model, one setting, the steps switched on one after the
// other. Prints a table in Markdown.
//
//   build/release/bench/solver_steps MODEL [BITS] [GROUP_SIZE] [CALIBRATION.safetensors]
//
// KL is the mean over 16,384 tokens of the built-in evaluation text in windows of 512, float32.

#include <cstdio>
#include <cstdlib>
#include <string>

#include <fmt/format.h>

#include "nibble/base/temporary_folder.h"
#include "nibble/evaluation/quality.h"
#include "nibble/evaluation/score_text.h"
#include "nibble/models/auto_model.h"
#include "nibble/pipeline/quantize.h"

namespace nibble {
namespace {

struct Rung {
  const char* name;
  bool round_to_nearest;
  Effort effort;  // kFast: the plain target; kDefault: the corrected one
  std::optional<SolverSteps> steps;
};

const Rung kLadder[] = {
    {"round to nearest", true, Effort::kFast, {}},
    {"GPTQ as the original (`compat`)", false, Effort::kCompat, {}},
    {"error feedback, grid from the largest weight", false, Effort::kFast, SolverSteps{1, 1, 0, 0}},
    {"+ 24 scales, cheap score", false, Effort::kFast, SolverSteps{24, 1, 0, 0}},
    {"+ feedback of the best 6 simulated", false, Effort::kFast, SolverSteps{24, 6, 0, 0}},
    {"+ one round of scales and codes", false, Effort::kFast, SolverSteps{24, 6, 1, 0}},
    {"+ a second round (`fast`)", false, Effort::kFast, SolverSteps{24, 6, 2, 0}},
    {"+ corrected target (`default`)", false, Effort::kDefault, SolverSteps{24, 6, 2, 0}},
    {"+ 12 simulated", false, Effort::kDefault, SolverSteps{24, 12, 2, 0}},
    {"+ groups chosen again, twice (`best`)", false, Effort::kBest, SolverSteps{24, 12, 2, 2}},
};

Status print_ladder(const std::string& model, int bits, int64_t group_size, const std::string& tokens) {
  ThreadPool pool;
  NIBBLE_TRY(const ModelFiles files, find_model(model));
  FromPretrainedOptions load;
  load.compute = ComputeMode::kF32;
  NIBBLE_TRY(const auto reference, AutoModelForCausalLM::from_pretrained(model, load, pool));
  TextProtocol protocol;
  protocol.window = 512;
  protocol.max_tokens = 16384;
  protocol.bos = false;
  NIBBLE_TRY(const TextWindows text,
             cut_text(default_evaluation_text(), "WikiText-2", protocol, files, reference->config()));
  NIBBLE_TRY(const TemporaryFolder work, TemporaryFolder::create());
  const ReferenceModel yardstick = {*reference, work.path() / "reference"};
  std::puts("| step | KL | seconds |\n| --- | --- | --- |");
  for (const Rung& rung : kLadder) {
    GPTQConfig config;
    config.bits = bits;
    config.group_size = group_size;
    config.act_group_aware = !rung.round_to_nearest && group_size > 0;
    config.damp_percent = 0.05;  // of compat; the solver's own is chosen by the number of tokens
    config.checkpoint_format = "gptq";
    QuantizeOptions options;
    options.config = config;
    options.effort = rung.effort;
    options.solver = rung.steps;
    options.round_to_nearest = rung.round_to_nearest;
    options.check = false;
    options.overwrite = true;
    if (!tokens.empty()) options.dataset = {{tokens, {}}};
    options.data.num_samples = 64;
    options.data.sequence_length = 512;
    const auto folder = work.path() / "model";
    NIBBLE_TRY(const QuantizeResult result, quantize_model(files, folder, options, pool));
    NIBBLE_TRY(const auto quantized, AutoModelForCausalLM::from_pretrained(folder.string(), load, pool));
    NIBBLE_TRY(const TokenScores scores, score_text(*quantized, &yardstick, text, "", pool));
    const Quality quality = summarize(scores, text, 0.95);
    std::puts(fmt::format("| {} | {:.6f} | {:.1f} |", rung.name, quality.divergence->kl.value, result.seconds)
                  .c_str());
    std::fflush(stdout);
  }
  return {};
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  if (argc < 2 || argc > 5) {
    std::fputs("usage: solver_steps MODEL [BITS] [GROUP_SIZE] [CALIBRATION.safetensors]\n", stderr);
    return 2;
  }
  const int bits = argc > 2 ? std::atoi(argv[2]) : 4;
  const int64_t group_size = argc > 3 ? std::atoll(argv[3]) : 128;
  const nibble::Status status = nibble::print_ladder(argv[1], bits, group_size, argc > 4 ? argv[4] : "");
  if (status) return 0;
  std::fputs(("error: " + nibble::to_string(status.error()) + "\n").c_str(), stderr);
  return 1;
}
