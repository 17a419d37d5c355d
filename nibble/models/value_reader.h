#ifndef NIBBLE_MODELS_VALUE_READER_H_
#define NIBBLE_MODELS_VALUE_READER_H_

// The float values of a weight, some rows at a time, whether it is stored as floats or as codes.

#include <optional>
#include <string>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {

class ValueReader {
 public:
  // A float tensor; kInvalidArgument for integers.
  static Expected<ValueReader> open_tensor(const Checkpoint& checkpoint, const std::string& name);
  // A module stored as codes: [out_features, in_features].
  static Expected<ValueReader> open_module(const Checkpoint& checkpoint, const std::string& module,
                                           const QuantizationConfig& config);

  size_t rows() const { return rows_; }
  size_t width() const { return width_; }  // values of a row
  // Of a module.
  const QuantizedWeight* codes() const { return codes_ ? &*codes_ : nullptr; }

  // Rows [begin, end): [end - begin, width()]. Any thread.
  void read(size_t begin, size_t end, float* values) const;

 private:
  size_t rows_ = 1;
  size_t width_ = 1;
  Tensor tensor_;
  std::optional<QuantizedWeight> codes_;
};

}  // namespace nibble

#endif  // NIBBLE_MODELS_VALUE_READER_H_
