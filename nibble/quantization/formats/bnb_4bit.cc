#include "nibble/quantization/formats/bnb_4bit.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace nibble {
namespace {

constexpr size_t kCodes = 16;         // entries of quant_map
constexpr size_t kNestedCodes = 256;  // entries of nested_quant_map

const std::vector<DType>& storage_dtypes() {
  static const std::vector<DType> kDTypes = {DType::kU8,   DType::kI8,  DType::kF16,
                                             DType::kBF16, DType::kF32, DType::kF64};
  return kDTypes;
}

struct Bnb4bitLayout {
  BnbQuantState state;
  size_t num_blocks = 0;
  std::vector<std::string> suffixes;  // of the tensors that belong to the weight
};

// The suffix of the one state, and no tensor beside the known ones.
Expected<std::string> find_state(const ModuleTensors& tensors) {
  std::vector<std::string> states;
  for (const std::string& suffix : tensors.below("weight.")) {
    if (suffix.starts_with(kQuantStatePrefix)) {
      states.push_back(suffix);
    } else if (suffix != "weight.absmax" && suffix != "weight.quant_map" &&
               suffix != "weight.nested_absmax" && suffix != "weight.nested_quant_map") {
      return fail(ErrorCode::kDataLoss, "not a tensor of a bitsandbytes weight")
          .at(tensors.where(suffix))
          .with_fix("The file is damaged, or written by a program that Nibble does not know.");
    }
  }
  if (states.size() == 1) return states.front();
  const std::string expected = fmt::format("{}nf4 or ...__fp4", tensors.name(kQuantStatePrefix));
  if (states.empty()) {
    return fail(ErrorCode::kDataLoss, "the state of the quantization is missing: {}", expected)
        .at(tensors.name("weight"))
        .with_fix("The checkpoint is incomplete: fetch it again.");
  }
  return fail(ErrorCode::kDataLoss, "{} states of the quantization ({}), but there must be one",
              states.size(), fmt::join(states, ", "))
      .at(tensors.name("weight"))
      .with_fix("The file is damaged: fetch it again.");
}

Expected<BnbQuantState> read_state(const ModuleTensors& tensors, const std::string& suffix) {
  NIBBLE_RETURN_IF_ERROR(tensors.require(suffix, {DType::kU8, DType::kI8}, 1));
  NIBBLE_TRY(const Tensor tensor, tensors.load(suffix));
  const std::string_view text(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  auto state = at(tensors.where(suffix), parse_quant_state(text));
  if (!state) return Failure(std::move(state).error()).with_fix("The file is damaged: fetch it again.");
  if (std::string_view(suffix).substr(kQuantStatePrefix.size()) != state->quant_type) {
    return fail(ErrorCode::kDataLoss, "quant_type is \"{}\", but the name of the tensor says otherwise",
                state->quant_type)
        .at(tensors.where(suffix))
        .with_fix("The file is damaged: fetch it again.");
  }
  return state;
}

// weight: two codes a byte, whatever type the bytes are stored as.
Status check_weight(const ModuleTensors& tensors, const BnbQuantState& state) {
  const TensorInfo* info = tensors.find("weight");
  NIBBLE_RETURN_IF_ERROR(
      tensors.require("weight", storage_dtypes(), info == nullptr ? 2 : info->shape.size()));
  const size_t bytes = num_bytes(*info).value_or(0);
  const size_t needed = ceil_div(state.out_features * state.in_features, 2);
  if (bytes == needed) return {};
  return fail(ErrorCode::kDataLoss, "{} bytes of codes, but [{}, {}] (quant_state) takes {}", bytes,
              state.out_features, state.in_features, needed)
      .at(tensors.where("weight"))
      .with_fix("The file is damaged: fetch it again.");
}

Expected<Bnb4bitLayout> read_layout(const ModuleTensors& tensors, const std::optional<LinearShape>& shape) {
  Bnb4bitLayout layout;
  NIBBLE_TRY(const std::string state_suffix, find_state(tensors));
  NIBBLE_TRY(layout.state, read_state(tensors, state_suffix));
  const BnbQuantState& state = layout.state;
  if (shape && (shape->out_features != state.out_features || shape->in_features != state.in_features)) {
    return fail(ErrorCode::kDataLoss, "shape is [{}, {}], but config.json asks for [{}, {}]",
                state.out_features, state.in_features, shape->out_features, shape->in_features)
        .at(tensors.where(state_suffix))
        .with_fix("The file belongs to another model: check the folder.");
  }
  NIBBLE_RETURN_IF_ERROR(check_weight(tensors, state));
  layout.suffixes = {"weight", "weight.absmax", "weight.quant_map", state_suffix};

  layout.num_blocks = ceil_div(state.out_features * state.in_features, state.blocksize);
  const std::string blocks =
      fmt::format("{} codes in blocks of {}", state.out_features * state.in_features, state.blocksize);
  NIBBLE_RETURN_IF_ERROR(tensors.require("weight.quant_map", {DType::kF32}, 1));
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape("weight.quant_map", {kCodes}, "codes of 4 bits"));
  NIBBLE_RETURN_IF_ERROR(tensors.require("weight.absmax", {state.nested ? DType::kU8 : DType::kF32}, 1));
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape("weight.absmax", {layout.num_blocks}, blocks));
  for (const std::string suffix : {"weight.nested_absmax", "weight.nested_quant_map"}) {
    if (!state.nested && tensors.has(suffix)) {
      return fail(ErrorCode::kDataLoss, "the tensor is there, but the quant_state has no nested_offset")
          .at(tensors.where(suffix))
          .with_fix("The file is damaged: fetch it again.");
    }
    if (!state.nested) continue;
    NIBBLE_RETURN_IF_ERROR(tensors.require(suffix, {DType::kF32}, 1));
    layout.suffixes.push_back(suffix);
  }
  if (!state.nested) return layout;
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape("weight.nested_quant_map", {kNestedCodes}, "codes of 8 bits"));
  NIBBLE_RETURN_IF_ERROR(tensors.require_shape(
      "weight.nested_absmax", {ceil_div(layout.num_blocks, state.nested_blocksize)},
      fmt::format("{} values of absmax in blocks of {}", layout.num_blocks, state.nested_blocksize)));
  return layout;
}

