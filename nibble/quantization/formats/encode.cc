#include "nibble/quantization/formats/encode.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "nibble/base/check.h"
#include "nibble/base/float16.h"
#include "nibble/quantization/formats/awq.h"
#include "nibble/quantization/formats/gptq_packing.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {
namespace {

using Tensors = std::map<std::string, Tensor>;
using Infos = std::map<std::string, TensorInfo>;

constexpr std::array<std::string_view, 6> kNames = {"gptq", "gptq_v2", "gptq_p", "gemm", "gemv", "gemv_fast"};

constexpr size_t kCodesPerWord = 8;   // AWQ: codes in 32 bits
constexpr size_t kGptqMultiple = 32;  // AutoGPTQ allocates whole runs of 32 only

bool is_gptq(AffineLayout layout) { return layout <= AffineLayout::kGptqPlanar; }

GptqPacking packing_of(AffineLayout layout, int bits) {
  return {.bits = bits, .planar = layout == AffineLayout::kGptqPlanar};
}

std::string_view holder_of_bits(int bits) {
  const bool continuous = is_valid({.bits = bits});
  return bits == 4    ? "Every layout holds 4 bits."
         : continuous ? "gptq, gptq_v2 and gptq_p hold it."
                      : "gptq_p holds 2 to 8 bits.";
}

Status check_gptq(AffineLayout layout, int bits, size_t out_features, size_t in_features) {
  if (!is_valid(packing_of(layout, bits))) {
    return fail(ErrorCode::kInvalidArgument, "{} bits do not go into the layout {}", bits,
                affine_layout_name(layout))
        .with_fix(holder_of_bits(bits));
  }
  if (out_features % kGptqMultiple == 0 && in_features % kGptqMultiple == 0) return {};
  const bool gemm = bits == 4 && out_features % kCodesPerWord == 0;
  return fail(ErrorCode::kInvalidArgument, "{} outputs and {} inputs, but {} needs multiples of {}",
              out_features, in_features, affine_layout_name(layout), kGptqMultiple)
      .with_fix(gemm ? "The layout gemm holds it where group_size divides the inputs; otherwise leave the "
                       "module as it is."
                     : "No layout holds it: leave the module as it is.");
}

// Words of zero points of an output in gemv and gemv_fast, as AutoAWQ's kernels want them padded.
// Nothing for a group size that they do not know.
std::optional<size_t> gemv_zero_words(size_t num_groups, size_t group_size) {
  const size_t multiple = group_size >= 128 ? 1 : group_size == 64 ? 2 : group_size == 32 ? 4 : 0;
  if (multiple == 0) return std::nullopt;
  return ceil_div(ceil_div(num_groups, kCodesPerWord), multiple) * multiple;
}

Status check_awq(AffineLayout layout, int bits, size_t out_features, size_t in_features, size_t group_size) {
  const std::string_view name = affine_layout_name(layout);
  if (bits != 4) {
    return fail(ErrorCode::kInvalidArgument, "{} bits do not go into the layout {}, which holds 4", bits,
                name)
        .with_fix(holder_of_bits(bits));
  }
  const size_t inputs = layout == AffineLayout::kAwqGemvFast ? 64 : layout == AffineLayout::kAwqGemv ? 8 : 1;
  if (out_features % kCodesPerWord != 0 || in_features % inputs != 0) {
    return fail(ErrorCode::kInvalidArgument, "{} outputs and {} inputs, but {} needs multiples of {} and {}",
                out_features, in_features, name, kCodesPerWord, inputs)
        .with_fix(out_features % kCodesPerWord == 0 ? "The layout gemm takes any number of inputs."
                                                    : "No layout holds it: leave the module as it is.");
  }
  if (in_features % group_size != 0) {
    return fail(ErrorCode::kInvalidArgument, "group_size {} does not divide the {} inputs, as {} wants it",
                group_size, in_features, name)
        .with_fix("The layouts gptq, gptq_v2 and gptq_p have a short last group.");
  }
  if (layout != AffineLayout::kAwqGemm && !gemv_zero_words(in_features / group_size, group_size)) {
    return fail(ErrorCode::kInvalidArgument, "group_size {}, but {} knows 32, 64 and those from 128",
                group_size, name)
        .with_fix("The layout gemm holds any group_size.");
  }
  return {};
}

Status check_formula(const QuantizedWeight& weight, AffineLayout layout) {
  if (weight.formula != WeightFormula::kAffine) {
    return fail(ErrorCode::kInvalidArgument,
                "the weight has no scales and integer zero points, which {} stores",
                affine_layout_name(layout));
  }
  const size_t params = weight.num_groups * weight.out_features;
  NIBBLE_CHECK(weight.group_size > 0);
  NIBBLE_CHECK(weight.codes.size() == weight.out_features * weight.in_features);
  NIBBLE_CHECK(weight.scales.size() == params && weight.zeros.size() == params);
  NIBBLE_CHECK(weight.num_groups == ceil_div(weight.in_features, weight.group_size));
  NIBBLE_CHECK(weight.g_idx.empty() || weight.g_idx.size() == weight.in_features);
  NIBBLE_CHECK(union_of(weight.codes) >> weight.bits == 0);
  return {};
}

bool has_input_order(const QuantizedWeight& weight) {
  for (size_t i = 0; i < weight.g_idx.size(); ++i) {
    if (weight.g_idx[i] != i / weight.group_size) return true;
  }
  return false;
}

// "group 1, output 7" for an element of scales or zeros.
std::string place_of(const QuantizedWeight& weight, size_t index) {
  return fmt::format("group {}, output {}", index / weight.out_features, index % weight.out_features);
}

Expected<std::vector<uint16_t>> half_scales(const QuantizedWeight& weight) {
  std::vector<uint16_t> halves(weight.scales.size());
  for (size_t k = 0; k < halves.size(); ++k) {
    halves[k] = float_to_fp16(weight.scales[k]);
    if (!std::isfinite(fp16_to_float(halves[k]))) {
      return fail(ErrorCode::kInvalidArgument, "the scale {} of {} is no float16", weight.scales[k],
                  place_of(weight, k));
    }
  }
  return halves;
}

Expected<std::vector<uint8_t>> zero_codes(const QuantizedWeight& weight) {
  const auto maxq = static_cast<float>((1u << weight.bits) - 1);
  std::vector<uint8_t> zeros(weight.zeros.size());
  for (size_t k = 0; k < zeros.size(); ++k) {
    const float zero = weight.zeros[k];
    if (!(zero >= 0.f && zero <= maxq) || zero != std::floor(zero)) {
      return fail(ErrorCode::kInvalidArgument, "the zero point {} of {} is no integer of {} bits", zero,
                  place_of(weight, k), weight.bits);
    }
    zeros[k] = static_cast<uint8_t>(zero);
  }
  return zeros;
}

// "gptq" stores zero - 1. A zero of 0 does not fit: GPTQModel lets it borrow from the fields above,
// AutoGPTQ destroys them, and readers differ accordingly.
Status subtract_one(const QuantizedWeight& weight, std::vector<uint8_t>& zeros) {
  const auto found = std::find(zeros.begin(), zeros.end(), 0);
  if (found != zeros.end()) {
    return fail(ErrorCode::kInvalidArgument,
                "the zero point of {} is 0, and programs disagree on how gptq stores that",
                place_of(weight, static_cast<size_t>(found - zeros.begin())))
        .with_fix("The layout gptq_v2 stores it.");
  }
  for (uint8_t& zero : zeros) --zero;
  return {};
}

// [groups, outputs] -> [outputs, padded], zero behind the last group.
template <class T>
std::vector<T> by_output(const std::vector<T>& by_group, size_t out_features, size_t padded) {
  std::vector<T> values(out_features * padded);
  for (size_t k = 0; k < by_group.size(); ++k) {
    values[k % out_features * padded + k / out_features] = by_group[k];
  }
  return values;
}

Expected<Tensors> encode_gptq(const QuantizedWeight& weight, AffineLayout layout, const Infos& infos) {
  const GptqPacking packing = packing_of(layout, weight.bits);
  NIBBLE_TRY(std::vector<uint16_t> scales, half_scales(weight));
  NIBBLE_TRY(std::vector<uint8_t> zeros, zero_codes(weight));
  if (layout == AffineLayout::kGptq) NIBBLE_RETURN_IF_ERROR(subtract_one(weight, zeros));

  const size_t zero_words = infos.at("qzeros").shape[1];
  std::vector<uint32_t> qzeros(weight.num_groups * zero_words);
  for (size_t g = 0; g < weight.num_groups; ++g) {
    pack_gptq_row(packing, zeros.data() + g * weight.out_features, weight.out_features,
                  qzeros.data() + g * zero_words);
  }
  std::vector<uint32_t> qweight(infos.at("qweight").shape[0] * weight.out_features);
  pack_gptq_columns(packing, weight.codes.data(), weight.out_features, weight.in_features, qweight.data());
  std::vector<int32_t> g_idx(weight.in_features);
  for (size_t i = 0; i < g_idx.size(); ++i) g_idx[i] = static_cast<int32_t>(weight.group_of(i));

  Tensors tensors;
  tensors["qweight"] = Tensor::of(DType::kI32, infos.at("qweight").shape, std::move(qweight));
  tensors["qzeros"] = Tensor::of(DType::kI32, infos.at("qzeros").shape, std::move(qzeros));
  tensors["scales"] = Tensor::of(DType::kF16, infos.at("scales").shape, std::move(scales));
  tensors["g_idx"] = Tensor::of(DType::kI32, infos.at("g_idx").shape, std::move(g_idx));
  return tensors;
}

// gemm and gemv, both 32-bit words.
Expected<Tensors> encode_awq_words(const QuantizedWeight& weight, AffineLayout layout, const Infos& infos) {
  const bool gemm = layout == AffineLayout::kAwqGemm;
  const auto pack = gemm ? pack_awq_gemm : pack_awq_gemv;
  NIBBLE_TRY(std::vector<uint16_t> scales, half_scales(weight));
  NIBBLE_TRY(const std::vector<uint8_t> zeros, zero_codes(weight));
  const size_t padded = gemm ? weight.num_groups : infos.at("scales").shape[1];
  if (!gemm) scales = by_output(scales, weight.out_features, padded);

  std::vector<uint32_t> qweight(weight.codes.size() / kCodesPerWord);
  pack(weight.codes.data(), weight.out_features, weight.in_features, qweight.data());
  std::vector<uint32_t> qzeros(weight.out_features * padded / kCodesPerWord);
  pack(by_output(zeros, weight.out_features, padded).data(), weight.out_features, padded, qzeros.data());

  Tensors tensors;
  tensors["qweight"] = Tensor::of(DType::kI32, infos.at("qweight").shape, std::move(qweight));
  tensors["qzeros"] = Tensor::of(DType::kI32, infos.at("qzeros").shape, std::move(qzeros));
  tensors["scales"] = Tensor::of(DType::kF16, infos.at("scales").shape, std::move(scales));
  return tensors;
}

Expected<Tensors> encode_awq_fast(const QuantizedWeight& weight, const Infos& infos) {
  NIBBLE_TRY(std::vector<uint16_t> scales, half_scales(weight));
  NIBBLE_RETURN_IF_ERROR(zero_codes(weight));
  std::vector<uint16_t> scaled_zeros(scales.size());
  for (size_t k = 0; k < scales.size(); ++k) {
    scaled_zeros[k] = float_to_fp16(-(fp16_to_float(scales[k]) * weight.zeros[k]));
    if (!std::isfinite(fp16_to_float(scaled_zeros[k]))) {
      return fail(ErrorCode::kInvalidArgument, "scale {} times zero point {} of {} is no float16",
                  weight.scales[k], weight.zeros[k], place_of(weight, k))
          .with_fix("The layout gemm stores them apart.");
    }
  }
  const size_t padded = infos.at("scales").shape[0] * weight.out_features;
  scales.resize(padded);
  scaled_zeros.resize(padded);
  std::vector<uint16_t> qweight(weight.codes.size() / 4);
  pack_awq_fast(weight.codes.data(), weight.out_features, weight.in_features, qweight.data());

  Tensors tensors;
  tensors["qweight"] = Tensor::of(DType::kI16, infos.at("qweight").shape, std::move(qweight));
  tensors["qzeros"] = Tensor::of(DType::kF16, infos.at("qzeros").shape, std::move(scaled_zeros));
  tensors["scales"] = Tensor::of(DType::kF16, infos.at("scales").shape, std::move(scales));
  return tensors;
}

}  // namespace

