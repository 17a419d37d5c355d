#include "nibble/models/transposed_checkpoint.h"

#include <algorithm>
#include <set>
#include <utility>

#include "nibble/models/load_weights.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

// A checkpoint comes from a file: its tensors' bytes have been checked against shape and dtype.
Tensor transposed(const Tensor& tensor) {
  const size_t rows = tensor.shape[0];
  const size_t cols = tensor.shape[1];
  const size_t element = rows * cols == 0 ? 0 : tensor.bytes.size() / (rows * cols);
  std::vector<std::byte> values(tensor.bytes.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) {
      std::copy_n(tensor.bytes.data() + (r * cols + c) * element, element,
                  values.data() + (c * rows + r) * element);
    }
  }
  return Tensor::of(tensor.dtype, {cols, rows}, std::move(values));
}

class TransposedCheckpoint final : public Checkpoint {
 public:
  TransposedCheckpoint(std::shared_ptr<const Checkpoint> source, const std::string& blocks)
      : source_(std::move(source)) {
    constexpr std::string_view kWeight = ".weight";
    tensors_ = source_->tensors();
    metadata_ = source_->metadata();
    std::set<std::string> codes;
    for (std::string& module : quantized_modules(*source_)) codes.insert(std::move(module));
    for (auto& [name, info] : tensors_) {
      if (!name.starts_with(blocks) || !name.ends_with(kWeight) || info.shape.size() != 2) continue;
      if (!is_float(info.dtype) || codes.contains(name.substr(0, name.size() - kWeight.size()))) continue;
      std::swap(info.shape[0], info.shape[1]);
      transposed_.insert(name);
    }
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    NIBBLE_TRY(Tensor found, source_->tensor(name));
    return transposed_.contains(name) ? transposed(found) : std::move(found);
  }
  void drop(std::string_view name) const override { source_->drop(name); }
  std::string file_of(std::string_view name) const override { return source_->file_of(name); }
  size_t file_bytes() const override { return source_->file_bytes(); }

 private:
  const std::shared_ptr<const Checkpoint> source_;
  std::set<std::string, std::less<>> transposed_;
};

}  // namespace

std::shared_ptr<const Checkpoint> transpose_linears(std::shared_ptr<const Checkpoint> checkpoint,
                                                    const DecoderSpec& spec, bool prefix_missing) {
  if (!spec.names.transposed_linears) return checkpoint;
  return std::make_shared<TransposedCheckpoint>(std::move(checkpoint),
                                                name_in_file(spec, spec.names.layers, prefix_missing) + ".");
}

}  // namespace nibble
