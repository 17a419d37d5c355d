#include "nibble/kernels/attention.h"

#include <algorithm>

#define NIBBLE_TARGET_FILE "nibble/kernels/attention-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::kernels {

void attend(const AttentionShape& shape, std::span<const AttentionRow> rows, const AttentionBlocks& kv,
            float* scratch, CpuTarget target) {
  NIBBLE_CHOOSE(attend, target)(shape, rows.data(), rows.size(), kv, scratch);
}

void attend_reference(const AttentionShape& shape, std::span<const AttentionRow> rows,
                      const AttentionBlocks& kv, float* scratch) {
  for (const AttentionRow& row : rows) {
    double largest = -HUGE_VAL;
    for (size_t t = row.first; t < row.last; ++t) {
      const float* const keys = kv.blocks[t / kAttentionBlock] + kv.key_offset + t % kAttentionBlock;
      double score = 0;
      for (size_t d = 0; d < shape.head_dim; ++d) {
        score += static_cast<double>(row.query[d]) * keys[d * kAttentionBlock];
      }
      score *= shape.scale;
      if (shape.soft_cap > 0.f) score = shape.soft_cap * std::tanh(score / shape.soft_cap);
      score -= static_cast<double>(row.alibi_slope) * static_cast<double>(row.last - 1 - t);
      scratch[t - row.first] = static_cast<float>(score);
      largest = std::max(largest, score);
    }
    double total = 0;
    for (size_t i = 0; i < row.last - row.first; ++i) {
      scratch[i] = static_cast<float>(std::exp(scratch[i] - largest));
      total += scratch[i];
    }
    for (size_t d = 0; d < shape.value_head_dim; ++d) {
      double sum = 0;
      for (size_t t = row.first; t < row.last; ++t) {
        const float* const value =
            kv.blocks[t / kAttentionBlock] + kv.value_offset + (t % kAttentionBlock) * shape.value_head_dim;
        sum += static_cast<double>(scratch[t - row.first]) * value[d];
      }
      row.out[d] = static_cast<float>(sum / total);
    }
  }
}

}  // namespace nibble::kernels
