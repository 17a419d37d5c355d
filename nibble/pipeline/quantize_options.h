#ifndef NIBBLE_PIPELINE_QUANTIZE_OPTIONS_H_
#define NIBBLE_PIPELINE_QUANTIZE_OPTIONS_H_

// What a quantization is asked for.

#include <optional>
#include <vector>

#include "nibble/calibration/dataset.h"
#include "nibble/config/engine_limits.h"
#include "nibble/config/quantization_config.h"
#include "nibble/nn/linear.h"
#include "nibble/quantizers/feedback_solver.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

struct QuantizeOptions {
  // What config.json of the result will say: bits, group_size, sym, desc_act, damp_percent, dynamic,
  // lm_head, version...
  QuantizationConfig config = GPTQConfig{};
  // Takes the largest usual group size up to that of `config` that every layer (and `engine`) can have.
  bool fit_group_size = false;
  std::optional<Engine> engine = {};  // that is to read the result: its limits are checked first
  // Of GPTQ files; AWQ files are AutoAWQ's algorithm with kCompat, and otherwise the same solver as GPTQ's.
  Effort effort = Effort::kDefault;
  std::optional<SolverSteps> solver = {};  // instead of those of `effort`: to measure single steps
  bool round_to_nearest = false;           // no calibration, whatever the method
  double mse = 0.0;                        // exponent of the clip search of plain rounding and of compat
  // Damping of the solver's Hessians, relative to their mean diagonal (0.01 is 1 %). Nothing: by the tokens
  // that were seen (damping_for()). kCompat takes what the config says.
  std::optional<double> damp_percent = {};
  bool signed_scales = false;  // symmetric groups may have a negative scale
  size_t bnb_blocksize = 64;   // nf4, fp4: weights that share an absmax

  std::vector<DataSource> dataset = {};
  DatasetOptions data = {};
  ComputeMode compute = ComputeMode::kAuto;  // kF32: calibration in float32

  bool from_quantized = false;  // the model may be a quantized one: its codes are decoded first
  bool overwrite = false;       // what is in the folder is replaced
  size_t max_memory = 0;        // bytes that may be resident; 0: what the machine has
  size_t max_shard_size = 5'000'000'000;
  bool check = true;             // compare the written model with the original in the end
  double snapshot_seconds = 60;  // at most so much work is done again after a kill, beside the block's own
  bool show_progress = false;    // the plan, progress and the summary on stderr
};

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_QUANTIZE_OPTIONS_H_
