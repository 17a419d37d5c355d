#include "nibble/models/input_scales.h"

#include <cmath>
#include <utility>

namespace nibble {
namespace {

class AbsorbedCheckpoint final : public Checkpoint {
 public:
  AbsorbedCheckpoint(std::shared_ptr<const Checkpoint> source,
                     const std::map<std::string, std::string>& scales_of_module)
      : source_(std::move(source)) {
    tensors_ = source_->tensors();
    metadata_ = source_->metadata();
    for (const auto& [module, scales] : scales_of_module) {
      const std::string name = module + ".weight";
      tensors_.erase(scales);
      tensors_.at(name).dtype = DType::kF32;
      scales_of_.emplace(name, scales);
    }
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    NIBBLE_TRY(Tensor found, source_->tensor(name));
    const auto divided = scales_of_.find(name);
    if (divided == scales_of_.end()) return found;
    NIBBLE_TRY(const std::vector<float> scales, read_input_scales(*source_, divided->second));
    NIBBLE_TRY(std::vector<float> values, at(name, to_floats(found)));
    if (found.shape.size() != 2 || found.shape[1] != scales.size()) {
      return fail(ErrorCode::kDataLoss, "{} divides {} inputs, but the shape is {}", divided->second,
                  scales.size(), shape_name(found.shape))
          .at(name);
    }
    for (size_t i = 0; i < values.size(); ++i) values[i] /= scales[i % scales.size()];
    return Tensor::of(DType::kF32, found.shape, std::move(values));
  }
  void drop(std::string_view name) const override { source_->drop(name); }
  std::string file_of(std::string_view name) const override { return source_->file_of(name); }
  size_t file_bytes() const override { return source_->file_bytes(); }

 private:
  const std::shared_ptr<const Checkpoint> source_;
  std::map<std::string, std::string, std::less<>> scales_of_;  // by name of the weight
};

}  // namespace

std::map<std::string, std::string> input_scales_of(const Checkpoint& checkpoint,
                                                   const std::vector<ModuleSlot>& slots) {
  std::map<std::string, std::string> tensors;
  for (const ModuleSlot& slot : slots) {
    if (checkpoint.find(slot.input_scales) != nullptr) tensors[slot.name] = slot.input_scales;
  }
  return tensors;
}

Expected<std::vector<float>> read_input_scales(const Checkpoint& checkpoint, const std::string& tensor) {
  NIBBLE_TRY(const Tensor stored, checkpoint.tensor(tensor));
  NIBBLE_TRY(std::vector<float> scales, at(tensor, to_floats(stored)));
  for (size_t i = 0; i < scales.size(); ++i) {
    if (std::isfinite(scales[i]) && scales[i] != 0.f) continue;
    return fail(ErrorCode::kDataLoss, "element {} is {}, and activations are divided by it", i, scales[i])
        .at(tensor)
        .with_fix("The file is damaged or was quantized wrongly: fetch it again.");
  }
  return scales;
}

std::shared_ptr<const Checkpoint> absorb_input_scales(std::shared_ptr<const Checkpoint> checkpoint,
                                                      const std::vector<ModuleSlot>& slots) {
  const auto scales = input_scales_of(*checkpoint, slots);
  if (scales.empty()) return checkpoint;
  return std::make_shared<AbsorbedCheckpoint>(std::move(checkpoint), scales);
}

}  // namespace nibble
