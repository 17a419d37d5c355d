#include "nibble/kernels/strip_matrix.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "nibble/base/float16.h"
#include "nibble/quantization/formats/bit_spread.h"

namespace nibble::kernels {
namespace {

size_t blocks_of(size_t inputs) { return (inputs + kBlockInputs - 1) / kBlockInputs; }

bool is_affine(const QuantizedWeight& w) {
  return w.formula == WeightFormula::kAffine || w.formula == WeightFormula::kOffset;
}

// Whether float16 holds the value as well as a quantized weight needs it: exactly, or with all 11 bits.
bool fits_half(float value) {
  const float magnitude = std::fabs(value);
  return (magnitude >= 0x1p-14f && magnitude <= 65504.f) || fp16_to_float(float_to_fp16(value)) == value;
}

bool is_half(float value) { return fp16_to_float(float_to_fp16(value)) == value; }

bool is_byte(float value) {
  return value >= 0.f && value <= 255.f && value == static_cast<float>(static_cast<int>(value));
}

// The scales of a run in the rows [o, o + count).
void scales_of(const QuantizedWeight& w, const InputGroups::Run& run, size_t o, size_t count, float* out) {
  if (is_affine(w)) {
    std::copy_n(w.scales.begin() + static_cast<std::ptrdiff_t>(run.group * w.out_features + o), count, out);
  } else if (w.formula == WeightFormula::kRowAbsmax) {
    std::copy_n(w.absmax.begin() + static_cast<std::ptrdiff_t>(o), count, out);
  } else if (w.in_features % w.group_size == 0) {
    const size_t blocks_of_row = w.in_features / w.group_size;
    const float* const first = w.absmax.data() + o * blocks_of_row + run.begin / w.group_size;
    for (size_t n = 0; n < count; ++n) out[n] = first[n * blocks_of_row];
  } else {
    for (size_t n = 0; n < count; ++n)
      out[n] = w.absmax[((o + n) * w.in_features + run.begin) / w.group_size];
  }
}

// Eight codes in bytes as nibbles.
uint32_t nibbles_of(const uint8_t* codes) {
  uint64_t bytes;
  std::memcpy(&bytes, codes, sizeof(bytes));
  return static_cast<uint32_t>(squeeze<4>(bytes));
}

// A block of one output's codes as the words of its lane, one for each line of the form.
void lane_words(const uint8_t* codes, CodeForm form, uint32_t* words) {
  if (form == CodeForm::kBytes) {
    std::memcpy(words, codes, kBlockInputs);
    return;
  }
  uint32_t nibbles[kBlockInputs / 8];
  for (size_t e = 0; e < std::size(nibbles); ++e) nibbles[e] = nibbles_of(codes + 8 * e);
  if (form == CodeForm::kNibbles || form == CodeForm::kNibbleTable) {
    std::memcpy(words, nibbles, sizeof(nibbles));
    return;
  }
  constexpr uint32_t kTwoLow = 0x33333333;
  words[0] = (nibbles[0] & kTwoLow) | (nibbles[1] & kTwoLow) << 2;
  words[1] = (nibbles[2] & kTwoLow) | (nibbles[3] & kTwoLow) << 2;
  if (form == CodeForm::kTwoBits) return;
  words[2] = 0;
  for (size_t e = 0; e < std::size(nibbles); ++e) words[2] |= (nibbles[e] >> 2 & 0x11111111u) << e;
}

// One output's codes into its four bytes of each line.
void pack_lane(std::span<const uint8_t> row, CodeForm form, uint8_t* lane) {
  for (size_t p = 0; p < row.size(); p += kBlockInputs) {
    uint32_t words[lines_per_block(CodeForm::kBytes)];
    lane_words(row.data() + p, form, words);
    for (size_t i = 0; i < lines_per_block(form); ++i, lane += kLineBytes) {
      std::memcpy(lane, words + i, sizeof(words[i]));
    }
  }
}

// Sixteen codes of two bits, 0 to 15, in the order 0 8 1 9 ... 7 15 of CodeForm::kTwoBits: the second and the
// third quarter change places, then those of each half, then those of each quarter (the perfect shuffle of
// Hacker's Delight, 7-2).
uint32_t two_bit_lane(uint32_t word) {
  const auto exchange = [&](int distance, uint32_t mask) {
    const uint32_t moved = (word ^ word >> distance) & mask;
    word ^= moved ^ moved << distance;
  };
  exchange(8, 0x0000FF00u);
  exchange(4, 0x00F000F0u);
  exchange(2, 0x0C0C0C0Cu);
  return word;
}

// The codes of one output that stand at these positions, as a word; filling is 0.
uint32_t gather_word(const CodeWords& words, int bits, const uint32_t* positions, size_t o) {
  const size_t per_word = CodeWords::codes_per_word(bits);
  const uint32_t mask = (1u << bits) - 1;
  uint32_t word = 0;
  for (size_t p = 0; p < per_word; ++p) {
    if (positions[p] == kNoInput) continue;
    const size_t shift = positions[p] % per_word * static_cast<size_t>(bits);
    word |= (words.at(positions[p] / per_word, o) >> shift & mask) << p * static_cast<size_t>(bits);
  }
  return word;
}

// `count` outputs from `first` on into the lines of a strip: a word holds the inputs of a lane.
void pack_strip(const CodeWords& words, CodeForm form, size_t first, size_t count, size_t num_lines,
                std::span<const uint32_t> positions, uint8_t* lines) {
  const int bits = form == CodeForm::kTwoBits ? 2 : 4;
  const bool whole_lines =
      bits == 4 && words.output_stride == 1 && count == kStripOutputs && positions.empty();
  for (size_t i = 0; i < num_lines; ++i, lines += kLineBytes) {
    if (whole_lines) {
      std::memcpy(lines, words.address(i, first), kLineBytes);
      continue;
    }
    for (size_t n = 0; n < count; ++n) {
      uint32_t word =
          positions.empty()
              ? words.at(i, first + n)
              : gather_word(words, bits, positions.data() + CodeWords::codes_per_word(bits) * i, first + n);
      if (bits == 2) word = two_bit_lane(word);
      std::memcpy(lines + n * sizeof(word), &word, sizeof(word));
    }
  }
}

constexpr size_t kStripsPerTask = 8;

// What a weight has for each output and group.
struct GroupShape {
  size_t out_features;
  size_t num_groups;
  ThreadPool& pool;

