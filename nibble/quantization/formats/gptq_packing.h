#ifndef NIBBLE_QUANTIZATION_FORMATS_GPTQ_PACKING_H_
#define NIBBLE_QUANTIZATION_FORMATS_GPTQ_PACKING_H_

// How GPTQ files lay codes into 32-bit words (docs/formats/gptq.md).
//
// 32 codes of `bits` bits fill `bits` words. Continuous: one little-endian stream of bits, lowest
// code first; the codes 0..7 at 4 bits are 0x76543210. Planar ("gptq_p"): the low bits of all 32
// codes come first, then the higher ones, each plane a stream of its own. At 2, 4 and 8 bits both
// are the same.

#include <cstddef>
#include <cstdint>
#include <optional>

namespace nibble {

struct GptqPacking {
  int bits = 4;         // 2 to 8; continuous: 2, 3, 4 or 8
  bool planar = false;  // checkpoint_format "gptq_p"
};

// Whether codes can be packed that way.
bool is_valid(const GptqPacking& packing);

// Words that `count` codes take. Planar runs are always 32 codes long, the last one is padded.
// Nothing on overflow.
std::optional<size_t> gptq_words(size_t count, const GptqPacking& packing);

// qweight: words [num_words, out_features], packed along the inputs -> codes [out_features, in_features].
// Missing words of a short last run count as zero.
void unpack_gptq_columns(const GptqPacking& packing, const uint32_t* words, size_t num_words,
                         size_t out_features, size_t in_features, uint8_t* codes);

// One row of qzeros: `count` codes from gptq_words(count) words.
void unpack_gptq_row(const GptqPacking& packing, const uint32_t* words, size_t count, uint8_t* codes);

// The way back, into gptq_words(in_features) rows of words or gptq_words(count) words; codes must be
// below 2^bits. What a short last run leaves over becomes zero.
void pack_gptq_columns(const GptqPacking& packing, const uint8_t* codes, size_t out_features,
                       size_t in_features, uint32_t* words);
void pack_gptq_row(const GptqPacking& packing, const uint8_t* codes, size_t count, uint32_t* words);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_GPTQ_PACKING_H_
