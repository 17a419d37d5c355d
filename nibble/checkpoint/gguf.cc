#include "nibble/checkpoint/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <set>
#include <tuple>
#include <type_traits>

#include "nibble/checkpoint/gguf_quants.h"
#include "nibble/checkpoint/utf8.h"

namespace nibble {
namespace {

constexpr std::array kTypes = {
    GgmlTypeInfo{GgmlType::kF32, "F32", 1, 4},
    GgmlTypeInfo{GgmlType::kF16, "F16", 1, 2},
    GgmlTypeInfo{GgmlType::kQ4_0, "Q4_0", 32, 18},
    GgmlTypeInfo{GgmlType::kQ4_1, "Q4_1", 32, 20},
    GgmlTypeInfo{GgmlType::kQ5_0, "Q5_0", 32, 22},
    GgmlTypeInfo{GgmlType::kQ5_1, "Q5_1", 32, 24},
    GgmlTypeInfo{GgmlType::kQ8_0, "Q8_0", 32, 34},
    GgmlTypeInfo{GgmlType::kQ2_K, "Q2_K", 256, 84},
    GgmlTypeInfo{GgmlType::kQ3_K, "Q3_K", 256, 110},
    GgmlTypeInfo{GgmlType::kQ4_K, "Q4_K", 256, 144},
    GgmlTypeInfo{GgmlType::kQ5_K, "Q5_K", 256, 176},
    GgmlTypeInfo{GgmlType::kQ6_K, "Q6_K", 256, 210},
    GgmlTypeInfo{GgmlType::kIQ2_XXS, "IQ2_XXS", 256, 66},
    GgmlTypeInfo{GgmlType::kIQ2_XS, "IQ2_XS", 256, 74},
    GgmlTypeInfo{GgmlType::kIQ3_XXS, "IQ3_XXS", 256, 98},
    GgmlTypeInfo{GgmlType::kIQ1_S, "IQ1_S", 256, 50},
    GgmlTypeInfo{GgmlType::kIQ4_NL, "IQ4_NL", 32, 18},
    GgmlTypeInfo{GgmlType::kIQ3_S, "IQ3_S", 256, 110},
    GgmlTypeInfo{GgmlType::kIQ2_S, "IQ2_S", 256, 82},
    GgmlTypeInfo{GgmlType::kIQ4_XS, "IQ4_XS", 256, 136},
    GgmlTypeInfo{GgmlType::kI8, "I8", 1, 1},
    GgmlTypeInfo{GgmlType::kI16, "I16", 1, 2},
    GgmlTypeInfo{GgmlType::kI32, "I32", 1, 4},
    GgmlTypeInfo{GgmlType::kI64, "I64", 1, 8},
    GgmlTypeInfo{GgmlType::kF64, "F64", 1, 8},
    GgmlTypeInfo{GgmlType::kIQ1_M, "IQ1_M", 256, 56},
    GgmlTypeInfo{GgmlType::kBF16, "BF16", 1, 2},
    GgmlTypeInfo{GgmlType::kTQ1_0, "TQ1_0", 256, 54},
    GgmlTypeInfo{GgmlType::kTQ2_0, "TQ2_0", 256, 66},
    GgmlTypeInfo{GgmlType::kMXFP4, "MXFP4", 32, 17},
};

const GgmlTypeInfo* find_type(uint32_t id) {
  const auto* found = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgmlTypeInfo& info) {
    return static_cast<uint32_t>(info.type) == id;
  });
  return found == kTypes.end() ? nullptr : found;
}

enum class ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// What a hostile file may make us allocate; real files stay below a tenth of each.
constexpr size_t kMaxGgufHeaderBytes = size_t{256} << 20;
constexpr size_t kMaxArrayElements = size_t{8} << 20;  // of all arrays together
constexpr size_t kMaxPairs = size_t{1} << 16;
constexpr size_t kMaxTensors = size_t{1} << 16;
constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxDims = 4;  // ggml's limit
constexpr uint64_t kDefaultAlignment = 32;

constexpr std::string_view kFetchGgufAgain = "The download is incomplete: fetch the file again.";
constexpr std::string_view kDamagedGguf = "The file is damaged: fetch it again.";

