#include "nibble/models/weight_loader.h"

#include <algorithm>

#include "nibble/base/cancel.h"
#include "nibble/base/check.h"
#include "nibble/base/log.h"
#include "nibble/models/input_scales.h"
#include "nibble/nn/int8_weight.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {

WeightLoader::WeightLoader(std::shared_ptr<const Checkpoint> checkpoint, const std::vector<ModuleSlot>& slots,
                           std::set<std::string> quantized, const std::optional<QuantizationConfig>& config,
                           Options options, ThreadPool& pool)
    : checkpoint_(std::move(checkpoint)),
      quantized_(std::move(quantized)),
      config_(config),
      options_(std::move(options)),
      pool_(pool) {
  if (options_.show_progress) progress_.emplace("loading", slots.size(), "modules");
  for (const ModuleSlot& slot : slots) slots_.emplace(slot.name, slot);
}

const ModuleSlot& WeightLoader::slot(std::string_view module) const {
  const auto found = slots_.find(module);
  NIBBLE_CHECK(found != slots_.end());  // decoder and module_slots() disagree about the names
  return found->second;
}

Expected<Tensor> WeightLoader::float_weight(const std::string& module) {
  const std::string name = module + ".weight";
  NIBBLE_TRY(Tensor tensor, checkpoint_->tensor(name));
  const DType dtype = options_.dtype.value_or(tensor.dtype);
  // F64 is read, but no kernel multiplies by it.
  return at(name, convert_tensor(tensor, dtype == DType::kF64 ? DType::kF32 : dtype));
}

Expected<std::vector<float>> WeightLoader::bias(const std::string& module) {
  const std::string name = module + ".bias";
  if (checkpoint_->find(name) == nullptr) return std::vector<float>();
  NIBBLE_TRY(const Tensor tensor, checkpoint_->tensor(name));
  num_parameters_ += tensor.size();
  return at(name, to_floats(tensor));
}

// A few at a time: a block of many experts would be in memory twice, decoded and packed.
Status WeightLoader::linears(const std::vector<LinearRequest>& requests) {
  constexpr size_t kDecodedTogether = 16;  // all of a block without experts
  const std::span<const LinearRequest> all = requests;
  for (size_t begin = 0; begin < all.size(); begin += kDecodedTogether) {
    NIBBLE_RETURN_IF_ERROR(
        decode_and_pack(all.subspan(begin, std::min(kDecodedTogether, all.size() - begin))));
  }
  return {};
}

Status WeightLoader::decode_and_pack(std::span<const LinearRequest> requests) {
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  std::vector<Expected<DecodedModule>> decoded(requests.size(), DecodedModule());
  const auto decode = [&](size_t begin, size_t end, size_t) {
    for (size_t i = begin; i < end; ++i) {
      const std::string& module = requests[i].module;
      if (!quantized_.contains(module)) continue;
      const Shape& shape = slot(module).shape;
      decoded[i] =
          decode_module(*checkpoint_, module, *config_, LinearShape{shape[0], shape[1]}, CodeStorage::kWords);
    }
  };
  if (options_.decode_in_parallel) {
    pool_.parallel_for(requests.size(), 1, decode);
  } else {
    decode(0, requests.size(), 0);
  }

  for (size_t i = 0; i < requests.size(); ++i) {
    const std::string& module = requests[i].module;
    const ModuleSlot& where = slot(module);
    NIBBLE_TRY(std::vector<float> shift, bias(module));
    if (quantized_.contains(module)) {
      NIBBLE_TRY(const DecodedModule source, std::move(decoded[i]));
      decoded[i] = DecodedModule();
      LinearOptions how = options_.linear;
      how.activations = requests[i].activations;
      NIBBLE_TRY(*requests[i].target, at(module, make_linear(source.weight, std::move(shift), how, pool_)));
      for (const std::string& name : source.tensors) checkpoint_->drop(name);
      log_verbose("{}: {}, {} bits, group size {}: {}", module, source.format, source.weight.bits,
                  source.weight.group_size, (*requests[i].target)->kernel());
    } else {
      NIBBLE_TRY(const Tensor weight, float_weight(module));
      NIBBLE_TRY(*requests[i].target, at(module, make_linear(weight, std::move(shift), options_.linear)));
    }
    num_parameters_ += where.shape[0] * where.shape[1];
    (where.role == ModuleRole::kHead ? bytes_.head : bytes_.linear) += (*requests[i].target)->weight_bytes();
    if (progress_) progress_->advance();
  }
  return {};
}