  size_t num_strips() const { return (out_features + kStripOutputs - 1) / kStripOutputs; }
  size_t padded_size() const { return num_strips() * num_groups * kStripOutputs; }
};

// fn(values, count, i) for each strip and group: what values_of(o, count, g, values) says of the `count`
// outputs from o on; i: the place of the first in [strips][groups][16]. By the pool's threads.
template <class ValuesOf, class Fn>
void for_each_group(const GroupShape& shape, ValuesOf values_of, Fn fn) {
  shape.pool.parallel_for(shape.num_strips(), kStripsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t strip = begin; strip < end; ++strip) {
      const size_t first = strip * kStripOutputs;
      const size_t count = std::min(kStripOutputs, shape.out_features - first);
      for (size_t g = 0; g < shape.num_groups; ++g) {
        float values[kStripOutputs];
        values_of(first, count, g, values);
        fn(values, count, (strip * shape.num_groups + g) * kStripOutputs);
      }
    }
  });
}

// Whether kHolds() for all values. A template's argument, so that it is part of the loop.
template <auto kHolds, class ValuesOf>
bool all_groups(const GroupShape& shape, ValuesOf values_of) {
  std::atomic<bool> all = true;
  for_each_group(shape, values_of, [&](const float* values, size_t count, size_t) {
    bool here = true;
    for (size_t n = 0; n < count; ++n) here = here && kHolds(values[n]);
    if (!here) all.store(false, std::memory_order_relaxed);
  });
  return all;
}

// Values for [strips][groups][16], as float16 or float; padding outputs get 0.
template <class ValuesOf>
AlignedBuffer strip_floats(const GroupShape& shape, bool half, ValuesOf values_of) {
  AlignedBuffer buffer(shape.padded_size() * (half ? sizeof(uint16_t) : sizeof(float)));
  for_each_group(shape, values_of, [&](const float* values, size_t count, size_t i) {
    if (half) {
      for (size_t n = 0; n < count; ++n) buffer.as<uint16_t>()[i + n] = float_to_fp16(values[n]);
    } else {
      std::copy_n(values, count, buffer.as<float>() + i);
    }
  });
  return buffer;
}

// Groups of a codebook weight within a row: its blocks, or the row where blocks span whole rows.
InputGroups codebook_groups(const QuantizedWeight& w) {
  InputGroups groups;
  const size_t size = std::min(w.group_size, w.in_features);
  for (size_t begin = 0; begin < w.in_features; begin += size) {
    groups.runs.push_back({begin, std::min(begin + size, w.in_features), groups.runs.size()});
  }
  return groups;
}

