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
  EXPECT_EQ(cache.memory_bytes(), 2 * block);  // both are less than a huge page
  cache.advance(kAttentionBlock);
  ASSERT_TRUE(cache.reserve(36).has_value());
  EXPECT_EQ(cache.memory_bytes(), 2 * block);
  const Status full = cache.reserve(37);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(full.error().what.find("--ctx-size 100"), std::string::npos) << full.error().what;
}

TEST(KvCache, BuffersFillHugePages) {
  for (const KvCacheType type : {KvCacheType::kF32, KvCacheType::kF16, KvCacheType::kInt8}) {
    const KvCacheShape shape = {.num_layers = 30, .num_key_value_heads = 3, .head_dim = 64, .type = type};
    const size_t blocks = kv_blocks_per_buffer(shape, 4096);
    const size_t bytes = blocks * kv_block_bytes(shape);
    const size_t page = size_t{2} << 20;
    EXPECT_GE(bytes, page);
    EXPECT_LE((page - bytes % page) % page, bytes / 8) << kv_cache_type_name(type);
    EXPECT_LE(blocks, 5u);
    EXPECT_EQ(kv_blocks_per_buffer(shape, 10), 1u);  // a short sequence needs no more
    KvCache cache(shape, 4096);
    ASSERT_TRUE(cache.reserve(blocks * kAttentionBlock).has_value());
    EXPECT_EQ(cache.memory_bytes(), bytes);
    cache.advance(blocks * kAttentionBlock);
    ASSERT_TRUE(cache.reserve(1).has_value());
    EXPECT_EQ(cache.memory_bytes(), 2 * bytes);
  }
}

TEST(KvCache, EveryTokenHeadAndLayerHasItsOwnPlace) {
  const KvCacheShape shape = {.num_layers = 2, .num_key_value_heads = 2, .head_dim = 3};
  const size_t tokens = 20 * kAttentionBlock + 5;  // two buffers
  KvCache cache(shape, tokens);
  ASSERT_TRUE(cache.reserve(tokens).has_value());
  const auto value_of = [](size_t layer, size_t head, size_t token, size_t d) {
    return static_cast<float>(((layer * 2 + head) * 2000 + token) * 10 + d);
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
        const std::byte* const block = kv.blocks[token / kAttentionBlock] + kv.offset;
        const size_t slot = token % kAttentionBlock;
        for (size_t d = 0; d < 3; ++d) {
          EXPECT_EQ(kernels::stored_key(kv.type, 3, 3, block, slot, d), value_of(layer, head, token, d));
          EXPECT_EQ(kernels::stored_value(kv.type, 3, 3, block, slot, d), -value_of(layer, head, token, d));
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble
