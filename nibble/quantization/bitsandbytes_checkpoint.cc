// A float checkpoint that shows itself as a bitsandbytes one.

#include <mutex>

#include "nibble/quantization/bitsandbytes_quantize.h"
#include "nibble/quantization/formats/bnb_4bit.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {
namespace {

class OnTheFlyCheckpoint final : public Checkpoint {
 public:
  OnTheFlyCheckpoint(std::shared_ptr<const Checkpoint> source, const BitsAndBytesConfig& config,
                     const std::set<std::string>& modules, ThreadPool& pool, size_t blocksize)
      : source_(std::move(source)),
        is_4bit_(!config.load_in_8bit),
        options_({.nf4 = config.bnb_4bit_quant_type == "nf4",
                  .blocksize = blocksize,
                  .double_quant = config.bnb_4bit_use_double_quant,
                  .quant_storage = config.bnb_4bit_quant_storage.value_or(DType::kU8)}),
        pool_(pool) {
    tensors_ = source_->tensors();
    metadata_ = source_->metadata();
    for (const std::string& module : modules) {
      const TensorInfo* weight = source_->find(module + ".weight");
      if (weight != nullptr) announce(module, *weight);
    }
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    const auto quantized = module_of_.find(name);
    if (quantized == module_of_.end()) return source_->tensor(name);
    const std::string& module = quantized->second;
    const std::lock_guard lock(mutex_);
    if (current_module_ != module) {
      current_.clear();
      current_module_.clear();
      NIBBLE_TRY(current_, quantize(module));
      current_module_ = module;
    }
    const auto found = current_.find(std::string(name.substr(module.size() + 1)));
    if (found == current_.end()) {
      return fail(ErrorCode::kNotFound, "no tensor of that name").at(name);
    }
    return found->second;
  }

  // The codes stay until another module is asked for: its other tensors come next.
  void drop(std::string_view name) const override {
    const auto quantized = module_of_.find(name);
    source_->drop(quantized == module_of_.end() ? std::string(name) : quantized->second + ".weight");
  }

  std::string file_of(std::string_view name) const override {
    const auto quantized = module_of_.find(name);
    return source_->file_of(quantized == module_of_.end() ? std::string(name)
                                                          : quantized->second + ".weight");
  }

  size_t file_bytes() const override { return source_->file_bytes(); }

 private:
  void add(const std::string& module, std::string_view suffix, TensorInfo info) {
    const std::string name = fmt::format("{}.{}", module, suffix);
    tensors_[name] = std::move(info);
    module_of_[name] = module;
  }

  // What the quantizer will make of a weight. What it cannot quantize keeps its shape here, and is
  // an error when it is asked for.
  void announce(const std::string& module, const TensorInfo& weight) {
    if (weight.shape.size() != 2) return add(module, "weight", weight);
    if (!is_4bit_) {
      add(module, "weight", {DType::kI8, weight.shape});
      add(module, "SCB", {DType::kF32, {weight.shape[0]}});
      add(module, "weight_format", {DType::kU8, {}});
      return;
    }
    const size_t count = num_elements(weight.shape).value_or(0);
    const size_t num_blocks = ceil_div(count, options_.blocksize);
    BnbQuantState state{.quant_type = options_.nf4 ? "nf4" : "fp4",
                        .blocksize = options_.blocksize,
                        .dtype = weight.dtype,
                        .out_features = weight.shape[0],
                        .in_features = weight.shape[1],
                        .nested = options_.double_quant};
    add(module, "weight",
        {options_.quant_storage, bnb_storage_shape(count, options_.quant_storage).value_or(Shape{0, 1})});
    add(module, "weight.absmax", {options_.double_quant ? DType::kU8 : DType::kF32, {num_blocks}});
    add(module, "weight.quant_map", {DType::kF32, {nf4_codebook().size()}});
    if (options_.double_quant) {
      add(module, "weight.nested_absmax", {DType::kF32, {ceil_div(num_blocks, kNestedBlocksize)}});
      add(module, "weight.nested_quant_map", {DType::kF32, {dynamic_map().size()}});
      // The state is a text with the mean of absmax in it: its length is known when that is.
      state.nested_offset = offset_of(module);
    }
    add(module, fmt::format("{}{}", kQuantStatePrefix, state.quant_type),
        {DType::kU8, {to_text(state).size()}});
  }

  float offset_of(const std::string& module) const {
    const std::string name = module + ".weight";
    const Expected<Tensor> weight = source_->tensor(name);
    if (!weight) return 0.0f;  // the error comes when the tensor is asked for
    const auto absmax = bnb_absmax(*weight, options_.blocksize, pool_);
    source_->drop(name);
    return absmax ? bnb_absmax_offset(*absmax) : 0.0f;
  }

  Expected<std::map<std::string, Tensor>> quantize(const std::string& module) const {
    const std::string name = module + ".weight";
    NIBBLE_TRY(const Tensor weight, source_->tensor(name));
    auto made = is_4bit_ ? quantize_bnb_4bit(weight, options_, pool_) : quantize_bnb_int8(weight, pool_);
    return at(source_->file_of(name), at(name, std::move(made)));
  }

  const std::shared_ptr<const Checkpoint> source_;
  const bool is_4bit_;
  const Bnb4BitOptions options_;
  ThreadPool& pool_;
  std::map<std::string, std::string, std::less<>> module_of_;  // by name of a quantized tensor

  // The module asked for last: its tensors are asked for one after the other.
  mutable std::mutex mutex_;
  mutable std::string current_module_;
  mutable std::map<std::string, Tensor> current_;
};

}  // namespace

std::shared_ptr<const Checkpoint> quantize_on_the_fly(std::shared_ptr<const Checkpoint> checkpoint,
                                                      const BitsAndBytesConfig& config,
                                                      std::set<std::string> modules, ThreadPool& pool,
                                                      size_t blocksize) {
  return std::make_shared<const OnTheFlyCheckpoint>(std::move(checkpoint), config, modules, pool, blocksize);
}

}  // namespace nibble