Expected<AffineLayout> affine_layout_from_name(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\" is no layout", name)
        .with_fix(fmt::format("Layouts are {}.", fmt::join(kNames, ", ")));
  }
  return static_cast<AffineLayout>(found - kNames.begin());
}

std::string_view affine_layout_name(AffineLayout layout) { return kNames[static_cast<size_t>(layout)]; }

Expected<Infos> encoded_tensors(AffineLayout layout, int bits, size_t out_features, size_t in_features,
                                size_t group_size) {
  if (out_features == 0 || in_features == 0) {
    return fail(ErrorCode::kInvalidArgument, "{} outputs and {} inputs are no weight", out_features,
                in_features);
  }
  if (group_size == 0) group_size = in_features;
  if (is_gptq(layout)) {
    NIBBLE_RETURN_IF_ERROR(check_gptq(layout, bits, out_features, in_features));
  } else {
    NIBBLE_RETURN_IF_ERROR(check_awq(layout, bits, out_features, in_features, group_size));
  }
  const size_t num_groups = ceil_div(in_features, group_size);
  const size_t padded = gemv_zero_words(num_groups, group_size).value_or(0) * kCodesPerWord;
  switch (layout) {
    case AffineLayout::kGptq:
    case AffineLayout::kGptqV2:
    case AffineLayout::kGptqPlanar: {
      const GptqPacking packing = packing_of(layout, bits);
      return Infos{{"qweight", {DType::kI32, {*gptq_words(in_features, packing), out_features}}},
                   {"qzeros", {DType::kI32, {num_groups, *gptq_words(out_features, packing)}}},
                   {"scales", {DType::kF16, {num_groups, out_features}}},
                   {"g_idx", {DType::kI32, {in_features}}}};
    }
    case AffineLayout::kAwqGemm:
      return Infos{{"qweight", {DType::kI32, {in_features, out_features / kCodesPerWord}}},
                   {"qzeros", {DType::kI32, {num_groups, out_features / kCodesPerWord}}},
                   {"scales", {DType::kF16, {num_groups, out_features}}}};
    case AffineLayout::kAwqGemv:
      return Infos{{"qweight", {DType::kI32, {out_features, in_features / kCodesPerWord}}},
                   {"qzeros", {DType::kI32, {out_features, padded / kCodesPerWord}}},
                   {"scales", {DType::kF16, {out_features, padded}}}};
    case AffineLayout::kAwqGemvFast:
      break;
  }
  return Infos{{"qweight", {DType::kI16, {out_features / 4, in_features}}},
               {"qzeros", {DType::kF16, {padded, out_features}}},
               {"scales", {DType::kF16, {padded, out_features}}}};
}

Expected<Tensors> encode_affine(const QuantizedWeight& weight, AffineLayout layout) {
  NIBBLE_RETURN_IF_ERROR(check_formula(weight, layout));
  if (!is_gptq(layout) && has_input_order(weight)) {
    return fail(ErrorCode::kInvalidArgument, "{} has no place for the order of inputs (desc_act)",
                affine_layout_name(layout))
        .with_fix("The layouts gptq, gptq_v2 and gptq_p store it.");
  }
  NIBBLE_TRY(const Infos infos, encoded_tensors(layout, weight.bits, weight.out_features, weight.in_features,
                                                weight.group_size));
  if (is_gptq(layout)) return encode_gptq(weight, layout, infos);
  if (layout == AffineLayout::kAwqGemvFast) return encode_awq_fast(weight, infos);
  return encode_awq_words(weight, layout, infos);
}

}  // namespace nibble
