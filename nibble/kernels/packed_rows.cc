#include "nibble/kernels/packed_rows.h"

#include <algorithm>

#include "nibble/kernels/dequantize.h"

namespace nibble::kernels {
namespace {

int stored_width(int bits) { return bits <= 2 ? 2 : bits <= 4 ? 4 : 8; }

size_t rounded_up(size_t count, size_t unit) { return (count + unit - 1) / unit * unit; }

bool is_grouped(WeightFormula formula) {
  return formula == WeightFormula::kAffine || formula == WeightFormula::kOffset;
}

// values: [num_groups, out_features], as the files have them -> [out_features, runs]: a row's own side
// by side.
std::vector<float> by_row(const std::vector<float>& values, const QuantizedWeight& weight,
                          const InputGroups& inputs) {
  std::vector<float> result;
  result.reserve(weight.out_features * inputs.runs.size());
  for (size_t o = 0; o < weight.out_features; ++o) {
    for (const InputGroups::Run& run : inputs.runs) {
      result.push_back(values[run.group * weight.out_features + o]);
    }
  }
  return result;
}

}  // namespace

PackedRows::PackedRows(const QuantizedWeight& weight, ThreadPool& pool)
    : formula_(weight.formula),
      rounding_(weight.rounding),
      out_features_(weight.out_features),
      in_features_(weight.in_features),
      group_size_(weight.group_size),
      width_(stored_width(weight.bits)),
      row_bytes_(rounded_up((in_features_ * static_cast<size_t>(width_) + 7) / 8, kPackedAlign)),
      codes_(out_features_ * row_bytes_) {
  if (is_grouped(formula_)) {
    inputs_ = sort_inputs(weight);
    scales_ = CompactFloats(by_row(weight.scales, weight, inputs_));
    zeros_ = CompactFloats(by_row(weight.zeros, weight, inputs_));
  } else {
    scales_ = CompactFloats(weight.absmax);
  }
  codebook_ = weight.codebook;
  if (formula_ == WeightFormula::kCodebook) codebook_.resize(weight.bits <= 4 ? 16 : 256, 0.f);

  const size_t per_byte = static_cast<size_t>(8 / width_);
  pool.parallel_for(out_features_, 16, [&](size_t begin, size_t end, size_t) {
    for (size_t o = begin; o < end; ++o) {
      const uint8_t* const row = weight.codes.data() + o * in_features_;
      uint8_t* const packed = codes_.as<uint8_t>() + o * row_bytes_;
      for (size_t p = 0; p < in_features_; ++p) {
        const unsigned code = row[inputs_.input(p)];
        packed[p / per_byte] |= static_cast<uint8_t>(code << (p % per_byte * static_cast<size_t>(width_)));
      }
    }
  });
}

size_t PackedRows::bytes() const {
  return codes_.size() + scales_.bytes() + zeros_.bytes() + inputs_.order.size() * sizeof(uint32_t);
}

size_t PackedRows::scratch_bytes() const { return rounded_up(in_features_, kUnpackedAlign); }

void PackedRows::dequantize(size_t begin, size_t end, float* out, uint8_t* scratch, CpuTarget target) const {
  for (size_t o = begin; o < end; ++o) {
    unpack_codes(codes_.as<uint8_t>() + o * row_bytes_, width_, in_features_, scratch, target);
    dequantize_row(o, out + (o - begin) * in_features_, scratch, target);
  }
}

void PackedRows::dequantize_row(size_t row, float* out, uint8_t* codes, CpuTarget target) const {
  switch (formula_) {
    case WeightFormula::kAffine:
    case WeightFormula::kOffset:
      for (size_t r = 0; r < inputs_.runs.size(); ++r) {
        const InputGroups::Run& run = inputs_.runs[r];
        const size_t i = row * inputs_.runs.size() + r;
        const size_t count = run.end - run.begin;
        if (formula_ == WeightFormula::kAffine) {
          dequantize_affine(codes + run.begin, count, scales_[i], zeros_[i], rounding_, out + run.begin,
                            target);
        } else {
          dequantize_offset(codes + run.begin, count, scales_[i], zeros_[i], rounding_, out + run.begin,
                            target);
        }
      }
      return;
    case WeightFormula::kCodebook:
      // Blocks count elements of the flattened weight: the first of this row may have begun in the
      // row before.
      for (size_t i = 0; i < in_features_;) {
        const size_t element = row * in_features_ + i;
        const size_t count = std::min(group_size_ - element % group_size_, in_features_ - i);
        dequantize_table(codes + i, count, codebook_.data(), codebook_.size(), scales_[element / group_size_],
                         out + i, target);
        i += count;
      }
      return;
    case WeightFormula::kRowAbsmax:
      dequantize_row_absmax(codes, in_features_, scales_[row], out, target);
      return;
  }
}

}  // namespace nibble::kernels