Expected<std::vector<float>> read_absmax(const ModuleTensors& tensors, const BnbQuantState& state) {
  if (!state.nested) return tensors.load_finite("weight.absmax");
  NIBBLE_TRY(const Tensor codes, tensors.load("weight.absmax"));
  NIBBLE_TRY(const std::vector<float> map, tensors.load_finite("weight.nested_quant_map"));
  NIBBLE_TRY(const std::vector<float> scales, tensors.load_finite("weight.nested_absmax"));
  std::vector<float> absmax(codes.bytes.size());
  for (size_t i = 0; i < absmax.size(); ++i) {
    // Two roundings, as the original's dequantization.
    const float product = map[static_cast<size_t>(codes.bytes[i])] * scales[i / state.nested_blocksize];
    absmax[i] = product + state.nested_offset;
  }
  return absmax;
}

// The first code of a byte is in its high half.
std::vector<uint8_t> unpack_codes(std::span<const std::byte> bytes, size_t count) {
  std::vector<uint8_t> codes(count);
  for (size_t k = 0; k < count / 2; ++k) {
    const auto pair = static_cast<uint8_t>(bytes[k]);
    codes[2 * k] = pair >> 4;
    codes[2 * k + 1] = pair & 0xF;
  }
  if (count % 2 != 0) codes.back() = static_cast<uint8_t>(bytes.back()) >> 4;
  return codes;
}

// The same bytes with the first code of each in its low half, as words; their number is a multiple of 4.
Tensor swap_halves(std::span<const std::byte> bytes) {
  const size_t count = bytes.size() / sizeof(uint32_t);
  const NewWords words(count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t word = 0;
    std::memcpy(&word, bytes.data() + i * sizeof(word), sizeof(word));
    words.data[i] = (word & 0x0F0F0F0Fu) << 4 | (word >> 4 & 0x0F0F0F0Fu);
  }
  return words.tensor();
}

}  // namespace

Expected<DecodedModule> decode_bnb_4bit(const ModuleTensors& tensors, const std::optional<LinearShape>& shape,
                                        CodeStorage storage) {
  NIBBLE_TRY(const Bnb4bitLayout layout, read_layout(tensors, shape));
  const BnbQuantState& state = layout.state;
  DecodedModule decoded;
  QuantizedWeight& weight = decoded.weight;
  weight.formula = WeightFormula::kCodebook;
  weight.out_features = state.out_features;
  weight.in_features = state.in_features;
  weight.bits = 4;
  weight.group_size = state.blocksize;
  weight.dtype = state.dtype;
  // The file's own table, not the one the name of the format suggests.
  NIBBLE_TRY(weight.codebook, tensors.load_finite("weight.quant_map"));
  NIBBLE_TRY(weight.absmax, read_absmax(tensors, state));
  NIBBLE_TRY(const Tensor packed, tensors.load("weight"));
  if (storage == CodeStorage::kWords && weight.in_features % 8 == 0) {
    weight.words = {swap_halves(packed.bytes), 1, weight.in_features / 8};
  } else {
    weight.codes = unpack_codes(packed.bytes, state.out_features * state.in_features);
  }
  decoded.format = "bitsandbytes " + state.quant_type;
  return decoded;
}

Expected<ModuleSummary> summarize_bnb_4bit(const ModuleTensors& tensors) {
  NIBBLE_TRY(const Bnb4bitLayout layout, read_layout(tensors, std::nullopt));
  ModuleSummary summary;
  summary.format = "bitsandbytes " + layout.state.quant_type;
  summary.out_features = layout.state.out_features;
  summary.in_features = layout.state.in_features;
  summary.bits = 4;
  summary.group_size = layout.state.blocksize;
  summary.stored_bytes = tensors.stored_bytes(layout.suffixes);
  return summary;
}

}  // namespace nibble
