#include "nibble/quantization/dequantized_checkpoint.h"

#include <utility>

#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

class DequantizedCheckpoint final : public Checkpoint {
 public:
  DequantizedCheckpoint(std::shared_ptr<const Checkpoint> source, QuantizationConfig config)
      : source_(std::move(source)), config_(std::move(config)) {}

  Status announce() {
    tensors_ = source_->tensors();
    metadata_ = source_->metadata();
    std::map<std::string, DType> dtype_of_format;  // found by decoding the first module of each
    for (const std::string& module : quantized_modules(*source_)) {
      NIBBLE_TRY(const ModuleSummary summary, summarize_module(*source_, module, config_));
      if (!dtype_of_format.contains(summary.format)) {
        NIBBLE_TRY(const DecodedModule first, decode_module(*source_, module, config_, std::nullopt));
        dtype_of_format[summary.format] = first.weight.dtype;
      }
      for (const std::string& name : tensors_of_module(*source_, module)) tensors_.erase(name);
      const std::string name = module + ".weight";
      const TensorInfo info = {dtype_of_format[summary.format], {summary.out_features, summary.in_features}};
      if (!tensors_.emplace(name, info).second) {
        return fail(ErrorCode::kDataLoss, "the module is quantized and has a float weight as well").at(name);
      }
      module_of_.emplace(name, module);
    }
    return {};
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    const auto found = module_of_.find(name);
    if (found == module_of_.end()) return source_->tensor(name);
    NIBBLE_TRY(const DecodedModule decoded, decode_module(*source_, found->second, config_, std::nullopt));
    return at(name, dequantize(decoded.weight, tensors_.find(name)->second.dtype));
  }

  void drop(std::string_view name) const override {
    const auto found = module_of_.find(name);
    if (found == module_of_.end()) return source_->drop(name);
    for (const std::string& stored : tensors_of_module(*source_, found->second)) source_->drop(stored);
  }

  std::string file_of(std::string_view name) const override {
    const auto found = module_of_.find(name);
    if (found == module_of_.end()) return source_->file_of(name);
    return source_->file_of(tensors_of_module(*source_, found->second).front());
  }

  size_t file_bytes() const override { return source_->file_bytes(); }

 private:
  const std::shared_ptr<const Checkpoint> source_;
  const QuantizationConfig config_;
  std::map<std::string, std::string, std::less<>> module_of_;  // by name of a weight that is decoded
};

}  // namespace

Expected<std::shared_ptr<const Checkpoint>> dequantize_on_the_fly(
    std::shared_ptr<const Checkpoint> checkpoint, const QuantizationConfig& config) {
  const auto view = std::make_shared<DequantizedCheckpoint>(std::move(checkpoint), config);
  NIBBLE_RETURN_IF_ERROR(view->announce());
  return view;
}

}  // namespace nibble
