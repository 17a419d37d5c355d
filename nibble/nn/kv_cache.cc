#include "nibble/nn/kv_cache.h"

#include <algorithm>

#include "nibble/base/check.h"

namespace nibble {

using kernels::kAttentionBlock;

namespace {

constexpr size_t kMostBlocksPerBuffer = 16;  // 1024 tokens: a short sequence should not take much more

size_t head_bytes(const KvCacheShape& shape) {
  return kernels::head_block_layout(shape.type, shape.head_dim, shape.value_width()).bytes;
}

size_t blocks_of(size_t tokens) { return (tokens + kAttentionBlock - 1) / kAttentionBlock; }

}  // namespace

size_t kv_block_bytes(const KvCacheShape& shape) {
  return shape.num_layers * shape.num_key_value_heads * head_bytes(shape);
}

size_t kv_blocks_per_buffer(const KvCacheShape& shape, size_t max_tokens) {
  const size_t most = std::clamp<size_t>(blocks_of(max_tokens), 1, kMostBlocksPerBuffer);
  const size_t block = kv_block_bytes(shape);
  // The fewest that fill their huge pages but for an eighth.
  for (size_t blocks = 1; blocks < most; ++blocks) {
    const size_t bytes = blocks * block;
    const size_t pages = (bytes + kHugePage - 1) / kHugePage;
    if (bytes >= kHugePage && pages * kHugePage - bytes <= bytes / 8) return blocks;
  }
  return most;
}

KvCache::KvCache(const KvCacheShape& shape, size_t max_tokens)
    : shape_(shape), max_tokens_(max_tokens), blocks_per_buffer_(kv_blocks_per_buffer(shape, max_tokens)) {
  // The tables do not move while tokens are generated.
  const size_t buffers = (blocks_of(max_tokens) + blocks_per_buffer_ - 1) / blocks_per_buffer_;
  buffers_.reserve(buffers);
  blocks_.reserve(buffers * blocks_per_buffer_);
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
  while (blocks_.size() * kAttentionBlock < size_ + count) {
    buffers_.emplace_back(blocks_per_buffer_ * kv_block_bytes(shape_));
    for (size_t b = 0; b < blocks_per_buffer_; ++b) {
      blocks_.push_back(buffers_.back().data() + b * head_bytes(shape_));
    }
  }
  return {};
}

void KvCache::truncate(size_t size) {
  NIBBLE_CHECK(size <= size_);
  size_ = size;
}

size_t KvCache::offset(size_t layer, size_t kv_head) const {
  return (layer * shape_.num_key_value_heads + kv_head) * blocks_per_buffer_ * head_bytes(shape_);
}

void KvCache::write(size_t layer, size_t kv_head, size_t position, const float* key, const float* value) {
  std::byte* const block = blocks_[position / kAttentionBlock] + offset(layer, kv_head);
  kernels::store_token(shape_.type, shape_.head_dim, shape_.value_width(), position % kAttentionBlock, key,
                       value, block);
}

kernels::AttentionBlocks KvCache::head(size_t layer, size_t kv_head) const {
  return {blocks_.data(), offset(layer, kv_head), shape_.type};
}

}  // namespace nibble
