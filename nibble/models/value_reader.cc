#include "nibble/models/value_reader.h"

#include <algorithm>

#include "nibble/base/check.h"

namespace nibble {

Expected<ValueReader> ValueReader::open_tensor(const Checkpoint& checkpoint, const std::string& name) {
  ValueReader reader;
  NIBBLE_TRY(reader.tensor_, checkpoint.tensor(name));
  Tensor none = reader.tensor_;
  none.shape = {0};
  none.bytes = {};
  NIBBLE_RETURN_IF_ERROR(at(name, to_floats(none)));  // whether its type is one that can be read
  const Shape& shape = reader.tensor_.shape;
  if (!shape.empty()) reader.rows_ = shape[0];
  reader.width_ = reader.rows_ == 0 ? 0 : reader.tensor_.size() / reader.rows_;
  return reader;
}

Expected<ValueReader> ValueReader::open_module(const Checkpoint& checkpoint, const std::string& module,
                                               const QuantizationConfig& config) {
  ValueReader reader;
  NIBBLE_TRY(DecodedModule decoded, decode_module(checkpoint, module, config, std::nullopt));
  for (const std::string& tensor : decoded.tensors) checkpoint.drop(tensor);
  reader.codes_ = std::move(decoded.weight);
  reader.rows_ = reader.codes_->out_features;
  reader.width_ = reader.codes_->in_features;
  return reader;
}

void ValueReader::read(size_t begin, size_t end, float* values) const {
  if (codes_) return dequantize_rows(*codes_, begin, end, values);
  Tensor part = tensor_;
  const size_t row_bytes = width_ * (dtype_bits(tensor_.dtype) / 8);
  part.shape = {end - begin, width_};
  part.bytes = tensor_.bytes.subspan(begin * row_bytes, (end - begin) * row_bytes);
  const auto floats = to_floats(part);
  NIBBLE_CHECK(floats);
  std::copy(floats->begin(), floats->end(), values);
}

}  // namespace nibble
