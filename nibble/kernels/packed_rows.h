#ifndef NIBBLE_KERNELS_PACKED_ROWS_H_
#define NIBBLE_KERNELS_PACKED_ROWS_H_

// A quantized weight, row by row, for the float path: codes stay packed, and a few rows at a time
// become floats in scratch memory.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/cpu_target.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/compact_floats.h"
#include "nibble/kernels/input_groups.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble::kernels {

// Immutable.
class PackedRows {
 public:
  // The weight is consistent: its vectors have the sizes that quantized_weight.h says.
  PackedRows(const QuantizedWeight& weight, ThreadPool& pool);

  size_t out_features() const { return out_features_; }
  size_t in_features() const { return in_features_; }
  size_t bytes() const;
  int width() const { return width_; }  // bits per code as stored: 2, 4 (3 and 4) or 8 (5 to 8)

  // Columns of what dequantize() writes: column p is input order()[p], or p where it is empty.
  std::span<const uint32_t> order() const { return inputs_.order; }

  // Rows [begin, end) as float: [end - begin, in_features], bit for bit what dequantize_rows() gives
  // but for the order of the columns. scratch: scratch_bytes().
  void dequantize(size_t begin, size_t end, float* out, uint8_t* scratch, CpuTarget target) const;
  size_t scratch_bytes() const;

 private:
  void dequantize_row(size_t row, float* out, uint8_t* codes, CpuTarget target) const;

  WeightFormula formula_;
  DType rounding_;
  size_t out_features_;
  size_t in_features_;
  size_t group_size_;  // kCodebook
  int width_;
  size_t row_bytes_;  // a multiple of kPackedAlign
  AlignedBuffer codes_;
  InputGroups inputs_;
  CompactFloats scales_;         // kAffine, kOffset: [out_features][runs]; else absmax as in QuantizedWeight
  CompactFloats zeros_;          // [out_features][runs]
  std::vector<float> codebook_;  // 16 or 256 entries
};

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_PACKED_ROWS_H_
