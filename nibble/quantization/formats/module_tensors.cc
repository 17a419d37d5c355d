#include "nibble/quantization/formats/module_tensors.h"

#include <algorithm>
#include <cmath>

#include "nibble/quantization/float_blocks.h"

namespace nibble {

std::string ModuleTensors::where(std::string_view suffix) const {
  const std::string full = name(suffix);
  // A tensor that is missing lies in no file.
  if (checkpoint_.find(full) == nullptr) return full;
  const std::string file = checkpoint_.file_of(full);
  return file.empty() ? full : fmt::format("{}: {}", file, full);
}

std::vector<std::string> ModuleTensors::below(std::string_view prefix) const {
  const std::string full = name(prefix);
  std::vector<std::string> suffixes;
  for (auto it = checkpoint_.tensors().lower_bound(full); it != checkpoint_.tensors().end(); ++it) {
    if (!it->first.starts_with(full)) break;
    suffixes.push_back(it->first.substr(module_.size() + 1));
  }
  return suffixes;
}

size_t ModuleTensors::stored_bytes(const std::vector<std::string>& suffixes) const {
  size_t bytes = 0;
  for (const std::string& suffix : suffixes) {
    if (const TensorInfo* info = find(suffix)) bytes += num_bytes(*info).value_or(0);
  }
  return bytes;
}

Expected<TensorInfo> ModuleTensors::require(std::string_view suffix, const std::vector<DType>& dtypes,
                                            size_t dimensions) const {
  const TensorInfo* info = find(suffix);
  if (info == nullptr) {
    return fail(ErrorCode::kDataLoss, "the tensor is missing")
        .at(where(suffix))
        .with_fix("The checkpoint is incomplete: fetch it again.");
  }
  if (std::find(dtypes.begin(), dtypes.end(), info->dtype) == dtypes.end()) {
    std::string names;
    for (const DType dtype : dtypes) {
      if (!names.empty()) names += " or ";
      names += dtype_name(dtype);
    }
    return fail(ErrorCode::kDataLoss, "elements are {}, but must be {}", dtype_name(info->dtype), names)
        .at(where(suffix))
        .with_fix("The file is damaged, or written by a program that Nibble does not know.");
  }
  if (info->shape.size() != dimensions) {
    return fail(ErrorCode::kDataLoss, "shape {} has {} dimensions, but must have {}", shape_name(info->shape),
                info->shape.size(), dimensions)
        .at(where(suffix))
        .with_fix("The file is damaged, or written by a program that Nibble does not know.");
  }
  return *info;
}

Status ModuleTensors::require_shape(std::string_view suffix, const Shape& expected,
                                    std::string_view why) const {
  const TensorInfo* info = find(suffix);
  if (info != nullptr && info->shape == expected) return {};
  return fail(ErrorCode::kDataLoss, "shape {}, but {} make it {}",
              info == nullptr ? std::string("[]") : shape_name(info->shape), why, shape_name(expected))
      .at(where(suffix))
      .with_fix(kFetchBothAgain);
}

Expected<Tensor> ModuleTensors::load(std::string_view suffix) const {
  NIBBLE_TRY(Tensor tensor, checkpoint_.tensor(name(suffix)));
  const auto bytes = num_bytes(tensor.info());
  if (!bytes || *bytes != tensor.bytes.size()) {
    return fail(ErrorCode::kDataLoss, "{} bytes, but {} {} needs {}", tensor.bytes.size(),
                dtype_name(tensor.dtype), shape_name(tensor.shape),
                bytes ? fmt::to_string(*bytes) : std::string("more than there can be"))
        .at(where(suffix))
        .with_fix("The file is damaged: fetch it again.");
  }
  return tensor;
}

Expected<std::vector<uint32_t>> ModuleTensors::load_words(std::string_view suffix) const {
  NIBBLE_TRY(const Tensor tensor, load(suffix));
  return copy_elements<uint32_t>(tensor);
}

Expected<std::vector<float>> ModuleTensors::load_finite(std::string_view suffix) const {
  NIBBLE_TRY(const Tensor tensor, load(suffix));
  std::vector<float> values;
  if (tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF32) {
    values.resize(tensor.size());
    load_floats(tensor, 0, values.size(), values.data());
    if (std::isfinite(largest_magnitude(values))) return values;
  } else {
    NIBBLE_TRY(values, at(where(suffix), to_floats(tensor)));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return fail(ErrorCode::kDataLoss, "element {} is {}", element_name(tensor.shape, i),
                std::isnan(values[i]) ? "NaN" : "infinite")
        .at(where(suffix))
        .with_fix("The model was quantized wrongly or the file is damaged: fetch it again, or another one.");
  }
  return values;
}

NewWords::NewWords(size_t count)
    : buffer(std::make_shared<AlignedBuffer>(count * sizeof(uint32_t))), data(buffer->as<uint32_t>()) {}

Tensor NewWords::tensor() const {
  return {DType::kU32, {buffer->size() / sizeof(uint32_t)}, {buffer->data(), buffer->size()}, buffer};
}

std::string element_name(const Shape& shape, size_t index) {
  std::vector<size_t> position(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    position[d] = index % shape[d];
    index /= shape[d];
  }
  return shape_name(position);
}

}  // namespace nibble
