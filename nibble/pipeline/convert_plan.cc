#include "nibble/pipeline/convert_plan.h"

#include <algorithm>
#include <cmath>

#include "nibble/base/cancel.h"
#include "nibble/base/check.h"
#include "nibble/base/float16.h"
#include "nibble/base/progress.h"
#include "nibble/models/input_scales.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/pack_quantized.h"

namespace nibble {
namespace {

constexpr std::string_view kCompressedTensors = "compressed-tensors";
constexpr int64_t kUsualGroupSizes[] = {128, 64, 32};

// Why a layout does not hold a module as it is.
struct Refusal {
  std::string what;
  std::string fix;
};

float half(float value) { return fp16_to_float(float_to_fp16(value)); }

// The zero point that gemv_fast's -(scale * zero) was made of; nothing where there is none.
std::optional<float> zero_point_of(float scale, float term, float most) {
  if (scale == 0.f) return term == 0.f ? std::optional(0.f) : std::nullopt;
  const float zero = std::nearbyint(-term / scale);
  if (!(zero >= 0.f && zero <= most) || half(-(scale * zero)) != term) return std::nullopt;
  return zero;
}

int64_t group_size_of(const QuantizedWeight& weight) {
  const bool affine = weight.formula == WeightFormula::kAffine || weight.formula == WeightFormula::kOffset;
  return !affine || weight.num_groups == 1 ? -1 : static_cast<int64_t>(weight.group_size);
}

// The largest usual group size that fills the inputs of all.
int64_t fitting_size(const std::map<std::string, ModulePlan>& modules) {
  for (const int64_t size : kUsualGroupSizes) {
    const bool fits = std::all_of(modules.begin(), modules.end(), [&](const auto& module) {
      return module.second.facts.in_features % static_cast<size_t>(size) == 0;
    });
    if (fits) return size;
  }
  return -1;
}

std::optional<Refusal> refusal_of_formula(const ModuleFacts& facts, const TargetLayout& layout) {
  if (facts.formula == WeightFormula::kCodebook) {
    return Refusal{fmt::format("{} codes stand for the values of a table, and {} has evenly spaced steps",
                               facts.format.substr(facts.format.rfind(' ') + 1), layout.name()),
                   {}};
  }
  if (facts.formula == WeightFormula::kRowAbsmax) {
    return Refusal{
        fmt::format("LLM.int8 has no scales but largest values, divided by 127 in float32: no scale "
                    "of {} gives the same weights",
                    layout.name()),
        {}};
  }
  if (!facts.integer_zeros) return Refusal{"its zero terms are no multiples of the scales", {}};
  if (layout.affine && facts.rounding != DType::kF16) {
    return Refusal{fmt::format("its scales are {}, and {} stores float16", torch_dtype_name(facts.rounding),
                               layout.name()),
                   "compressed-tensors stores them as they are."};
  }
  const bool has_zero_terms = facts.formula == WeightFormula::kOffset;
  if (has_zero_terms != layout.has_zero_terms() && !facts.exact_zero_terms) {
    return Refusal{has_zero_terms
                       ? fmt::format("{} stores scale * zero point, rounded to float16, and {} does not",
                                     facts.format, layout.name())
                       : "gemv_fast stores scale * zero point, which is rounded to float16",
                   {}};
  }
  return std::nullopt;
}

// Sizes alone.
std::optional<Refusal> refusal_of_sizes(const ModulePlan& module, const TargetLayout& layout) {
  const ModuleFacts& facts = module.facts;
  const size_t group_size = module.group_size == -1 ? 0 : static_cast<size_t>(module.group_size);
  const auto infos =
      layout.affine
          ? encoded_tensors(*layout.affine, module.bits, facts.out_features, facts.in_features, group_size)
          : pack_quantized_tensors(group_of(module), facts.out_features, facts.in_features, facts.rounding);
  if (infos) return std::nullopt;
  return Refusal{infos.error().what, infos.error().fix};
}

// awq_group_size: the one that an AWQ model has.
std::optional<Refusal> refusal(const ModulePlan& module, const TargetLayout& layout, int64_t awq_group_size) {
  const ModuleFacts& facts = module.facts;
  if (auto found = refusal_of_formula(facts, layout)) return found;
  if (auto found = refusal_of_sizes(module, layout)) return found;
  if (layout.affine == AffineLayout::kGptq && facts.has_zero_0) {
    return Refusal{"a zero point is 0, and programs disagree on how gptq stores that", "gptq_v2 stores it."};
  }
  if (!layout.is_awq()) return std::nullopt;
  if (facts.is_head) return Refusal{"readers of AWQ take the head for unquantized", {}};
  if (facts.ordered) {
    return Refusal{fmt::format("{} has no place for the order of inputs (desc_act)", layout.name()),
                   "gptq, gptq_v2 and compressed-tensors store it."};
  }
  if (module.group_size != awq_group_size) {
    return Refusal{fmt::format("AWQ has one group_size for all layers: {} here, and {} for others",
                               module.group_size, awq_group_size),
                   {}};
  }
  return std::nullopt;
}

// The smallest width from `bits` on that the layout holds.
int fitting_bits(const TargetLayout& layout, int bits) {
  if (layout.is_awq()) return 4;
  if (layout.affine == AffineLayout::kGptqPlanar) return bits;
  if (layout.affine && bits == 3) return 3;
  return bits <= 2 ? 2 : bits <= 4 ? 4 : 8;
}

// As if it did not matter where scale * zero point is rounded.
ModulePlan with_exact_zero_terms(ModulePlan module) {
  module.facts.exact_zero_terms = true;
  return module;
}

// What --requantize makes of a module that does not go into the layout as it is.
void plan_requantized(const TargetLayout& layout, int64_t awq_group_size, ModulePlan& module) {
  const ModuleFacts& facts = module.facts;
  const bool has_grid = facts.formula == WeightFormula::kAffine || facts.formula == WeightFormula::kOffset;
  if (has_grid && !refusal(with_exact_zero_terms(module), layout, awq_group_size)) {
    module.stored_as = StoredAs::kSameCodes;
    return;
  }
  module.stored_as = StoredAs::kRequantized;
  module.bits = fitting_bits(layout, facts.formula == WeightFormula::kRowAbsmax ? 8 : facts.bits);
  module.sym = !layout.is_awq() && (!has_grid || facts.sym);
  module.ordered = false;
  if (layout.is_awq()) module.group_size = awq_group_size;
  if (!has_grid) module.group_size = fitting_size({{std::string(), module}});
  if (layout.is_awq() && facts.is_head) module.stored_as = StoredAs::kFloat;
  if (refusal_of_sizes(module, layout)) module.stored_as = StoredAs::kFloat;
}

// The group size that most modules have which can keep their codes in an AWQ model; where none can, that of
// most which could be rounded anew on the same groups.
int64_t choose_awq_group_size(const std::map<std::string, ModulePlan>& modules, const TargetLayout& layout) {
  std::map<int64_t, size_t> keeping;
  std::map<int64_t, size_t> fitting;
  for (const auto& [name, module] : modules) {
    if (!refusal(with_exact_zero_terms(module), layout, module.group_size)) ++keeping[module.group_size];
    ModulePlan anew = module;
    anew.bits = 4;
    const bool has_groups = module.facts.formula == WeightFormula::kAffine || module.group_size != -1;
    if (has_groups && !refusal_of_sizes(anew, layout)) ++fitting[module.group_size];
  }
  for (const auto& counts : {keeping, fitting}) {
    const auto most = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (most != counts.end()) return most->first;
  }
  return fitting_size(modules);
}

// A module with as many inputs as others have in a group is no exception to them.
void name_groups_alike(std::map<std::string, ModulePlan>& modules) {
  for (auto& [name, module] : modules) {
    const auto size = static_cast<int64_t>(module.facts.in_features);
    const bool usual = std::any_of(modules.begin(), modules.end(),
                                   [size](const auto& other) { return other.second.group_size == size; });
    if (module.group_size == -1 && usual) module.group_size = size;
  }
}

bool is_in_layout(const std::string& format, const TargetLayout& layout) {
  if (!layout.affine) return format == kPackQuantized;
  return format == layout.name() || format == fmt::format("awq {}", layout.name());
}

// Scales of activations are copied with all other tensors, and only readers of AWQ look for them.
Status check_input_scales(const ModelSource& source, const TargetLayout& layout) {
  const auto scales = input_scales_of(*source.checkpoint, source.slots);
  if (layout.is_awq() || scales.empty()) return {};
  return fail(ErrorCode::kUnsupported, "{} divides activations, and readers of {} do not know such scales",
              scales.begin()->second, layout.name())
      .at(source.files.name)
      .with_fix("Convert it --to float, which puts them into the weights, and quantize that.");
}

Status check_source(const ModelSource& source, const ConversionPlan& plan) {
  if (plan.modules.empty()) {
    return fail(ErrorCode::kInvalidArgument, "nothing in this model is quantized")
        .at(source.files.name)
        .with_fix("A float model becomes a quantized one with: nibble quantize MODEL -o DIR");
  }
  const bool all = std::all_of(plan.modules.begin(), plan.modules.end(), [&](const auto& module) {
    return is_in_layout(module.second.facts.format, plan.layout);
  });
  if (!all) return {};
  return fail(ErrorCode::kInvalidArgument, "the model is stored as {} already", plan.layout.name())
      .at(source.files.name);
}

}  // namespace

std::vector<std::string> conversion_layouts() {
  std::vector<std::string> names;
  for (size_t i = 0; i <= static_cast<size_t>(AffineLayout::kAwqGemvFast); ++i) {
    names.emplace_back(affine_layout_name(static_cast<AffineLayout>(i)));
  }
  names.emplace_back(kCompressedTensors);
  return names;
}

std::string_view stored_as_name(StoredAs stored_as) {
  constexpr std::string_view kNames[] = {"exact", "same_codes", "requantized", "float"};
  return kNames[static_cast<size_t>(stored_as)];
}

std::string_view TargetLayout::name() const {
  return affine ? affine_layout_name(*affine) : kCompressedTensors;
}

Expected<TargetLayout> target_layout_from_name(std::string_view name) {
  if (name == kCompressedTensors) return TargetLayout{};
  NIBBLE_TRY(const AffineLayout affine, affine_layout_from_name(name));
  return TargetLayout{affine};
}

ModuleFacts module_facts(const QuantizedWeight& weight) {
  ModuleFacts facts;
  facts.formula = weight.formula;
  facts.rounding = weight.rounding;
  facts.out_features = weight.out_features;
  facts.in_features = weight.in_features;
  facts.bits = weight.bits;
  facts.group_size = group_size_of(weight);
  facts.ordered = !weight.g_idx.empty();
  if (weight.formula != WeightFormula::kAffine && weight.formula != WeightFormula::kOffset) return facts;
  const auto middle = static_cast<float>(1u << (weight.bits - 1));
  const auto most = static_cast<float>((1u << weight.bits) - 1);
  facts.sym = true;
  facts.exact_zero_terms = true;
  for (size_t k = 0; k < weight.zeros.size(); ++k) {
    const float scale = weight.scales[k];
    const std::optional<float> zero = weight.formula == WeightFormula::kAffine
                                          ? weight.zeros[k]
                                          : zero_point_of(scale, weight.zeros[k], most);
    if (!zero) {
      facts.integer_zeros = false;
      break;
    }
    facts.sym = facts.sym && *zero == middle;
    facts.has_zero_0 = facts.has_zero_0 || *zero == 0.f;
    // A negative or zero scale makes -0 of some codes by one formula and 0 by the other.
    facts.exact_zero_terms = facts.exact_zero_terms && scale > 0.f && half(scale * *zero) == scale * *zero;
  }
  return facts;
}

QuantizedWeight with_zero_points(QuantizedWeight weight) {
  if (weight.formula != WeightFormula::kOffset) return weight;
  const auto most = static_cast<float>((1u << weight.bits) - 1);
  for (size_t k = 0; k < weight.zeros.size(); ++k) {
    const std::optional<float> zero = zero_point_of(weight.scales[k], weight.zeros[k], most);
    NIBBLE_CHECK(zero);
    weight.zeros[k] = *zero;
  }
  weight.formula = WeightFormula::kAffine;
  return weight;
}

size_t ConversionPlan::count(StoredAs stored_as) const {
  return static_cast<size_t>(std::count_if(modules.begin(), modules.end(), [stored_as](const auto& module) {
    return module.second.stored_as == stored_as;
  }));
}

CompressedTensorsGroup group_of(const ModulePlan& module) {
  return {.bits = module.bits,
          .sym = module.sym,
          .group_size = module.group_size,
          .actorder = module.ordered ? "group" : ""};
}

Expected<ConversionPlan> plan_conversion(const ModelSource& source, const TargetLayout& layout,
                                         bool show_progress) {
  NIBBLE_RETURN_IF_ERROR(check_input_scales(source, layout));
  ConversionPlan plan;
  plan.layout = layout;
  std::map<std::string, size_t> formats;
  std::optional<Progress> progress;
  if (show_progress) progress.emplace("reading", source.quantized.size(), "modules");
  for (const std::string& name : source.quantized) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    if (progress) progress->advance();
    const ModuleSlot& slot = source.slot(name);
    NIBBLE_TRY(const DecodedModule decoded, decode_module(*source.checkpoint, name, *source.quantization,
                                                          LinearShape{slot.shape[0], slot.shape[1]}));
    for (const std::string& tensor : decoded.tensors) source.checkpoint->drop(tensor);
    ModulePlan module{.facts = module_facts(decoded.weight)};
    module.facts.format = decoded.format;
    module.facts.is_head = slot.role == ModuleRole::kHead;
    module.bits = module.facts.bits;
    module.group_size = module.facts.group_size;
    module.sym = module.facts.sym;
    module.ordered = module.facts.ordered;
    ++formats[decoded.format];
    plan.modules.emplace(name, std::move(module));
  }
  NIBBLE_RETURN_IF_ERROR(check_source(source, plan));
  name_groups_alike(plan.modules);
  plan.from = std::max_element(formats.begin(), formats.end(), [](const auto& a, const auto& b) {
                return a.second < b.second;
              })->first;
  const int64_t awq_group_size = layout.is_awq() ? choose_awq_group_size(plan.modules, layout) : int64_t{-1};
  for (auto& [name, module] : plan.modules) {
    const std::optional<Refusal> found = refusal(module, layout, awq_group_size);
    if (!found) continue;
    module.why = found->what;
    module.fix = found->fix;
    plan_requantized(layout, awq_group_size, module);
  }
  NIBBLE_TRY(plan.config, converted_config(source, plan));
  return plan;
}

}  // namespace nibble
