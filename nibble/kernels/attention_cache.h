#ifndef NIBBLE_KERNELS_ATTENTION_CACHE_H_
#define NIBBLE_KERNELS_ATTENTION_CACHE_H_

// How the keys and values of one head are stored, for kAttentionBlock tokens at a time.

#include <cstddef>
#include <string_view>

#include "nibble/base/cpu_target.h"

namespace nibble {

//   kF32   as they were computed
//   kF16   rounded to half precision
//   kInt8  absmax / 127 of each token's key and value as its scale, codes rounded half to even
enum class KvCacheType { kF32, kF16, kInt8 };

std::string_view kv_cache_type_name(KvCacheType type);  // "f32", "f16", "int8"

}  // namespace nibble

namespace nibble::kernels {

// Tokens per block of the cache. Blocks start at multiples of it, so that a query meets the same
// blocks in the same order however the prompt was cut: its result is the same in every bit.
inline constexpr size_t kAttentionBlock = 64;

// Where things stand in the memory of a block, in bytes; all are multiples of 64.
//   keys          [head_dim][kAttentionBlock]: a vector holds one channel of many tokens, and scores
//                 need no horizontal sums
//   key_scales    [kAttentionBlock] float; kInt8 only
//   values        [kAttentionBlock][value_head_dim]
//   value_scales  [kAttentionBlock] float; kInt8 only
struct HeadBlockLayout {
  size_t keys = 0;
  size_t key_scales = 0;
  size_t values = 0;
  size_t value_scales = 0;
  size_t bytes = 0;  // of all
};

constexpr HeadBlockLayout head_block_layout(KvCacheType type, size_t head_dim, size_t value_head_dim) {
  const size_t element = type == KvCacheType::kF32 ? 4 : type == KvCacheType::kF16 ? 2 : 1;
  const size_t scales = type == KvCacheType::kInt8 ? kAttentionBlock * sizeof(float) : 0;
  HeadBlockLayout layout;
  layout.key_scales = kAttentionBlock * head_dim * element;
  layout.values = layout.key_scales + scales;
  layout.value_scales = layout.values + kAttentionBlock * value_head_dim * element;
  layout.bytes = layout.value_scales + scales;
  return layout;
}

// Writes one token's key [head_dim] and value [value_head_dim] into `block`, slot < kAttentionBlock.
// The same bytes on every target. An int8 key or value with a number that is not finite gets the
// scale NaN, so that it is not taken for a small one.
void store_token(KvCacheType type, size_t head_dim, size_t value_head_dim, size_t slot, const float* key,
                 const float* value, std::byte* block, CpuTarget target = cpu_target());

// One number back, for whoever checks: channel d of the key or value in `slot`.
float stored_key(KvCacheType type, size_t head_dim, size_t value_head_dim, const std::byte* block,
                 size_t slot, size_t d);
float stored_value(KvCacheType type, size_t head_dim, size_t value_head_dim, const std::byte* block,
                   size_t slot, size_t d);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_ATTENTION_CACHE_H_