Expected<std::unique_ptr<Norm>> WeightLoader::norm(std::string_view module, NormKind kind, float eps) {
  const std::string name(module);
  auto norm = std::make_unique<Norm>();
  norm->kind = kind;
  norm->eps = eps;
  NIBBLE_TRY(const Tensor tensor, checkpoint_->tensor(name + ".weight"));
  NIBBLE_TRY(norm->weight, at(name + ".weight", to_floats(tensor)));
  if (options_.norm_adds_one) {
    for (float& w : norm->weight) w += 1.f;
  }
  NIBBLE_TRY(norm->bias, bias(name));
  num_parameters_ += norm->weight.size();
  bytes_.norm += (norm->weight.size() + norm->bias.size()) * sizeof(float);
  if (progress_) progress_->advance();
  return norm;
}

Expected<std::vector<float>> WeightLoader::values(const std::string& tensor) {
  NIBBLE_TRY(const Tensor stored, checkpoint_->tensor(tensor));
  num_parameters_ += stored.size();
  return at(tensor, to_floats(stored));
}

Expected<std::vector<float>> WeightLoader::input_scales(const std::string& module) {
  const std::string& tensor = slot(module).input_scales;
  if (checkpoint_->find(tensor) == nullptr) return std::vector<float>();
  return read_input_scales(*checkpoint_, tensor);
}

Expected<Tensor> WeightLoader::embedding(std::string_view module) {
  NIBBLE_TRY(Tensor tensor, float_weight(std::string(module)));
  if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16) {
    return fail(ErrorCode::kUnsupported, "an embedding of {}; F32, F16 and BF16 exist",
                dtype_name(tensor.dtype))
        .at(module);
  }
  num_parameters_ += tensor.size();
  bytes_.embedding += tensor.bytes.size();
  if (progress_) progress_->advance();
  return tensor;
}

Expected<std::unique_ptr<Linear>> WeightLoader::head(const std::string& module,
                                                     const std::string& weight_of) {
  std::unique_ptr<Linear> head;
  const bool tied = weight_of != module;
  // LLM.int8 is so close to the original that 8 bits for the head would show.
  const auto* const bnb = config_ ? std::get_if<BitsAndBytesConfig>(&*config_) : nullptr;
  const bool stays_float = quantized_.empty() || options_.linear.compute == ComputeMode::kF32 ||
                           options_.linear.backend == "reference" || (bnb != nullptr && bnb->load_in_8bit);
  if (!tied && (stays_float || quantized_.contains(module))) {
    NIBBLE_RETURN_IF_ERROR(linears({{module, &head, ActivationBits::k16}}));
    return head;
  }
  NIBBLE_TRY(const Tensor weight, float_weight(weight_of));
  if (stays_float) return make_linear(weight, {}, options_.linear);
  NIBBLE_TRY(std::vector<float> shift, bias(module));
  if (const std::optional<QuantizedWeight> codes = to_int8(weight, pool_)) {
    LinearOptions how = options_.linear;
    how.activations = ActivationBits::k16;
    NIBBLE_TRY(head, at(module, make_linear(*codes, std::move(shift), how, pool_)));
    checkpoint_->drop(weight_of + ".weight");
  } else {
    NIBBLE_TRY(head, at(module, make_linear(weight, std::move(shift), options_.linear)));
  }
  bytes_.head += head->weight_bytes();
  if (!tied) num_parameters_ += weight.size();
  if (!tied && progress_) progress_->advance();
  return head;
}

}  // namespace nibble
