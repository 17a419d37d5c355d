#include <algorithm>
#include <cmath>
#include <iterator>

#include "nibble/base/json.h"
#include "nibble/quantization/formats/bnb_4bit.h"

namespace nibble {
namespace {

constexpr std::string_view kKeys[] = {"quant_type", "blocksize", "dtype", "shape"};
constexpr std::string_view kNestedKeys[] = {"nested_blocksize", "nested_dtype", "nested_offset"};

bool is_one_of(std::string_view key, const auto& keys) {
  return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
}

// Python's repr: the shortest digits that read back as the same double, never without a point.
std::string python_float(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

Expected<size_t> read_blocksize(const Json& json, std::string_view key) {
  const Json& value = json.at(std::string(key));
  for (const size_t blocksize : kBnbBlocksizes) {
    if (value.is_number_integer() && value == blocksize) return blocksize;
  }
  return fail(ErrorCode::kDataLoss, "{} is {}, but must be one of {}", key, value.dump(),
              fmt::join(kBnbBlocksizes, ", "));
}

Status check_keys(const Json& json, bool nested) {
  for (const auto& [key, value] : json.items()) {
    if (is_one_of(key, kKeys) || is_one_of(key, kNestedKeys)) continue;
    return fail(ErrorCode::kDataLoss, "unknown key \"{}\"; known are {}, {}", key, fmt::join(kKeys, ", "),
                fmt::join(kNestedKeys, ", "));
  }
  for (const std::string_view key : kKeys) {
    if (!json.contains(key)) return fail(ErrorCode::kDataLoss, "the key \"{}\" is missing", key);
  }
  for (const std::string_view key : kNestedKeys) {
    if (json.contains(key) == nested) continue;
    return fail(ErrorCode::kDataLoss,
                "the key \"{}\" is missing, but others of double quantization are there", key);
  }
  return {};
}

Status read_shape(const Json& value, BnbQuantState& state) {
  const bool fits = value.is_array() && value.size() == 2 && value[0].is_number_unsigned() &&
                    value[1].is_number_unsigned() && value[0] > 0 && value[1] > 0;
  if (!fits) return fail(ErrorCode::kDataLoss, "shape is {}, but must be [outputs, inputs]", value.dump());
  state.out_features = value[0].get<size_t>();
  state.in_features = value[1].get<size_t>();
  size_t count = 0;
  if (__builtin_mul_overflow(state.out_features, state.in_features, &count)) {
    return fail(ErrorCode::kDataLoss, "shape is {}, which is more than there can be", value.dump());
  }
  return {};
}

}  // namespace

std::string to_text(const BnbQuantState& state) {
  std::string text = fmt::format(R"({{"quant_type": "{}", "blocksize": {}, "dtype": "{}", "shape": [{}, {}])",
                                 state.quant_type, state.blocksize, torch_dtype_name(state.dtype),
                                 state.out_features, state.in_features);
  if (state.nested) {
    text += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
                        state.nested_blocksize, python_float(state.nested_offset));
  }
  return text + "}";
}

Expected<BnbQuantState> parse_quant_state(std::string_view text) {
  NIBBLE_TRY(const Json json, parse_json(text));
  if (!json.is_object()) {
    return fail(ErrorCode::kDataLoss, "the state is {}, but must be a JSON object", json_type_name(json));
  }
  BnbQuantState state;
  state.nested = std::any_of(std::begin(kNestedKeys), std::end(kNestedKeys),
                             [&](std::string_view key) { return json.contains(key); });
  NIBBLE_RETURN_IF_ERROR(check_keys(json, state.nested));

  const Json& quant_type = json.at("quant_type");
  if (quant_type != "nf4" && quant_type != "fp4") {
    return fail(ErrorCode::kDataLoss, "quant_type is {}, but must be \"nf4\" or \"fp4\"", quant_type.dump());
  }
  state.quant_type = quant_type.get<std::string>();
  NIBBLE_TRY(state.blocksize, read_blocksize(json, "blocksize"));
  const Json& dtype = json.at("dtype");
  const auto known =
      dtype.is_string() ? dtype_from_torch_name(dtype.get_ref<const std::string&>()) : std::nullopt;
  if (known != DType::kF16 && known != DType::kBF16 && known != DType::kF32) {
    return fail(ErrorCode::kDataLoss, "dtype is {}, but must be \"float16\", \"bfloat16\" or \"float32\"",
                dtype.dump());
  }
  state.dtype = *known;
  NIBBLE_RETURN_IF_ERROR(read_shape(json.at("shape"), state));
  if (!state.nested) return state;

  NIBBLE_TRY(state.nested_blocksize, read_blocksize(json, "nested_blocksize"));
  if (json.at("nested_dtype") != "float32" && json.at("nested_dtype") != "torch.float32") {
    return fail(ErrorCode::kDataLoss, "nested_dtype is {}, but must be \"float32\"",
                json.at("nested_dtype").dump());
  }
  const Json& offset = json.at("nested_offset");
  state.nested_offset = offset.is_number() ? static_cast<float>(offset.get<double>()) : NAN;
  if (!std::isfinite(state.nested_offset)) {
    return fail(ErrorCode::kDataLoss, "nested_offset is {}, but must be a finite number", offset.dump());
  }
  return state;
}

}  // namespace nibble
