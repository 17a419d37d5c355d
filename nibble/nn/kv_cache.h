#ifndef NIBBLE_NN_KV_CACHE_H_
#define NIBBLE_NN_KV_CACHE_H_

// Keys and values of the tokens that one sequence has seen.

#include <cstddef>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/error.h"

namespace nibble {

struct KvCacheShape {
  size_t num_layers = 0;
  size_t num_key_value_heads = 0;
  size_t head_dim = 0;        // of keys
  size_t value_head_dim = 0;  // of values; most often the same
};

// One thread at a time. Memory is taken in blocks of kBlockTokens as the sequence grows.
class KvCache {
 public:
  static constexpr size_t kBlockTokens = 64;

  KvCache(const KvCacheShape& shape, size_t max_tokens);

  size_t size() const { return size_; }              // tokens held
  size_t max_tokens() const { return max_tokens_; }  // --ctx-size
  size_t memory_bytes() const;

  // Makes room for `count` more tokens; kOutOfMemory if that is over max_tokens.
  Status reserve(size_t count);
  // Counts tokens whose keys and values have been written in all layers.
  void advance(size_t count) { size_ += count; }
  // Forgets all tokens from `size` on.
  void truncate(size_t size) { size_ = size; }

  // [block][kv head][kBlockTokens][head_dim]: the rows of one head and block follow each other.
  float* key_block(size_t layer, size_t block, size_t kv_head);
  float* value_block(size_t layer, size_t block, size_t kv_head);

 private:
  KvCacheShape shape_;
  size_t max_tokens_;
  size_t size_ = 0;
  std::vector<AlignedBuffer> blocks_;  // each holds kBlockTokens of all layers
};

}  // namespace nibble

#endif  // NIBBLE_NN_KV_CACHE_H_
