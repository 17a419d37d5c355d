#ifndef NIBBLE_CLI_DEQUANTIZE_MODEL_H_
#define NIBBLE_CLI_DEQUANTIZE_MODEL_H_

// A quantized checkpoint written back as the float checkpoint that its codes stand for.

#include <cstddef>
#include <filesystem>
#include <optional>

#include "nibble/base/dtype.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

struct DequantizedModel {
  size_t modules = 0;         // that were quantized
  size_t tensors = 0;         // written, read back and compared with the source bit by bit
  size_t bytes = 0;           // of tensors
  DType dtype = DType::kF16;  // of the weights that were quantized
};

// Writes config.json without quantization_config, the tokenizer's and other small files as they
// are, and the weights: one tensor in memory at a time. dtype: of all float tensors; without it
// the quantized ones get what the original library dequantizes to, and the others stay as they are.
// kInvalidArgument where nothing is quantized.
Expected<DequantizedModel> dequantize_model(const ModelFiles& files, const std::filesystem::path& folder,
                                            std::optional<DType> dtype, size_t max_shard_size);

}  // namespace nibble

#endif  // NIBBLE_CLI_DEQUANTIZE_MODEL_H_
