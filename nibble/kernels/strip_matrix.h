#ifndef NIBBLE_KERNELS_STRIP_MATRIX_H_
#define NIBBLE_KERNELS_STRIP_MATRIX_H_

// A quantized weight in the layout of strips.h.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/input_groups.h"
#include "nibble/kernels/strips.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble::kernels {

// Immutable.
class StripMatrix {
 public:
  // Whether the layout suits the weight. It does not where scales change inside a block of inputs
  // (codebook blocks that cross rows in their middle), nor where filling groups up to whole blocks
  // would waste more than a quarter (groups of 16).
  static bool suits(const QuantizedWeight& weight);

  // Any weight whose scales do not change inside a row's block: see above; it is consistent.
  // span_blocks: blocks that share an activation scale, at most; LLM.int8 has one scale for a token.
  // Codes of 2 to 4 bits are stored in as many, others in 8. Where a codebook maps them, they are stored in 4
  // or 8, and its entries become bytes of the closest grid; codes above 4 bits are mapped now.
  StripMatrix(const QuantizedWeight& weight, ThreadPool& pool, size_t span_blocks = 1);

  Strips view() const;
  size_t in_features() const { return in_features_; }
  size_t bytes() const { return codes_.size() + scales_.size() + zeros_.size() + offsets_.size(); }

  // [num_blocks * kBlockInputs]: the input that stands at each position, kNoInput for filling; empty
  // where positions are inputs.
  std::span<const uint32_t> positions() const { return positions_; }

 private:
  void set_groups(size_t span_blocks);
  void set_codebook(const QuantizedWeight& weight);
  void pack_codes(const QuantizedWeight& weight, ThreadPool& pool);
  void pack_scales(const QuantizedWeight& weight, ThreadPool& pool);

  size_t out_features_;
  size_t in_features_;
  InputGroups groups_;
  std::vector<uint32_t> span_ends_;
  std::vector<uint32_t> group_ends_;
  std::vector<uint32_t> positions_;
  CodeForm form_;
  uint8_t table_[16] = {};
  std::vector<uint8_t> byte_of_code_;  // kBytes: what is stored for a code
  float scale_unit_ = 1.f;             // what absmax is multiplied by
  float zero_ = 0.f;
  bool half_scales_ = false;
  AlignedBuffer codes_;
  AlignedBuffer scales_;
  AlignedBuffer zeros_;    // empty: zero_ everywhere
  AlignedBuffer offsets_;  // empty: zero points
};

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_STRIP_MATRIX_H_
