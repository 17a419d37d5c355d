#ifndef NIBBLE_PIPELINE_CONVERT_PLAN_H_
#define NIBBLE_PIPELINE_CONVERT_PLAN_H_

// What becomes of each module of a quantized model when it is written in another layout, decided before
// anything is written (docs/formats/conversions.md).

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/models/model_source.h"
#include "nibble/pipeline/convert_quantized.h"
#include "nibble/quantization/formats/encode.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

// A layout that a model can be written in.
struct TargetLayout {
  std::optional<AffineLayout> affine;  // nothing: pack-quantized of compressed-tensors

  std::string_view name() const;
  bool is_gptq() const { return affine && *affine <= AffineLayout::kGptqPlanar; }
  bool is_awq() const { return affine && *affine > AffineLayout::kGptqPlanar; }
  bool has_zero_terms() const { return affine == AffineLayout::kAwqGemvFast; }
};
Expected<TargetLayout> target_layout_from_name(std::string_view name);

// What has to be known of a module's codes to say which layouts hold them.
struct ModuleFacts {
  std::string format = {};  // "awq gemm"
  WeightFormula formula = WeightFormula::kAffine;
  DType rounding = DType::kF16;
  size_t out_features = 0;
  size_t in_features = 0;
  int bits = 4;
  int64_t group_size = -1;  // -1: all inputs
  bool is_head = false;
  bool ordered = false;       // inputs are not in groups of neighbours (desc_act)
  bool integer_zeros = true;  // every zero point is a code; of gemv_fast: can be had back as one
  bool sym = false;           // every zero point is the middle one
  bool has_zero_0 = false;    // a zero point is 0
  // scale * zero point is a float16 in every group: the formulas of gemv_fast and of the others then give
  // the same weights.
  bool exact_zero_terms = false;
};
ModuleFacts module_facts(const QuantizedWeight& weight);

// The same weight with zero points in place of gemv_fast's zero terms -(scale * zero). Only for
// integer_zeros.
QuantizedWeight with_zero_points(QuantizedWeight weight);

// How a module is stored in the result.
struct ModulePlan {
  ModuleFacts facts = {};
  StoredAs stored_as = StoredAs::kExact;
  std::string why = {};  // it is not exact
  std::string fix = {};
  int bits = 4;
  int64_t group_size = -1;
  bool sym = false;
  bool ordered = false;
};

struct ConversionPlan {
  TargetLayout layout;
  std::string from;                           // format of most modules
  std::map<std::string, ModulePlan> modules;  // that were quantized
  QuantizationConfig config;                  // of the result

  size_t count(StoredAs stored_as) const;
};

// Reads all codes once. kInvalidArgument for a model that is not quantized or has that layout already.
Expected<ConversionPlan> plan_conversion(const ModelSource& source, const TargetLayout& layout,
                                         bool show_progress = false);

// The group of config_groups that a module falls under.
CompressedTensorsGroup group_of(const ModulePlan& module);

// --- convert_config.cc ---

// quantization_config of the result.
Expected<QuantizationConfig> converted_config(const ModelSource& source, const ConversionPlan& plan);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_CONVERT_PLAN_H_
