#ifndef NIBBLE_CHECKPOINT_GGUF_H_
#define NIBBLE_CHECKPOINT_GGUF_H_

// The container of GGUF files, versions 2 and 3, little-endian (docs/formats/gguf.md):
//   magic "GGUF", version, number of tensors, number of key-value pairs
//   key-value pairs: the metadata
//   tensors: name, sizes, type, offset into the data part
//   padding to general.alignment, the data part

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/tensor.h"

namespace nibble {

// The numbers are those of the file. Nibble expands some of them (gguf_quants.h); it knows the sizes
// of all.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;
  size_t block_elements;  // consecutive elements of a row that are stored together
  size_t block_bytes;
};

const GgmlTypeInfo& ggml_type_info(GgmlType type);

struct GgufTensor {
  GgmlType type = GgmlType::kF32;
  Shape shape;       // row-major, as everywhere in Nibble: the reverse of the file's order
  size_t part = 0;   // which file of a split model (gguf_files.h)
  size_t begin = 0;  // offset into that file
  size_t bytes = 0;
};

struct GgufHeader {
  // Floats are the shortest decimal that rounds to the file's float32: 1e-05, not
  // 9.99999974737875e-06. Strings are bytes, not necessarily UTF-8.
  std::map<std::string, Json, std::less<>> metadata;
  std::map<std::string, GgufTensor, std::less<>> tensors;
};

// The shortest decimal that rounds to `value`, as a double.
double shortest_double(float value);

// Checks everything that can be known without reading the tensors.
Expected<GgufHeader> parse_gguf(std::span<const std::byte> file);

// A metadata value; nothing if there is no such key, kDataLoss if it is of another kind.
Expected<std::optional<uint64_t>> gguf_integer(const GgufHeader& header, std::string_view key);
Expected<std::optional<double>> gguf_number(const GgufHeader& header, std::string_view key);
Expected<std::optional<bool>> gguf_bool(const GgufHeader& header, std::string_view key);
Expected<std::optional<std::string>> gguf_string(const GgufHeader& header, std::string_view key);
// null if there is no such key.
Expected<const Json*> gguf_array(const GgufHeader& header, std::string_view key);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_H_