// Walks over the header. One thread at a time.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> file)
      : bytes_(file.first(std::min(file.size(), kMaxGgufHeaderBytes))),
        is_cut_(file.size() > kMaxGgufHeaderBytes) {}

  size_t position() const { return position_; }

  template <class T>
  Expected<T> number() {
    NIBBLE_TRY(const auto bytes, take(sizeof(T)));
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  Expected<std::string> string() {
    NIBBLE_TRY(const uint64_t length, number<uint64_t>());
    NIBBLE_TRY(const auto bytes, take(length));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  // A name of a key or a tensor.
  Expected<std::string> name() {
    NIBBLE_TRY(std::string text, string());
    if (text.empty() || text.size() > kMaxNameBytes || !is_utf8(text)) {
      return fail(ErrorCode::kDataLoss, "a name of {} bytes, before byte {}, is not UTF-8 of 1 to {} bytes",
                  text.size(), position_, kMaxNameBytes)
          .with_fix(kDamagedGguf);
    }
    return text;
  }

  Expected<Json> value(uint32_t type) {
    switch (static_cast<ValueType>(type)) {
      case ValueType::kUint8:
        return json<uint8_t>();
      case ValueType::kInt8:
        return json<int8_t>();
      case ValueType::kUint16:
        return json<uint16_t>();
      case ValueType::kInt16:
        return json<int16_t>();
      case ValueType::kUint32:
        return json<uint32_t>();
      case ValueType::kInt32:
        return json<int32_t>();
      case ValueType::kUint64:
        return json<uint64_t>();
      case ValueType::kInt64:
        return json<int64_t>();
      case ValueType::kFloat32: {
        NIBBLE_TRY(const float value, number<float>());
        return Json(shortest_double(value));
      }
      case ValueType::kFloat64:
        return json<double>();
      case ValueType::kBool: {
        NIBBLE_TRY(const uint8_t value, number<uint8_t>());
        if (value > 1) return fail(ErrorCode::kDataLoss, "{} is neither true nor false", value);
        return Json(value == 1);
      }
      case ValueType::kString: {
        NIBBLE_TRY(std::string text, string());
        return Json(std::move(text));
      }
      case ValueType::kArray:
        return array();
    }
    return fail(ErrorCode::kDataLoss, "unknown value type {}", type).with_fix(kDamagedGguf);
  }

 private:
  Expected<std::span<const std::byte>> take(uint64_t count) {
    if (count <= bytes_.size() - position_) {
      const auto taken = bytes_.subspan(position_, count);
      position_ += count;
      return taken;
    }
    if (is_cut_) {
      return fail(ErrorCode::kDataLoss, "the header is longer than {} bytes", kMaxGgufHeaderBytes)
          .with_fix(kDamagedGguf);
    }
    return fail(ErrorCode::kDataLoss, "the header needs {} bytes at byte {}, but the file has {}", count,
                position_, bytes_.size())
        .with_fix(kFetchGgufAgain);
  }

  template <class T>
  Expected<Json> json() {
    NIBBLE_TRY(const T value, number<T>());
    if constexpr (std::is_unsigned_v<T>) return Json(uint64_t{value});
    if constexpr (std::is_integral_v<T>) return Json(static_cast<int64_t>(value));
    return Json(value);
  }

  Expected<Json> array() {
    NIBBLE_TRY(const uint32_t type, number<uint32_t>());
    NIBBLE_TRY(const uint64_t count, number<uint64_t>());
    if (static_cast<ValueType>(type) == ValueType::kArray) {
      return fail(ErrorCode::kUnsupported, "arrays of arrays; no known key holds one");
    }
    if (count > kMaxArrayElements - array_elements_) {
      return fail(ErrorCode::kDataLoss, "the arrays have more than {} elements", kMaxArrayElements)
          .with_fix(kDamagedGguf);
    }
    array_elements_ += count;
    Json list = Json::array();
    for (uint64_t i = 0; i < count; ++i) {
      NIBBLE_TRY(Json element, value(type));
      list.push_back(std::move(element));
    }
    return list;
  }

  const std::span<const std::byte> bytes_;
  const bool is_cut_;
  size_t position_ = 0;
  size_t array_elements_ = 0;
};

Status check_version(Reader& reader) {
  NIBBLE_TRY(const uint32_t magic, reader.number<uint32_t>());
  if (magic != 0x46554747u) {  // "GGUF"
    return fail(ErrorCode::kInvalidArgument, "not a GGUF file: it does not begin with \"GGUF\"")
        .with_fix("A model is a folder, a .gguf file, or org/name from the Hugging Face cache.");
  }
  NIBBLE_TRY(const uint32_t version, reader.number<uint32_t>());
  if (version == 2 || version == 3) return {};
  if ((version & 0xFFFFu) == 0) {
    return fail(ErrorCode::kUnsupported, "a big-endian GGUF file; only little-endian ones are read")
        .with_fix("Convert it with gguf-convert-endian from the Python package gguf.");
  }
  return fail(ErrorCode::kUnsupported, "GGUF version {}; versions 2 and 3 are read", version)
      .with_fix("Convert the model again with a current llama.cpp.");
}

Status read_metadata(Reader& reader, uint64_t count, GgufHeader& header) {
  if (count > kMaxPairs) {
    return fail(ErrorCode::kDataLoss, "{} metadata pairs, but at most {} are read", count, kMaxPairs)
        .with_fix(kDamagedGguf);
  }
  for (uint64_t i = 0; i < count; ++i) {
    NIBBLE_TRY(std::string key, reader.name());
    NIBBLE_TRY(const uint32_t type, reader.number<uint32_t>());
    NIBBLE_TRY(Json value, at(key, reader.value(type)));
    const auto [position, is_new] = header.metadata.emplace(std::move(key), std::move(value));
    if (!is_new) {
      return fail(ErrorCode::kDataLoss, "the key is there twice").at(position->first).with_fix(kDamagedGguf);
    }
  }
  return {};
}

// Bytes of a tensor; the innermost size must fill whole blocks.
Expected<size_t> tensor_bytes(const GgmlTypeInfo& type, const Shape& shape) {
  const size_t row = shape.empty() ? 1 : shape.back();
  if (row % type.block_elements != 0) {
    return fail(ErrorCode::kDataLoss, "rows of {} do not fill blocks of {} ({})", row, type.block_elements,
                type.name)
        .with_fix(kDamagedGguf);
  }
  const auto elements = num_elements(shape);
  size_t bytes = 0;
  if (!elements || __builtin_mul_overflow(*elements / type.block_elements, type.block_bytes, &bytes)) {
    return fail(ErrorCode::kDataLoss, "the size of {} {} is no number of bytes below 2^64", type.name,
                shape_name(shape))
        .with_fix(kDamagedGguf);
  }
  return bytes;
}

// `begin` is still relative to the data part.
Expected<GgufTensor> read_tensor(Reader& reader) {
  GgufTensor tensor;
  NIBBLE_TRY(const uint32_t dims, reader.number<uint32_t>());
  if (dims > kMaxDims) {
    return fail(ErrorCode::kDataLoss, "{} dimensions, but at most {} exist", dims, kMaxDims)
        .with_fix(kDamagedGguf);
  }
  for (uint32_t i = 0; i < dims; ++i) {
    NIBBLE_TRY(const uint64_t size, reader.number<uint64_t>());
    tensor.shape.insert(tensor.shape.begin(), size);
  }
  NIBBLE_TRY(const uint32_t type, reader.number<uint32_t>());
  NIBBLE_TRY(tensor.begin, reader.number<uint64_t>());
  const GgmlTypeInfo* const info = find_type(type);
  if (info == nullptr) {
    return fail(ErrorCode::kUnsupported, "tensor type {} is not known; {} can be read", type,
                dequantizable_types())
        .with_fix("Convert the model to F16 or Q8_0 with llama.cpp.");
  }
  tensor.type = info->type;
  NIBBLE_TRY(tensor.bytes, tensor_bytes(*info, tensor.shape));
  return tensor;
}

Expected<uint64_t> read_alignment(const GgufHeader& header) {
  NIBBLE_TRY(const auto alignment, gguf_integer(header, "general.alignment"));
  const uint64_t value = alignment.value_or(kDefaultAlignment);
  if (std::has_single_bit(value) && value <= kMaxGgufHeaderBytes) return value;
  return fail(ErrorCode::kDataLoss, "{} is not a power of two", value)
      .at("general.alignment")
      .with_fix(kDamagedGguf);
}

// Makes the offsets absolute and checks that each tensor lies in the file, aligned, on its own.
Status place_tensors(GgufHeader& header, size_t header_end, size_t file_bytes) {
  NIBBLE_TRY(const uint64_t alignment, read_alignment(header));
  const size_t data_start = (header_end + alignment - 1) / alignment * alignment;
  const size_t data_bytes = file_bytes - std::min(data_start, file_bytes);

  std::vector<std::pair<const std::string, GgufTensor>*> ordered;
  for (auto& entry : header.tensors) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::tie(a->second.begin, a->second.bytes) < std::tie(b->second.begin, b->second.bytes);
  });
  size_t free_from = 0;
  for (auto* entry : ordered) {
    auto& [name, tensor] = *entry;
    if (tensor.begin % alignment != 0) {
      return fail(ErrorCode::kDataLoss, "offset {} is not a multiple of {}", tensor.begin, alignment)
          .at(name)
          .with_fix(kDamagedGguf);
    }
    if (tensor.begin < free_from) {
      return fail(ErrorCode::kDataLoss, "offset {} lies inside the tensor before it, which ends at {}",
                  tensor.begin, free_from)
          .at(name)
          .with_fix(kDamagedGguf);
    }
    if (tensor.begin > data_bytes || tensor.bytes > data_bytes - tensor.begin) {
      return fail(ErrorCode::kDataLoss, "{} bytes at offset {} of the data, but the file has only {}",
                  tensor.bytes, tensor.begin, data_bytes)
          .at(name)
          .with_fix(kFetchGgufAgain);
    }
    free_from = tensor.begin + tensor.bytes;
    tensor.begin += data_start;
  }
  return {};
}

