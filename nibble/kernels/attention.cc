#include "nibble/kernels/attention.h"

#include <algorithm>

#include "nibble/base/float16.h"

#define NIBBLE_TARGET_FILE "nibble/kernels/attention-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble {

std::string_view kv_cache_type_name(KvCacheType type) {
  switch (type) {
    case KvCacheType::kF32:
      return "f32";
    case KvCacheType::kF16:
      return "f16";
    case KvCacheType::kInt8:
      return "int8";
  }
  return "f32";
}

}  // namespace nibble

namespace nibble::kernels {
namespace {

// Element i at `data`, whose scale (if the type has scales) is `scale`.
float stored(KvCacheType type, const std::byte* data, size_t i, const std::byte* scale) {
  if (type == KvCacheType::kF32) return reinterpret_cast<const float*>(data)[i];
  if (type == KvCacheType::kF16) return fp16_to_float(reinterpret_cast<const uint16_t*>(data)[i]);
  float factor = 0;
  std::memcpy(&factor, scale, sizeof(factor));
  return factor * static_cast<float>(reinterpret_cast<const int8_t*>(data)[i]);
}

}  // namespace

void store_token(KvCacheType type, size_t head_dim, size_t value_head_dim, size_t slot, const float* key,
                 const float* value, std::byte* block, CpuTarget target) {
  NIBBLE_CHOOSE(store_token, target)(type, head_dim, value_head_dim, slot, key, value, block);
}

float stored_key(KvCacheType type, size_t head_dim, size_t value_head_dim, const std::byte* block,
                 size_t slot, size_t d) {
  const HeadBlockLayout at = head_block_layout(type, head_dim, value_head_dim);
  return stored(type, block + at.keys, d * kAttentionBlock + slot, block + at.key_scales + 4 * slot);
}

float stored_value(KvCacheType type, size_t head_dim, size_t value_head_dim, const std::byte* block,
                   size_t slot, size_t d) {
  const HeadBlockLayout at = head_block_layout(type, head_dim, value_head_dim);
  return stored(type, block + at.values, slot * value_head_dim + d, block + at.value_scales + 4 * slot);
}

void attend(const AttentionShape& shape, std::span<const AttentionRow> rows, const AttentionBlocks& kv,
            float* scratch, CpuTarget target) {
  NIBBLE_CHOOSE(attend, target)(shape, rows, kv, scratch);
}

void attend_piece(const AttentionShape& shape, std::span<const AttentionRow> rows, const AttentionBlocks& kv,
                  size_t piece, const AttentionPart& part, float* scratch, CpuTarget target) {
  NIBBLE_CHOOSE(attend_piece, target)(shape, rows, kv, piece, part, scratch);
}

void merge_parts(const AttentionShape& shape, std::span<const AttentionRow> rows,
                 std::span<const AttentionPart> parts, CpuTarget target) {
  NIBBLE_CHOOSE(merge_parts, target)(shape, rows, parts);
}

void attend_reference(const AttentionShape& shape, std::span<const AttentionRow> rows,
                      const AttentionBlocks& kv, float* scratch) {
  const auto block_of = [&](size_t t) { return kv.blocks[t / kAttentionBlock] + kv.offset; };
  for (const AttentionRow& row : rows) {
    double largest = -HUGE_VAL;
    for (size_t t = row.first; t < row.last; ++t) {
      double score = 0;
      for (size_t d = 0; d < shape.head_dim; ++d) {
        score += static_cast<double>(row.query[d]) * stored_key(kv.type, shape.head_dim, shape.value_head_dim,
                                                                block_of(t), t % kAttentionBlock, d);
      }
      score *= shape.scale;
      if (shape.soft_cap > 0.f) score = shape.soft_cap * std::tanh(score / shape.soft_cap);
      score -= static_cast<double>(row.alibi_slope) * static_cast<double>(row.last - 1 - t);
      if (row.bias != nullptr) score += static_cast<double>(row.bias[t]);
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
        sum +=
            static_cast<double>(scratch[t - row.first]) *
            stored_value(kv.type, shape.head_dim, shape.value_head_dim, block_of(t), t % kAttentionBlock, d);
      }
      row.out[d] = static_cast<float>(sum / total);
    }
  }
}

}  // namespace nibble::kernels
