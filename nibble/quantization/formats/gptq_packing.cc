#include "nibble/quantization/formats/gptq_packing.h"

#include <algorithm>
#include <cstring>

#include "nibble/base/check.h"
#include "nibble/quantization/formats/bit_spread.h"

namespace nibble {
namespace {

constexpr size_t kWholeRun = 32;  // codes that fill whole words at every width

// Codes 8t .. 8t+7 of a plane: kWidth words that hold one stream of kWidth-bit fields.
template <int kWidth>
uint64_t eight_fields(const uint32_t* words, size_t t) {
  const size_t bit = size_t{8} * kWidth * t;
  const size_t word = bit / 32;
  uint64_t pair = words[word];
  if (word + 1 < kWidth) pair |= uint64_t{words[word + 1]} << 32;
  return spread<kWidth>(pair >> (bit % 32));
}

// One run: the planes' words -> 32 codes. kWidths: low plane first.
template <int... kWidths>
void unpack_run(const uint32_t* words, uint8_t* codes) {
  for (size_t t = 0; t < kWholeRun / 8; ++t) {
    const uint32_t* plane = words;
    uint64_t eight = 0;
    int shift = 0;
    ((eight |= eight_fields<kWidths>(plane, t) << shift, plane += kWidths, shift += kWidths), ...);
    std::memcpy(codes + 8 * t, &eight, sizeof(eight));
  }
}

// A cache line of words at a time: every line of qweight is read once, and 16 rows of codes grow
// side by side.
template <int... kWidths>
void unpack_columns(const uint32_t* words, size_t num_words, size_t out_features, size_t in_features,
                    uint8_t* codes) {
  constexpr size_t kBits = (kWidths + ...);
  constexpr size_t kTile = 16;
  for (size_t o = 0; o < out_features; o += kTile) {
    const size_t columns = std::min(kTile, out_features - o);
    for (size_t i = 0, row = 0; i < in_features; i += kWholeRun, row += kBits) {
      uint32_t run[kTile][kBits] = {};
      for (size_t w = 0; w < std::min(kBits, num_words - row); ++w) {
        const uint32_t* line = words + (row + w) * out_features + o;
        for (size_t c = 0; c < columns; ++c) run[c][w] = line[c];
      }
      const size_t count = std::min(kWholeRun, in_features - i);
      for (size_t c = 0; c < columns; ++c) {
        uint8_t* out = codes + (o + c) * in_features + i;
        if (count == kWholeRun) {
          unpack_run<kWidths...>(run[c], out);
        } else {
          uint8_t last[kWholeRun];
          unpack_run<kWidths...>(run[c], last);
          std::memcpy(out, last, count);
        }
      }
    }
  }
}

// eight_fields() backwards: ORs them in.
template <int kWidth>
void put_eight_fields(uint64_t fields, size_t t, uint32_t* words) {
  const size_t bit = size_t{8} * kWidth * t;
  const size_t word = bit / 32;
  const uint64_t pair = fields << (bit % 32);
  words[word] |= static_cast<uint32_t>(pair);
  if (word + 1 < kWidth) words[word + 1] |= static_cast<uint32_t>(pair >> 32);
}

// One run: 32 codes -> the planes' words.
template <int... kWidths>
void pack_run(const uint8_t* codes, uint32_t* words) {
  std::fill_n(words, (kWidths + ...), 0u);
  for (size_t t = 0; t < kWholeRun / 8; ++t) {
    uint64_t eight = 0;
    std::memcpy(&eight, codes + 8 * t, sizeof(eight));
    uint32_t* plane = words;
    int shift = 0;
    ((put_eight_fields<kWidths>(squeeze<kWidths>(eight >> shift), t, plane), plane += kWidths,
      shift += kWidths),
     ...);
  }
}

template <int... kWidths>
void pack_columns(const uint8_t* codes, size_t out_features, size_t in_features, size_t num_words,
                  uint32_t* words) {
  constexpr size_t kBits = (kWidths + ...);
  constexpr size_t kTile = 16;
  for (size_t o = 0; o < out_features; o += kTile) {
    const size_t columns = std::min(kTile, out_features - o);
    for (size_t i = 0, row = 0; i < in_features; i += kWholeRun, row += kBits) {
      uint32_t run[kTile][kBits];
      const size_t count = std::min(kWholeRun, in_features - i);
      for (size_t c = 0; c < columns; ++c) {
        const uint8_t* in = codes + (o + c) * in_features + i;
        uint8_t last[kWholeRun] = {};
        if (count < kWholeRun) in = static_cast<const uint8_t*>(std::memcpy(last, in, count));
        pack_run<kWidths...>(in, run[c]);
      }
      for (size_t w = 0; w < std::min(kBits, num_words - row); ++w) {
        uint32_t* line = words + (row + w) * out_features + o;
        for (size_t c = 0; c < columns; ++c) line[c] = run[c][w];
      }
    }
  }
}

struct Functions {
  void (*unpack_run)(const uint32_t* words, uint8_t* codes);
  void (*unpack_columns)(const uint32_t* words, size_t num_words, size_t out_features, size_t in_features,
                         uint8_t* codes);
  void (*pack_run)(const uint8_t* codes, uint32_t* words);
  void (*pack_columns)(const uint8_t* codes, size_t out_features, size_t in_features, size_t num_words,
                       uint32_t* words);
};

template <int... kWidths>
constexpr Functions functions_of() {
  return {unpack_run<kWidths...>, unpack_columns<kWidths...>, pack_run<kWidths...>, pack_columns<kWidths...>};
}

// By bits; the widths of the planes are GPTQModel's.
constexpr Functions kContinuous[] = {
    {}, {}, functions_of<2>(), functions_of<3>(), functions_of<4>(), {}, {}, {}, functions_of<8>(),
};
constexpr Functions kPlanar[] = {
    {},
    {},
    functions_of<2>(),
    functions_of<2, 1>(),
    functions_of<4>(),
    functions_of<4, 1>(),
    functions_of<4, 2>(),
    functions_of<4, 2, 1>(),
    functions_of<8>(),
};

Functions functions(const GptqPacking& packing) {
  NIBBLE_CHECK(is_valid(packing));
  return (packing.planar ? kPlanar : kContinuous)[packing.bits];
}

}  // namespace

bool is_valid(const GptqPacking& packing) {
  return packing.bits >= 2 && packing.bits <= 8 &&
         (packing.planar ? kPlanar : kContinuous)[packing.bits].unpack_run != nullptr;
}

std::optional<size_t> gptq_words(size_t count, const GptqPacking& packing) {
  const auto bits = static_cast<size_t>(packing.bits);
  const size_t runs = count / kWholeRun;
  const size_t rest = count % kWholeRun;
  size_t words = 0;
  if (__builtin_mul_overflow(runs, bits, &words)) return std::nullopt;
  const size_t last = rest == 0 ? 0 : packing.planar ? bits : (rest * bits + 31) / 32;
  if (__builtin_add_overflow(words, last, &words)) return std::nullopt;
  return words;
}

void unpack_gptq_columns(const GptqPacking& packing, const uint32_t* words, size_t num_words,
                         size_t out_features, size_t in_features, uint8_t* codes) {
  NIBBLE_CHECK(num_words >= gptq_words(in_features, packing).value_or(SIZE_MAX));
  functions(packing).unpack_columns(words, num_words, out_features, in_features, codes);
}

void unpack_gptq_row(const GptqPacking& packing, const uint32_t* words, size_t count, uint8_t* codes) {
  const Functions f = functions(packing);
  const size_t bits = static_cast<size_t>(packing.bits);
  const size_t num_words = gptq_words(count, packing).value_or(0);
  for (size_t i = 0, w = 0; i < count; i += kWholeRun, w += bits) {
    uint32_t run[8] = {};
    uint8_t last[kWholeRun];
    std::copy_n(words + w, std::min(bits, num_words - w), run);
    f.unpack_run(run, last);
    std::memcpy(codes + i, last, std::min(kWholeRun, count - i));
  }
}

void pack_gptq_columns(const GptqPacking& packing, const uint8_t* codes, size_t out_features,
                       size_t in_features, uint32_t* words) {
  const size_t num_words = gptq_words(in_features, packing).value_or(0);
  functions(packing).pack_columns(codes, out_features, in_features, num_words, words);
}

void pack_gptq_row(const GptqPacking& packing, const uint8_t* codes, size_t count, uint32_t* words) {
  const Functions f = functions(packing);
  const size_t bits = static_cast<size_t>(packing.bits);
  const size_t num_words = gptq_words(count, packing).value_or(0);
  for (size_t i = 0, w = 0; i < count; i += kWholeRun, w += bits) {
    uint8_t codes_of_run[kWholeRun] = {};
    uint32_t run[8];
    std::memcpy(codes_of_run, codes + i, std::min(kWholeRun, count - i));
    f.pack_run(codes_of_run, run);
    std::copy_n(run, std::min(bits, num_words - w), words + w);
  }
}

}  // namespace nibble
