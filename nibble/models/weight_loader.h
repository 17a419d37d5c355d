#ifndef NIBBLE_MODELS_WEIGHT_LOADER_H_
#define NIBBLE_MODELS_WEIGHT_LOADER_H_

// Reads the modules of a checkpoint into layers, a batch at a time, so that loading peaks at the
// model and a block's codes, not at two models.

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/progress.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/config/quantization_config.h"
#include "nibble/models/causal_lm.h"
#include "nibble/models/module_slots.h"
#include "nibble/nn/linear.h"
#include "nibble/nn/norm.h"

namespace nibble {

// A linear layer to be loaded, and where it goes.
struct LinearRequest {
  std::string module;
  std::unique_ptr<Linear>* target;
  ActivationBits activations = ActivationBits::k8;
};

class WeightLoader {
 public:
  struct Options {
    LinearOptions linear;
    std::optional<DType> dtype;  // of float weights; nothing: as stored
    bool norm_adds_one = false;
    bool decode_in_parallel = true;  // false where decoding a module uses the pool itself
    bool show_progress = false;
  };

  WeightLoader(std::shared_ptr<const Checkpoint> checkpoint, const std::vector<ModuleSlot>& slots,
               std::set<std::string> quantized, const std::optional<QuantizationConfig>& config,
               Options options, ThreadPool& pool);

  Status linears(const std::vector<LinearRequest>& requests);
  Expected<std::unique_ptr<Norm>> norm(std::string_view module, NormKind kind, float eps);
  Expected<std::vector<float>> values(const std::string& tensor);        // of a short one
  Expected<std::vector<float>> input_scales(const std::string& module);  // ModuleSlot::input_scales; or empty
  Expected<Tensor> embedding(std::string_view module);
  // The head, whose weight is that of the module `weight_of`: its own, or the embedding's. Of a quantized
  // model in ComputeMode::kAuto a float head is kept in 8 bits, since it would be half of what a token reads;
  // not with LLM.int8.
  Expected<std::unique_ptr<Linear>> head(const std::string& module, const std::string& weight_of);

  const WeightBytes& bytes() const { return bytes_; }
  size_t num_parameters() const { return num_parameters_; }

 private:
  const ModuleSlot& slot(std::string_view module) const;
  Status decode_and_pack(std::span<const LinearRequest> requests);
  Expected<Tensor> float_weight(const std::string& module);
  Expected<std::vector<float>> bias(const std::string& module);

  const std::shared_ptr<const Checkpoint> checkpoint_;
  std::map<std::string, ModuleSlot, std::less<>> slots_;
  const std::set<std::string> quantized_;
  const std::optional<QuantizationConfig>& config_;
  const Options options_;
  ThreadPool& pool_;
  std::optional<Progress> progress_;  // nothing: not shown
  WeightBytes bytes_;
  size_t num_parameters_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_WEIGHT_LOADER_H_
