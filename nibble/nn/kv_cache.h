#ifndef NIBBLE_NN_KV_CACHE_H_
#define NIBBLE_NN_KV_CACHE_H_

// Keys and values of the tokens that one sequence has seen.

#include <cstddef>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/error.h"
#include "nibble/kernels/attention.h"

namespace nibble {

struct KvCacheShape {
  size_t num_layers = 0;
  size_t num_key_value_heads = 0;
  size_t head_dim = 0;
  KvCacheType type = KvCacheType::kF32;
  size_t value_head_dim = 0;  // 0: head_dim

  size_t value_width() const { return value_head_dim > 0 ? value_head_dim : head_dim; }
};

// Bytes of kAttentionBlock tokens in all layers.
size_t kv_block_bytes(const KvCacheShape& shape);
// Blocks that are taken from the system together, for a sequence of at most `max_tokens`: as many as fill
// huge pages well.
size_t kv_blocks_per_buffer(const KvCacheShape& shape, size_t max_tokens);

// One thread at a time. Memory is taken as the sequence grows, in buffers for a few blocks of
// kAttentionBlock tokens. What a head has in a buffer lies together, block behind block, so that reading it
// is one stream; of a block: kernels/attention_cache.h.
class KvCache {
 public:
  KvCache(const KvCacheShape& shape, size_t max_tokens);

  size_t size() const { return size_; }              // tokens held
  size_t max_tokens() const { return max_tokens_; }  // --ctx-size
  size_t memory_bytes() const;
  const KvCacheShape& shape() const { return shape_; }

  // Makes room for `count` more tokens; kOutOfMemory if that is over max_tokens.
  Status reserve(size_t count);
  // Counts tokens whose keys and values have been written in all layers.
  void advance(size_t count) { size_ += count; }
  // Forgets all tokens from `size` on.
  void truncate(size_t size);

  // Writes the key [head_dim] and the value [value_width()] of the token at `position`, for which there is
  // room.
  void write(size_t layer, size_t kv_head, size_t position, const float* key, const float* value);

  // What attention reads of one head.
  kernels::AttentionBlocks head(size_t layer, size_t kv_head) const;

 private:
  size_t offset(size_t layer, size_t kv_head) const;  // of what a head has in a buffer, in bytes

  KvCacheShape shape_;
  size_t max_tokens_;
  size_t blocks_per_buffer_;
  size_t size_ = 0;
  std::vector<AlignedBuffer> buffers_;
  std::vector<std::byte*> blocks_;  // the block of layer 0, head 0; others lie offset() behind it
};

}  // namespace nibble

#endif  // NIBBLE_NN_KV_CACHE_H_
