#ifndef NIBBLE_CLI_DOCTOR_MODEL_H_
#define NIBBLE_CLI_DOCTOR_MODEL_H_

// Which kernels a model gets on this machine, and why not faster ones: `nibble doctor MODEL`.

#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/models/auto_model.h"

namespace nibble::cli {

struct KernelUse {
  std::string kernel;  // "int4-a8-avx512"
  size_t layers = 0;
  std::string meaning;  // what it multiplies, and how
};

// Layers that cannot have the integer kernels, and why.
struct SlowLayers {
  std::string reason;
  std::vector<std::string> modules;
};

// Layers with 8-bit activations that take the spiky tokens of a text in 16 (kernels/quantize_inputs.h).
struct SpikyInputs {
  std::string linear;  // "mlp.gate_proj", also for those that share its input; "experts" for all of a block
  std::vector<size_t> in_block;  // how many tokens. Of experts: times those that they are sent to
};

struct ModelKernels {
  std::string model;
  std::string quantization;  // "gptq"
  std::string compute;       // "auto", "f32"
  std::vector<KernelUse> kernels;
  std::vector<SlowLayers> slow;
  size_t text_tokens =
      0;  // that were run through the model; 0: it has no tokenizer, or nothing that depends on them
  std::vector<SpikyInputs> spiky;
};

// Loads the model, since what a layer gets may depend on its values, and reads some text with it.
Expected<ModelKernels> look_at_kernels(const std::string& model, const FromPretrainedOptions& load,
                                       ThreadPool& pool);

// "154 x int4-a8-avx512, 1 x f16-avx512" (CausalLM::kernels()), with what each name means.
std::vector<KernelUse> explain_kernels(const std::string& kernels);

Json to_json(const ModelKernels& model);
std::string to_text(const ModelKernels& model);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_DOCTOR_MODEL_H_