// The value if it is there and `is_kind` holds.
template <class T>
Expected<std::optional<T>> typed_value(const GgufHeader& header, std::string_view key,
                                       bool (Json::*is_kind)() const noexcept, std::string_view kind) {
  const auto found = header.metadata.find(key);
  if (found == header.metadata.end()) return std::optional<T>();
  if ((found->second.*is_kind)()) return std::optional<T>(found->second.get<T>());
  return fail(ErrorCode::kDataLoss, "{} where {} is expected", json_type_name(found->second), kind).at(key);
}

}  // namespace

const GgmlTypeInfo& ggml_type_info(GgmlType type) { return *find_type(static_cast<uint32_t>(type)); }

double shortest_double(float value) {
  std::array<char, 32> text;
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value);
  double result = value;
  std::from_chars(text.data(), written.ptr, result);
  return result;
}

Expected<GgufHeader> parse_gguf(std::span<const std::byte> file) {
  Reader reader(file);
  GgufHeader header;
  NIBBLE_RETURN_IF_ERROR(check_version(reader));
  NIBBLE_TRY(const uint64_t tensor_count, reader.number<uint64_t>());
  NIBBLE_TRY(const uint64_t pair_count, reader.number<uint64_t>());
  NIBBLE_RETURN_IF_ERROR(at("metadata", read_metadata(reader, pair_count, header)));
  if (tensor_count > kMaxTensors) {
    return fail(ErrorCode::kDataLoss, "{} tensors, but at most {} are read", tensor_count, kMaxTensors)
        .with_fix(kDamagedGguf);
  }
  for (uint64_t i = 0; i < tensor_count; ++i) {
    NIBBLE_TRY(std::string name, reader.name());
    NIBBLE_TRY(GgufTensor tensor, at(name, read_tensor(reader)));
    const auto [position, is_new] = header.tensors.emplace(std::move(name), std::move(tensor));
    if (!is_new) {
      return fail(ErrorCode::kDataLoss, "the tensor is there twice")
          .at(position->first)
          .with_fix(kDamagedGguf);
    }
  }
  NIBBLE_RETURN_IF_ERROR(place_tensors(header, reader.position(), file.size()));
  return header;
}