// value = step * (byte - zero).
struct ByteGrid {
  float step;
  float zero;
  uint8_t byte_of(float value) const { return static_cast<uint8_t>(std::nearbyintf(value / step + zero)); }
};

// The grid of bytes that is closest to the entries of a codebook, each as likely as the others (NF4 is made
// for that): of sixteen values a step and a zero point can be found that hit most of them well.
ByteGrid best_byte_grid(std::span<const float> codebook) {
  float largest = 0.f;
  for (const float v : codebook) largest = std::max(largest, std::fabs(v));
  if (largest == 0.f) return {1.f, 128.f};
  ByteGrid best = {largest / 127.f, 128.f};
  double least = HUGE_VAL;
  for (int s = 0; s < 512; ++s) {
    for (int z = -8; z <= 8; ++z) {
      const ByteGrid grid = {largest / 127.f * (1.f + 0.001f * static_cast<float>(s)),
                             128.f + 0.0625f * static_cast<float>(z)};
      double error = 0;
      for (const float v : codebook) {
        if (error >= least) break;
        const float place = v / grid.step + grid.zero;
        const double distance = double{v} - double{grid.step} * (std::nearbyint(place) - double{grid.zero});
        error += place > -0.5f && place < 255.5f ? distance * distance : HUGE_VAL;
      }
      if (error < least) {
        least = error;
        best = grid;
      }
    }
  }
  return best;
}

InputGroups groups_of(const QuantizedWeight& w) {
  if (is_affine(w)) return sort_inputs(w);
  if (w.formula == WeightFormula::kCodebook) return codebook_groups(w);
  return {{}, {{0, w.in_features, 0}}};
}

CodeForm form_of(const QuantizedWeight& w) {
  if (w.bits > 4) return CodeForm::kBytes;
  if (w.formula == WeightFormula::kCodebook) return CodeForm::kNibbleTable;
  return w.bits == 2 ? CodeForm::kTwoBits : w.bits == 3 ? CodeForm::kThreeBits : CodeForm::kNibbles;
}

}  // namespace

bool StripMatrix::suits(const QuantizedWeight& w) {
  if (w.formula == WeightFormula::kCodebook && w.in_features % w.group_size != 0 &&
      w.group_size % w.in_features != 0) {
    return false;
  }
  const InputGroups groups = groups_of(w);
  size_t padded = 0;
  for (const InputGroups::Run& run : groups.runs) padded += blocks_of(run.end - run.begin) * kBlockInputs;
  return padded <= w.in_features + w.in_features / 4;
}

StripMatrix::StripMatrix(const QuantizedWeight& weight, ThreadPool& pool, size_t span_blocks)
    : out_features_(weight.out_features),
      in_features_(weight.in_features),
      groups_(groups_of(weight)),
      form_(form_of(weight)) {
  set_groups(weight.formula == WeightFormula::kRowAbsmax ? SIZE_MAX : span_blocks);
  if (weight.formula == WeightFormula::kCodebook) set_codebook(weight);
  pack_scales(weight, pool);
  pack_codes(weight, pool);
}

void StripMatrix::set_groups(size_t span_blocks) {
  bool identity = groups_.order.empty();
  uint32_t block = 0;
  for (const InputGroups::Run& run : groups_.runs) {
    const size_t inputs = run.end - run.begin;
    for (size_t left = blocks_of(inputs); left > 0;) {
      const size_t size = std::min(left, span_blocks);
      block += static_cast<uint32_t>(size);
      span_ends_.push_back(block);
      left -= size;
    }
    group_ends_.push_back(static_cast<uint32_t>(span_ends_.size()));
    for (size_t p = run.begin; p < run.end; ++p)
      positions_.push_back(static_cast<uint32_t>(groups_.input(p)));
    identity = identity && inputs % kBlockInputs == 0;
    positions_.resize(size_t{block} * kBlockInputs, kNoInput);
  }
  if (identity) positions_.clear();
}

void StripMatrix::set_codebook(const QuantizedWeight& weight) {
  const ByteGrid grid = best_byte_grid(weight.codebook);
  scale_unit_ = grid.step;
  zero_ = grid.zero;
  byte_of_code_.resize(256, 128);
  for (size_t c = 0; c < weight.codebook.size(); ++c) byte_of_code_[c] = grid.byte_of(weight.codebook[c]);
  std::copy_n(byte_of_code_.begin(), 16, table_);
}

