#ifndef NIBBLE_MODELS_AUTO_MODEL_H_
#define NIBBLE_MODELS_AUTO_MODEL_H_

// From files to a model that runs, with the words of Transformers:
//
//   ThreadPool pool;
//   NIBBLE_TRY(const auto model, AutoModelForCausalLM::from_pretrained("org/name", {}, pool));

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "nibble/base/thread_pool.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/config/generation_config.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/config/quantization_config.h"
#include "nibble/models/causal_lm.h"

namespace nibble {

// Writes the float model of `files` into `folder` as a quantized one.
using CalibratedQuantizer = std::function<Status(const ModelFiles& files, const QuantizationConfig& config,
                                                 const std::filesystem::path& folder, ThreadPool& pool)>;

struct FromPretrainedOptions {
  std::string device_map = "auto";  // "auto", "cpu": there is no other device yet
  std::string dtype = "auto";       // of float weights: "auto" (as stored), "float32", "float16", "bfloat16"
  std::string attn_implementation = "sdpa";  // "eager": the plain reference; "flash_attention_2" = "sdpa"
  std::optional<QuantizationConfig> quantization_config = {};  // quantize while loading, or merge
  // For a GPTQConfig or AwqConfig on a float model: calibrate_while_loading() of pipeline/quantize.h. These
  // methods read calibration data and write through a temporary folder, which loading alone needs not.
  CalibratedQuantizer quantizer = nullptr;
  std::map<std::string, std::string> max_memory = {};  // {"cpu": "8GB"}
  std::string revision = {};
  ComputeMode compute = ComputeMode::kAuto;
  std::string backend = "auto";
  std::string kv_cache_type = "auto";  // "f32", "f16", "int8"; "auto": f16, but f32 where compute is kF32
  bool show_progress = false;
};

struct AutoModelForCausalLM {
  static Expected<std::unique_ptr<CausalLM>> from_pretrained(std::string_view model,
                                                             const FromPretrainedOptions& options,
                                                             ThreadPool& pool);
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_AUTO_MODEL_H_