Expected<std::optional<uint64_t>> gguf_integer(const GgufHeader& header, std::string_view key) {
  NIBBLE_TRY(const auto value, typed_value<int64_t>(header, key, &Json::is_number_integer, "an integer"));
  if (!value) return std::optional<uint64_t>();
  // Unsigned values above 2^63 come out negative, too: nothing that is counted is that large.
  if (*value < 0) return fail(ErrorCode::kDataLoss, "{} is negative or too large", *value).at(key);
  return std::optional(static_cast<uint64_t>(*value));
}

Expected<std::optional<double>> gguf_number(const GgufHeader& header, std::string_view key) {
  return typed_value<double>(header, key, &Json::is_number, "a number");
}

Expected<std::optional<bool>> gguf_bool(const GgufHeader& header, std::string_view key) {
  return typed_value<bool>(header, key, &Json::is_boolean, "true or false");
}

Expected<std::optional<std::string>> gguf_string(const GgufHeader& header, std::string_view key) {
  NIBBLE_TRY(auto text, typed_value<std::string>(header, key, &Json::is_string, "a string"));
  if (text && !is_utf8(*text)) return fail(ErrorCode::kDataLoss, "not valid UTF-8").at(key);
  return text;
}

Expected<const Json*> gguf_array(const GgufHeader& header, std::string_view key) {
  const auto found = header.metadata.find(key);
  if (found == header.metadata.end()) return nullptr;
  if (found->second.is_array()) return &found->second;
  return fail(ErrorCode::kDataLoss, "{} where a list is expected", json_type_name(found->second)).at(key);
}

}  // namespace nibble