void StripMatrix::pack_scales(const QuantizedWeight& weight, ThreadPool& pool) {
  const GroupShape shape = {out_features_, groups_.runs.size(), pool};
  const auto scale = [&](size_t o, size_t count, size_t g, float* out) {
    scales_of(weight, groups_.runs[g], o, count, out);
    for (size_t n = 0; n < count; ++n) out[n] *= scale_unit_;
  };
  const auto zero = [&](size_t o, size_t count, size_t g, float* out) {
    const size_t first = groups_.runs[g].group * weight.out_features + o;
    std::copy_n(weight.zeros.begin() + static_cast<std::ptrdiff_t>(first), count, out);
  };
  const auto offset = [&](size_t o, size_t count, size_t g, float* out) {
    zero(o, count, g, out);
    if (weight.formula == WeightFormula::kOffset) return;
    float scales[kStripOutputs];
    scale(o, count, g, scales);
    for (size_t n = 0; n < count; ++n) out[n] = -(scales[n] * out[n]);
  };
  const bool same_zeros = std::ranges::all_of(weight.zeros, [&](float z) { return z == weight.zeros[0]; });

  half_scales_ = weight.formula != WeightFormula::kRowAbsmax && all_groups<fits_half>(shape, scale);
  if (weight.formula == WeightFormula::kRowAbsmax) zero_ = 128.f;
  const bool offsets = weight.formula == WeightFormula::kOffset ||
                       (weight.formula == WeightFormula::kAffine &&
                        !(same_zeros ? is_byte(weight.zeros[0]) : all_groups<is_byte>(shape, zero)));
  if (offsets) {
    half_scales_ = half_scales_ && all_groups<is_half>(shape, offset);
    offsets_ = strip_floats(shape, half_scales_, offset);
  } else if (weight.formula == WeightFormula::kAffine) {
    zero_ = weight.zeros[0];
    if (!same_zeros) {
      zeros_ = AlignedBuffer(shape.padded_size());
      for_each_group(shape, zero, [&](const float* values, size_t count, size_t i) {
        for (size_t n = 0; n < count; ++n) zeros_.as<uint8_t>()[i + n] = static_cast<uint8_t>(values[n]);
      });
    }
  }
  scales_ = strip_floats(shape, half_scales_, scale);
}

void StripMatrix::pack_codes(const QuantizedWeight& weight, ThreadPool& pool) {
  const Strips w = view();
  codes_ = AlignedBuffer(w.num_strips() * w.strip_bytes());
  if (weight.words) {
    pool.parallel_for(w.num_strips(), 1, [&](size_t begin, size_t end, size_t) {
      for (size_t s = begin; s < end; ++s) {
        pack_strip(*weight.words, form_, s * kStripOutputs,
                   std::min(kStripOutputs, out_features_ - s * kStripOutputs), w.strip_bytes() / kLineBytes,
                   positions_, codes_.as<uint8_t>() + s * w.strip_bytes());
      }
    });
    return;
  }
  const size_t count = w.num_blocks * kBlockInputs;
  const bool map = form_ == CodeForm::kBytes && !byte_of_code_.empty();
  pool.parallel_for(w.num_strips(), 1, [&](size_t begin, size_t end, size_t) {
    std::vector<uint8_t> row(count);
    for (size_t o = begin * kStripOutputs; o < std::min(end * kStripOutputs, out_features_); ++o) {
      const uint8_t* const codes = weight.codes.data() + o * in_features_;
      if (positions_.empty()) {
        std::memcpy(row.data(), codes, count);
      } else {
        for (size_t p = 0; p < count; ++p) row[p] = positions_[p] == kNoInput ? 0 : codes[positions_[p]];
      }
      if (map) {
        for (uint8_t& code : row) code = byte_of_code_[code];
      }
      uint8_t* const lane =
          codes_.as<uint8_t>() + o / kStripOutputs * w.strip_bytes() + o % kStripOutputs * 4;
      pack_lane(row, form_, lane);
    }
  });
}

Strips StripMatrix::view() const {
  return {.out_features = out_features_,
          .num_blocks = span_ends_.back(),
          .span_ends = span_ends_,
          .group_ends = group_ends_,
          .form = form_,
          .codes = codes_.as<uint8_t>(),
          .table = table_,
          .half_scales = half_scales_,
          .scales = scales_.data(),
          .zeros = zeros_.size() == 0 ? nullptr : zeros_.as<uint8_t>(),
          .zero = zero_,
          .offsets = offsets_.data()};
}

}  // namespace nibble::kernels
