#include "nibble/nn/kv_cache.h"

#include <algorithm>

#include "nibble/base/check.h"

namespace nibble {

using kernels::kAttentionBlock;

KvCache::KvCache(const KvCacheShape& shape, size_t max_tokens) : shape_(shape), max_tokens_(max_tokens) {
  // The tables do not move while tokens are generated.
  buffers_.reserve((max_tokens + kAttentionBlock - 1) / kAttentionBlock);
  blocks_.reserve(buffers_.capacity());
}

size_t KvCache::memory_bytes() const {
  size_t bytes = 0;
  for (const AlignedBuffer& buffer : buffers_) bytes += buffer.size();
  return bytes;
}

Status KvCache::reserve(size_t count) {
  if (size_ + count > max_tokens_) {
    return fail(ErrorCode::kOutOfMemory,
                "the context holds {} tokens, and {} more do not fit into --ctx-size {}", size_, count,
                max_tokens_)
        .with_fix("Use a larger --ctx-size or a shorter prompt.");
  }
  const size_t floats =
      2 * shape_.num_layers * shape_.num_key_value_heads * shape_.head_dim * kAttentionBlock;
  while (buffers_.size() * kAttentionBlock < size_ + count) {
    buffers_.emplace_back(floats * sizeof(float));
    blocks_.push_back(buffers_.back().as<float>());
  }
  return {};
}

void KvCache::truncate(size_t size) {
  NIBBLE_CHECK(size <= size_);
  size_ = size;
}

size_t KvCache::offset(size_t layer, size_t kv_head) const {
  return (layer * shape_.num_key_value_heads + kv_head) * 2 * shape_.head_dim * kAttentionBlock;
}

void KvCache::write(size_t layer, size_t kv_head, size_t position, const float* key, const float* value) {
  float* const keys = blocks_[position / kAttentionBlock] + offset(layer, kv_head);
  float* const values = keys + shape_.head_dim * kAttentionBlock;
  const size_t slot = position % kAttentionBlock;
  for (size_t d = 0; d < shape_.head_dim; ++d) keys[d * kAttentionBlock + slot] = key[d];
  std::copy_n(value, shape_.head_dim, values + slot * shape_.head_dim);
}

kernels::AttentionBlocks KvCache::head(size_t layer, size_t kv_head) const {
  const size_t keys = offset(layer, kv_head);
  return {blocks_.data(), keys, keys + shape_.head_dim * kAttentionBlock};
}

}  // namespace nibble
