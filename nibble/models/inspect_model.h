#ifndef NIBBLE_MODELS_INSPECT_MODEL_H_
#define NIBBLE_MODELS_INSPECT_MODEL_H_

// What can be said about a model from its small files and the headers of its weights.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

// How the weight of a linear layer is stored.
struct WeightLayout {
  std::string format;      // "gptq", "awq gemm", "bitsandbytes nf4"...; "float16" where it is not quantized
  int bits = 0;            // of a code, or of a float
  int64_t group_size = 0;  // weights that share a scale; -1: a whole row; 0: not quantized

  bool operator==(const WeightLayout&) const = default;
};

// Bytes on disk, by what they are for.
struct BytesByClass {
  size_t linear = 0;  // with scales, zero points and biases
  size_t embedding = 0;
  size_t head = 0;  // 0 where it is the embedding
  size_t norm = 0;
  size_t other = 0;

  size_t total() const { return linear + embedding + head + norm + other; }
};

struct ModelSummary {
  std::string model;
  std::string architecture;  // "LlamaForCausalLM"
  std::string model_type;
  bool supported = false;  // whether Nibble runs it
  size_t parameters = 0;
  size_t active_parameters = 0;  // that a token meets; fewer in a mixture of experts

  std::string method;   // "none", "gptq", "awq", "bitsandbytes"
  WeightLayout layout;  // of most linear layers
  size_t quantized_modules = 0;
  struct Exception {
    std::string module;
    WeightLayout layout;
  };
  std::vector<Exception> exceptions;  // linear layers (and a head) stored in another way

  BytesByClass bytes;
  size_t file_bytes = 0;
  double linear_bits_per_weight = 0;  // scales and zero points included, biases not
  double bits_per_weight = 0;         // of the whole model

  Json config = Json::object();  // the sizes that matter, under the names of config.json
  std::optional<size_t> context_length;
  std::optional<size_t> kv_bytes_per_token;  // of the cache as Nibble keeps it
  std::string tokenizer;                     // "BPE"...; "none"
  bool chat_template = false;
};

// Also for architectures that Nibble cannot run: those are judged by the names of their tensors.
// For one that it can run, missing, misshapen and unused tensors are errors, as they are for `run`.
Expected<ModelSummary> inspect_model(const ModelFiles& files);

Json to_json(const ModelSummary& summary);
std::string to_text(const ModelSummary& summary);  // a page for people

}  // namespace nibble

#endif  // NIBBLE_MODELS_INSPECT_MODEL_H_
