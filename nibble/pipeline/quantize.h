#ifndef NIBBLE_PIPELINE_QUANTIZE_H_
#define NIBBLE_PIPELINE_QUANTIZE_H_

// A float checkpoint becomes a GPTQ, AWQ or bitsandbytes one, written as a folder that Transformers,
// GPTQModel, AutoAWQ and vLLM load.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nibble/calibration/dataset.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/config/quantization_config.h"
#include "nibble/nn/linear.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

struct QuantizeOptions {
  // What config.json of the result will say: bits, group_size, sym, desc_act, damp_percent, dynamic...
  QuantizationConfig config = GPTQConfig{};
  Effort effort = Effort::kDefault;
  bool round_to_nearest = false;  // no calibration, whatever the method
  double mse = 0.0;               // exponent of the clip search of plain rounding and of compat
  std::vector<DataSource> dataset = {};
  DatasetOptions data = {};
  ComputeMode compute = ComputeMode::kAuto;  // kF32: calibration in float32
  size_t max_shard_size = 5'000'000'000;
  bool show_progress = false;
};

// One row of the log.
struct QuantizedModule {
  std::string module;
  size_t out_features = 0;
  size_t in_features = 0;
  int bits = 0;
  double loss = 0.0;  // of the layer's output, relative
  double damp = 0.0;
  size_t tokens = 0;  // that it was calibrated with
  double seconds = 0.0;
  bool rounded_to_nearest = false;
};

struct QuantizeResult {
  std::vector<QuantizedModule> modules;  // empty for bitsandbytes
  std::vector<std::string> warnings;
  size_t calibration_tokens = 0;
  double seconds = 0.0;
};

// `folder` exists and may be written to. config.json comes last.
Expected<QuantizeResult> quantize_model(const ModelFiles& files, const std::filesystem::path& folder,
                                        const QuantizeOptions& options, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_QUANTIZE_H_
