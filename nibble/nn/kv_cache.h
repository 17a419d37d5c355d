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
};

// One thread at a time. Memory is taken in blocks of kAttentionBlock tokens as the sequence grows;
// a block holds, for each layer and head, the keys [head_dim][kAttentionBlock] and then the values
// [kAttentionBlock][head_dim].
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

  // Writes the key and value ([head_dim]) of the token at `position`, for which there is room.
  void write(size_t layer, size_t kv_head, size_t position, const float* key, const float* value);

  // What attention reads of one head.
  kernels::AttentionBlocks head(size_t layer, size_t kv_head) const;

 private:
  size_t offset(size_t layer, size_t kv_head) const;  // of the head's keys in a block, in floats

  KvCacheShape shape_;
  size_t max_tokens_;
  size_t size_ = 0;
  std::vector<AlignedBuffer> buffers_;
  std::vector<float*> blocks_;  // the same, as attention wants them
};

}  // namespace nibble

#endif  // NIBBLE_NN_KV_CACHE_H_
