#ifndef NIBBLE_PIPELINE_QUANTIZE_H_
#define NIBBLE_PIPELINE_QUANTIZE_H_

// A float checkpoint becomes a GPTQ, AWQ or bitsandbytes one, written as a folder that Transformers,
// GPTQModel, AutoAWQ and bitsandbytes load. The run can be killed at any moment and goes on with the
// same call (run_folder.h); its bytes do not depend on the number of threads or on such interruptions.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nibble/calibration/dataset.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/config/quantization_config.h"
#include "nibble/nn/linear.h"
#include "nibble/pipeline/plan.h"
#include "nibble/quantizers/gptq_settings.h"

namespace nibble {

// One row of quant_log.csv.
struct QuantizedModule {
  std::string module;
  size_t out_features = 0;
  size_t in_features = 0;
  int bits = 0;
  int64_t group_size = 0;  // -1: all inputs
  double loss = 0.0;       // of the layer's output on the calibration data, relative
  double damp = 0.0;
  size_t tokens = 0;  // that it was calibrated with; 0: none
  double seconds = 0.0;
  std::string note;  // "rounded to nearest: ...", "scale ratio 0.35"

  bool operator==(const QuantizedModule&) const = default;
};

// The written model beside the original one, on text that neither calibration nor the test sets hold.
struct SanityCheck {
  double kl = 0.0;              // mean KL(original || quantized) of the next token, in nats
  double top1_agreement = 0.0;  // share of positions whose most likely token is the same
  double perplexity = 0.0;      // of the original
  double perplexity_after = 0.0;
  size_t tokens = 0;

  // Something is wrong with the model, more than few bits can explain.
  bool broken() const { return !(kl <= 1.0 && top1_agreement >= 0.5); }
};

// Bytes of the written tensors by what they are for.
struct WrittenBytes {
  size_t linear = 0;  // codes, scales, zero points, biases
  size_t embedding = 0;
  size_t head = 0;
  size_t norm = 0;
  double bits_per_weight = 0.0;  // of the quantized linear layers, all their tensors counted

  size_t total() const { return linear + embedding + head + norm; }
};

struct QuantizeResult {
  QuantizePlan plan;
  bool was_finished = false;             // this very model stood there already: nothing was done
  size_t resumed_modules = 0;            // that an earlier, interrupted run had finished
  std::vector<QuantizedModule> modules;  // empty for bitsandbytes
  std::vector<std::string> warnings;
  size_t calibration_tokens = 0;
  WrittenBytes bytes;
  std::optional<SanityCheck> check;
  double seconds = 0.0;
};

// What it would take, from headers and the calibration data alone; nothing is written.
Expected<QuantizePlan> plan_quantization(const ModelFiles& files, const std::filesystem::path& folder,
                                         const QuantizeOptions& options, ThreadPool& pool);

// kOutOfMemory where the plan does not fit (exit status 3); kCancelled after Ctrl-C. Errors leave what is
// finished in `folder`, and their fix says how to go on.
Expected<QuantizeResult> quantize_model(const ModelFiles& files, const std::filesystem::path& folder,
                                        const QuantizeOptions& options, ThreadPool& pool);

// For FromPretrainedOptions::quantizer: GPTQConfig (with its `dataset`) and AwqConfig with the default
// effort, 128 sequences of up to 2048 tokens.
//
//   AutoModelForCausalLM::from_pretrained(
//       "org/name", {.quantization_config = GPTQConfig{.bits = 4, .dataset = "chats.jsonl"},
//                    .quantizer = calibrate_while_loading}, pool);
Status calibrate_while_loading(const ModelFiles& files, const QuantizationConfig& config,
                               const std::filesystem::path& folder, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_QUANTIZE_H_
