#ifndef NIBBLE_QUANTIZATION_FORMATS_MODULE_TENSORS_H_
#define NIBBLE_QUANTIZATION_FORMATS_MODULE_TENSORS_H_

// The tensors of one module by suffix ("qweight"), with the checks that every format makes and
// messages that name file and tensor.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/checkpoint/checkpoint.h"

namespace nibble {

class ModuleTensors {
 public:
  // Borrows the checkpoint.
  ModuleTensors(const Checkpoint& checkpoint, std::string_view module)
      : checkpoint_(checkpoint), module_(module) {}

  const std::string& module() const { return module_; }
  std::string name(std::string_view suffix) const { return fmt::format("{}.{}", module_, suffix); }
  // "model.safetensors: model.layers.0.mlp.down_proj.qweight"
  std::string where(std::string_view suffix) const;

  const TensorInfo* find(std::string_view suffix) const { return checkpoint_.find(name(suffix)); }
  bool has(std::string_view suffix) const { return find(suffix) != nullptr; }
  // Suffixes of all tensors below `prefix`: "weight." gives "weight.absmax", "weight.quant_map", ...
  std::vector<std::string> below(std::string_view prefix) const;
  // Bytes of those of `suffixes` that exist.
  size_t stored_bytes(const std::vector<std::string>& suffixes) const;

  // The header of a tensor that must exist, have one of `dtypes` and `dimensions` sizes.
  Expected<TensorInfo> require(std::string_view suffix, const std::vector<DType>& dtypes,
                               size_t dimensions) const;
  // The same for an exact shape. `why` says what asks for it: "4 groups of 32 inputs".
  Status require_shape(std::string_view suffix, const Shape& expected, std::string_view why) const;

  // The tensor; its bytes are checked against its header.
  Expected<Tensor> load(std::string_view suffix) const;
  Expected<std::vector<uint32_t>> load_words(std::string_view suffix) const;
  // As float; the first NaN or infinity is an error that says where it is.
  Expected<std::vector<float>> load_finite(std::string_view suffix) const;

 private:
  const Checkpoint& checkpoint_;
  const std::string module_;
};

// Room for words that are made of a tensor's, as CodeWords wants them: on huge pages and not cleared twice,
// since this is done for every module that is loaded.
struct NewWords {
  explicit NewWords(size_t count);
  std::shared_ptr<AlignedBuffer> buffer;
  uint32_t* data;
  Tensor tensor() const;  // U32 [count]
};

// "[1, 7]" for element `index` of a tensor of this shape.
std::string element_name(const Shape& shape, size_t index);

inline constexpr std::string_view kFetchBothAgain =
    "Tensors and config.json do not belong together: fetch both again from the same place.";

inline const std::vector<DType>& scale_dtypes() {
  static const std::vector<DType> kDTypes = {DType::kF16, DType::kBF16, DType::kF32};
  return kDTypes;
}

inline size_t ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_MODULE_TENSORS_H_
