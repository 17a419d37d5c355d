#ifndef NIBBLE_QUANTIZATION_BITSANDBYTES_H_
#define NIBBLE_QUANTIZATION_BITSANDBYTES_H_

// bitsandbytes' quantizers: codes and absmax equal the original library's (its CPU rules) byte for
// byte. NF4 and FP4: QLoRA, arXiv:2305.14314. LLM.int8: arXiv:2208.07339.

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>

#include "nibble/base/thread_pool.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/config/quantization_config.h"

namespace nibble {

std::span<const float, 16> nf4_codebook();
std::span<const float, 16> fp4_codebook();
std::span<const float, 256> dynamic_map();  // of double quantization

struct Bnb4BitOptions {
  bool nf4 = true;  // false: FP4
  size_t blocksize = 64;
  bool double_quant = false;
  DType quant_storage = DType::kU8;
};

// The tensors that bitsandbytes stores for a weight [out, in], by suffix: "weight",
// "weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4", ...
Expected<std::map<std::string, Tensor>> quantize_bnb_4bit(const Tensor& weight, const Bnb4BitOptions& options,
                                                          ThreadPool& pool);

// "weight" (I8), "SCB", "weight_format".
Expected<std::map<std::string, Tensor>> quantize_bnb_int8(const Tensor& weight, ThreadPool& pool);

// A float checkpoint seen as a bitsandbytes one: `modules` are quantized when their tensors are
// asked for, one module at a time. What loads, inspects or writes the result needs no other path
// than for a checkpoint that was stored that way. blocksize: weights that share an absmax, in 4 bits.
std::shared_ptr<const Checkpoint> quantize_on_the_fly(std::shared_ptr<const Checkpoint> checkpoint,
                                                      const BitsAndBytesConfig& config,
                                                      std::set<std::string> modules, ThreadPool& pool,
                                                      size_t blocksize = 64);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_BITSANDBYTES_H_
