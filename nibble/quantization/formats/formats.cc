#include "nibble/quantization/formats/formats.h"

#include <algorithm>
#include <set>

#include "nibble/quantization/formats/awq.h"
#include "nibble/quantization/formats/bnb_4bit.h"
#include "nibble/quantization/formats/bnb_int8.h"
#include "nibble/quantization/formats/gptq.h"
#include "nibble/quantization/formats/module_tensors.h"
#include "nibble/quantization/formats/pack_quantized.h"

namespace nibble {
namespace {

// What a module's tensors are the tensors of. Told by their names alone: GPTQ and AWQ share theirs
// and are told apart by quant_method, which their readers check against the shapes.
enum class Family { kPackedInt, kBnb4Bit, kBnbInt8, kPackQuantized, kMarlin, kUnderscoreBnb };

// Suffixes that only the weight of a quantized module has.
struct Mark {
  std::string_view suffix;
  Family family;
};
constexpr Mark kMarks[] = {
    {"qweight", Family::kPackedInt},
    {"qzeros", Family::kPackedInt},
    {"scaled_zeros", Family::kPackedInt},
    {"g_idx", Family::kPackedInt},
    {"weight.absmax", Family::kBnb4Bit},
    {"weight.quant_map", Family::kBnb4Bit},
    {"weight.nested_absmax", Family::kBnb4Bit},
    {"weight.nested_quant_map", Family::kBnb4Bit},
    {"weight.quant_state.bitsandbytes__nf4", Family::kBnb4Bit},
    {"weight.quant_state.bitsandbytes__fp4", Family::kBnb4Bit},
    {"SCB", Family::kBnbInt8},
    {"weight_format", Family::kBnbInt8},
    {"weight_packed", Family::kPackQuantized},
    {"weight_shape", Family::kPackQuantized},
    {"weight_g_idx", Family::kPackQuantized},
    {"B", Family::kMarlin},
    {"weight_absmax", Family::kUnderscoreBnb},
    {"weight_quant_map", Family::kUnderscoreBnb},
    {"weight_nested_absmax", Family::kUnderscoreBnb},
    {"weight_nested_quant_map", Family::kUnderscoreBnb},
    {"weight_quant_state", Family::kUnderscoreBnb},
    {"weight_scb", Family::kUnderscoreBnb},
};

// Those that belong to a family without telling it: other modules have tensors of these names, too.
std::vector<std::string_view> companions(Family family) {
  switch (family) {
    case Family::kPackedInt:
      return {"scales"};
    case Family::kPackQuantized:
      return {"weight_scale", "weight_zero_point"};
    case Family::kMarlin:
      return {"s"};
    case Family::kBnb4Bit:
    case Family::kBnbInt8:
    case Family::kUnderscoreBnb:
      return {"weight"};
  }
  return {};
}

const Mark* mark_of(std::string_view name) {
  for (const Mark& mark : kMarks) {
    if (name.size() > mark.suffix.size() && name.ends_with(mark.suffix) &&
        name[name.size() - mark.suffix.size() - 1] == '.') {
      return &mark;
    }
  }
  return nullptr;
}

std::optional<Family> family_of(const ModuleTensors& tensors) {
  for (const Mark& mark : kMarks) {
    if (!tensors.has(mark.suffix)) continue;
    // "B" alone may be anything.
    if (mark.family == Family::kMarlin && !tensors.has("s")) continue;
    return mark.family;
  }
  // A quant_state of a type that nobody knows still says what the rest is.
  for (const std::string& suffix : tensors.below("weight.")) {
    if (suffix.starts_with(kQuantStatePrefix)) return Family::kBnb4Bit;
  }
  return std::nullopt;
}

std::string_view methods_of(Family family) {
  if (family == Family::kPackQuantized) return "compressed-tensors";
  return family == Family::kPackedInt ? "gptq or awq" : "bitsandbytes";
}

bool belongs_to(Family family, const QuantizationConfig& config) {
  if (std::holds_alternative<BitsAndBytesConfig>(config)) {
    return family == Family::kBnb4Bit || family == Family::kBnbInt8;
  }
  if (std::holds_alternative<CompressedTensorsConfig>(config)) return family == Family::kPackQuantized;
  return family == Family::kPackedInt;
}

// Refuses what has no reader and what contradicts itself or quant_method.
Status check_family(const ModuleTensors& tensors, std::optional<Family> family,
                    const QuantizationConfig& config) {
  if (!family) {
    return fail(ErrorCode::kNotFound, "no tensors of a quantized weight").at(tensors.module());
  }
  if (*family == Family::kMarlin) {
    return fail(ErrorCode::kUnsupported,
                "stored for the Marlin GPU kernel (tensors B and s), which is not read")
        .at(tensors.module())
        .with_fix("Take the checkpoint in \"gptq\" format, or quantize the model again.");
  }
  if (*family == Family::kUnderscoreBnb) {
    return fail(ErrorCode::kUnsupported,
                "GPTQModel's own \"bitsandbytes\" layout (tensors weight_absmax, weight_scb, ...), which "
                "neither "
                "bitsandbytes nor Transformers reads")
        .at(tensors.module())
        .with_fix("Quantize the original model with bitsandbytes, or load it with load_in_4bit.");
  }
  if (!belongs_to(*family, config)) {
    return fail(ErrorCode::kDataLoss, "the tensors are those of {}, but quant_method is {}",
                methods_of(*family), quant_method(config))
        .at(tensors.module())
        .with_fix(kFetchBothAgain);
  }
  const bool in_words = *family == Family::kPackedInt || *family == Family::kPackQuantized;
  if (in_words && tensors.has("weight")) {
    return fail(ErrorCode::kDataLoss, "the tensor is there beside {}: which of both holds is not said",
                tensors.name(*family == Family::kPackedInt ? "qweight" : "weight_packed"))
        .at(tensors.where("weight"))
        .with_fix("Remove one of them, or fetch the checkpoint again.");
  }
  return {};
}

}  // namespace

std::vector<std::string> quantized_modules(const Checkpoint& checkpoint) {
  std::set<std::string> modules;
  for (const auto& [name, info] : checkpoint.tensors()) {
    std::string_view module;
    if (const Mark* mark = mark_of(name)) {
      module = std::string_view(name).substr(0, name.size() - mark->suffix.size() - 1);
      if (mark->family == Family::kMarlin && checkpoint.find(fmt::format("{}.s", module)) == nullptr)
        continue;
    } else if (const size_t state = name.find(fmt::format(".{}", kQuantStatePrefix)); state != name.npos) {
      module = std::string_view(name).substr(0, state);
    } else {
      continue;
    }
    modules.emplace(module);
  }
  return {modules.begin(), modules.end()};
}

std::vector<std::string> tensors_of_module(const Checkpoint& checkpoint, std::string_view module) {
  const ModuleTensors tensors(checkpoint, module);
  const std::optional<Family> family = family_of(tensors);
  std::vector<std::string> names;
  if (!family) return names;
  for (const Mark& mark : kMarks) {
    if (mark.family == *family && tensors.has(mark.suffix)) names.push_back(tensors.name(mark.suffix));
  }
  for (const std::string_view suffix : companions(*family)) {
    if (tensors.has(suffix)) names.push_back(tensors.name(suffix));
  }
  std::sort(names.begin(), names.end());
  return names;
}

Expected<DecodedModule> decode_module(const Checkpoint& checkpoint, std::string_view module,
                                      const QuantizationConfig& config,
                                      const std::optional<LinearShape>& shape, CodeStorage storage) {
  const ModuleTensors tensors(checkpoint, module);
  const std::optional<Family> family = family_of(tensors);
  NIBBLE_RETURN_IF_ERROR(check_family(tensors, family, config));
  const auto decode = [&]() -> Expected<DecodedModule> {
    if (const auto* gptq = std::get_if<GPTQConfig>(&config))
      return decode_gptq(tensors, *gptq, shape, storage);
    if (const auto* awq = std::get_if<AwqConfig>(&config)) return decode_awq(tensors, *awq, shape, storage);
    if (const auto* packed = std::get_if<CompressedTensorsConfig>(&config)) {
      return decode_pack_quantized(tensors, *packed, shape, storage);
    }
    if (*family == Family::kBnb4Bit) return decode_bnb_4bit(tensors, shape, storage);
    return decode_bnb_int8(tensors, std::get<BitsAndBytesConfig>(config), shape);
  };
  NIBBLE_TRY(DecodedModule decoded, decode());
  decoded.tensors = tensors_of_module(checkpoint, module);
  return decoded;
}

Expected<ModuleSummary> summarize_module(const Checkpoint& checkpoint, std::string_view module,
                                         const QuantizationConfig& config) {
  const ModuleTensors tensors(checkpoint, module);
  const std::optional<Family> family = family_of(tensors);
  NIBBLE_RETURN_IF_ERROR(check_family(tensors, family, config));
  if (const auto* gptq = std::get_if<GPTQConfig>(&config)) return summarize_gptq(tensors, *gptq);
  if (const auto* awq = std::get_if<AwqConfig>(&config)) return summarize_awq(tensors, *awq);
  if (const auto* packed = std::get_if<CompressedTensorsConfig>(&config)) {
    return summarize_pack_quantized(tensors, *packed);
  }
  return *family == Family::kBnb4Bit ? summarize_bnb_4bit(tensors) : summarize_bnb_int8(tensors);
}

}  // namespace nibble
