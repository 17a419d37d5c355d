#include "nibble/nn/kv_cache.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

using kernels::kAttentionBlock;

TEST(KvCache, GrowsByBlocksUpToItsLimit) {
  KvCache cache({.num_layers = 2, .num_key_value_heads = 3, .head_dim = 4}, 100);
  EXPECT_EQ(cache.memory_bytes(), 0u);
  ASSERT_TRUE(cache.reserve(1).has_value());
  const size_t block = 2 * 2 * 3 * 4 * kAttentionBlock * sizeof(float);
  EXPECT_EQ(cache.memory_bytes(), block);
  cache.advance(kAttentionBlock);
  ASSERT_TRUE(cache.reserve(36).has_value());
  EXPECT_EQ(cache.memory_bytes(), 2 * block);
  const Status full = cache.reserve(37);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(full.error().what.find("--ctx-size 100"), std::string::npos) << full.error().what;
}

TEST(KvCache, EveryTokenHeadAndLayerHasItsOwnPlace) {
  const KvCacheShape shape = {.num_layers = 2, .num_key_value_heads = 2, .head_dim = 3};
  const size_t tokens = kAttentionBlock + 5;
  KvCache cache(shape, tokens);
  ASSERT_TRUE(cache.reserve(tokens).has_value());
  const auto value_of = [](size_t layer, size_t head, size_t token, size_t d) {
    return static_cast<float>(((layer * 2 + head) * 1000 + token) * 10 + d);
  };
  for (size_t layer = 0; layer < 2; ++layer) {
    for (size_t head = 0; head < 2; ++head) {
      for (size_t token = 0; token < tokens; ++token) {
        float key[3], value[3];
        for (size_t d = 0; d < 3; ++d) {
          key[d] = value_of(layer, head, token, d);
          value[d] = -key[d];
        }
        cache.write(layer, head, token, key, value);
      }
    }
  }
  for (size_t layer = 0; layer < 2; ++layer) {
    for (size_t head = 0; head < 2; ++head) {
      const kernels::AttentionBlocks kv = cache.head(layer, head);
      for (size_t token = 0; token < tokens; ++token) {
        const float* const block = kv.blocks[token / kAttentionBlock];
        const size_t slot = token % kAttentionBlock;
        for (size_t d = 0; d < 3; ++d) {
          EXPECT_EQ(block[kv.key_offset + d * kAttentionBlock + slot], value_of(layer, head, token, d));
          EXPECT_EQ(block[kv.value_offset + slot * 3 + d], -value_of(layer, head, token, d));
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
