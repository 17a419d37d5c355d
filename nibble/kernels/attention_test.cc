#include "nibble/kernels/attention.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace nibble::kernels {
namespace {

constexpr KvCacheType kTypes[] = {KvCacheType::kF32, KvCacheType::kF16, KvCacheType::kInt8};

std::vector<float> normal_floats(size_t count, unsigned seed, float deviation = 1.f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.f, deviation);
  std::vector<float> values(count);
  for (float& v : values) v = normal(rng);
  return values;
}

// Keys and values of one head for `tokens` tokens, in blocks as the cache holds them. Slots that no
// token has written yet hold NaN (or codes with the scale NaN): nobody may look at them.
struct Problem {
  Problem(size_t tokens, size_t head_dim, unsigned seed, KvCacheType type = KvCacheType::kF32)
      : shape{head_dim, head_dim, 0.25f, 0.f} {
    const size_t floats = head_block_layout(type, head_dim, head_dim).bytes / sizeof(float);
    for (size_t start = 0; start < tokens; start += kAttentionBlock) {
      memory.emplace_back(floats, std::numeric_limits<float>::quiet_NaN());
    }
    for (auto& block : memory) blocks.push_back(reinterpret_cast<std::byte*>(block.data()));
    for (size_t t = 0; t < tokens; ++t) {
      const auto key = normal_floats(head_dim, seed + static_cast<unsigned>(2 * t));
      const auto value = normal_floats(head_dim, seed + static_cast<unsigned>(2 * t + 1));
      store_token(type, head_dim, head_dim, t % kAttentionBlock, key.data(), value.data(),
                  blocks[t / kAttentionBlock], CpuTarget::kScalar);
    }
    kv = {blocks.data(), 0, type};
  }

  std::vector<float> query(unsigned seed) const { return normal_floats(shape.head_dim, seed, 2.f); }
  std::vector<float> scratch(size_t rows) const { return std::vector<float>(attention_scratch(shape, rows)); }

  AttentionShape shape;
  std::vector<std::vector<float>> memory;
  std::vector<std::byte*> blocks;
  AttentionBlocks kv{};
};

class AttentionTest : public testing::TestWithParam<CpuTarget> {};
INSTANTIATE_TEST_SUITE_P(EveryTarget, AttentionTest, testing::ValuesIn(supported_cpu_targets()),
                         [](const auto& test) { return std::string(cpu_target_name(test.param)); });

TEST_P(AttentionTest, OneTokenGivesItsValue) {
  for (const KvCacheType type : kTypes) {
    Problem p(1, 16, 1, type);
    const auto q = p.query(2);
    std::vector<float> out(16), scratch = p.scratch(1);
    const AttentionRow row = {q.data(), out.data(), 0, 1};
    attend(p.shape, {&row, 1}, p.kv, scratch.data(), GetParam());
    for (size_t d = 0; d < 16; ++d) EXPECT_FLOAT_EQ(out[d], stored_value(type, 16, 16, p.blocks[0], 0, d));
  }
}

// Checks one row; `scores`: scratch of the reference.
void expect_reference(const Problem& p, const AttentionRow& row, float* scratch, float* scores,
                      CpuTarget target) {
  const size_t head_dim = p.shape.head_dim;
  std::vector<float> expected(head_dim);
  AttentionRow reference = row;
  reference.out = expected.data();
  attend(p.shape, {&row, 1}, p.kv, scratch, target);
  attend_reference(p.shape, {&reference, 1}, p.kv, scores);
  // A score sums head_dim products of size about 2; its error of head_dim half ulps is a relative error of
  // the weights, which average values below 5.
  const double tolerance = 5 * (static_cast<double>(head_dim) * 4 + 64) * 0x1p-23;
  for (size_t d = 0; d < head_dim; ++d) {
    ASSERT_NEAR(row.out[d], expected[d], tolerance)
        << "head_dim=" << head_dim << " first=" << row.first << " last=" << row.last
        << " cap=" << p.shape.soft_cap << " " << kv_cache_type_name(p.kv.type);
  }
}

TEST_P(AttentionTest, AgreesWithTheReferenceForEveryLengthAndWindow) {
  for (const KvCacheType type : kTypes) {
    for (const size_t head_dim : {1u, 8u, 16u, 24u, 32u, 64u, 80u, 128u}) {
      for (const size_t tokens : {1u, 2u, 63u, 64u, 65u, 130u, 300u}) {
        Problem p(tokens, head_dim, 3, type);
        const auto q = p.query(4);
        const std::vector<float> bias = normal_floats(tokens, 5);
        std::vector<float> out(head_dim), scratch = p.scratch(1), scores(tokens);
        for (const size_t window : {0u, 1u, 5u, 64u, 100u}) {
          for (const float cap : {0.f, 3.f}) {
            p.shape.soft_cap = cap;
            const size_t first = window > 0 && tokens > window ? tokens - window : 0;
            AttentionRow row = {q.data(), out.data(), first, tokens, window == 5 ? 0.25f : 0.f};
            if (window == 64) row.bias = bias.data();
            expect_reference(p, row, scratch.data(), scores.data(), GetParam());
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, AgreesWithTheReferenceOverSeveralPieces) {
  constexpr size_t kTokens = 2 * kAttentionPiece + 100;
  for (const KvCacheType type : kTypes) {
    const Problem p(kTokens, 24, 9, type);
    const auto q = p.query(10);
    std::vector<float> out(24), scratch = p.scratch(1), scores(kTokens);
    for (const size_t first : {size_t{0}, size_t{70}, kAttentionPiece - 1, kAttentionPiece, kTokens - 100}) {
      for (const size_t last : {first + 1, 2 * kAttentionPiece, 2 * kAttentionPiece + 1, kTokens}) {
        if (last <= first) continue;
        const AttentionRow row = {q.data(), out.data(), first, last};
        expect_reference(p, row, scratch.data(), scores.data(), GetParam());
      }
    }
  }
}

// A prompt in one piece, in several, or beside other rows: the same bits for each row. Many rows go
// through a block that was turned to floats, few do not.
TEST_P(AttentionTest, RowsDoNotSeeEachOther) {
  for (const KvCacheType type : kTypes) {
    for (const size_t head_dim : {32u, 72u, 128u}) {
      Problem p(700, head_dim, 5, type);
      constexpr size_t kRows = 26;
      std::vector<std::vector<float>> queries;
      std::vector<std::vector<float>> together(kRows, std::vector<float>(head_dim));
      std::vector<AttentionRow> rows;
      for (unsigned r = 0; r < kRows; ++r) queries.push_back(p.query(100 + r));
      for (unsigned r = 0; r < kRows; ++r) {
        rows.push_back({queries[r].data(), together[r].data(), r * 19, 200 + r * 20});
      }
      auto scratch = p.scratch(kRows);
      attend(p.shape, rows, p.kv, scratch.data(), GetParam());
      std::vector<float> few(head_dim * 5);
      for (size_t count = 1; count <= 5; ++count) {  // every size of a tile
        for (size_t r = 0; r + count <= kRows; r += count) {
          std::vector<AttentionRow> some(rows.begin() + static_cast<std::ptrdiff_t>(r),
                                         rows.begin() + static_cast<std::ptrdiff_t>(r + count));
          for (size_t i = 0; i < count; ++i) some[i].out = few.data() + i * head_dim;
          attend(p.shape, some, p.kv, scratch.data(), GetParam());
          for (size_t i = 0; i < count; ++i) {
            EXPECT_EQ(std::vector<float>(some[i].out, some[i].out + head_dim), together[r + i])
                << "row " << r + i << " of " << count << ", " << kv_cache_type_name(type);
          }
        }
      }
    }
  }
}

// Threads that share the pieces of a row give what one thread gives.
TEST_P(AttentionTest, PiecesMergeToTheSameBits) {
  constexpr size_t kTokens = 3 * kAttentionPiece + 5;
  for (const KvCacheType type : kTypes) {
    const Problem p(kTokens, 40, 11, type);
    constexpr size_t kRows = 3;
    std::vector<float> queries = normal_floats(kRows * 40, 12), whole(kRows * 40), merged(kRows * 40);
    std::vector<AttentionRow> rows;
    const size_t firsts[] = {0, kAttentionPiece + 3, 3 * kAttentionPiece + 1};
    for (size_t r = 0; r < kRows; ++r) {
      rows.push_back({queries.data() + r * 40, whole.data() + r * 40, firsts[r], kTokens - r});
    }
    auto scratch = p.scratch(kRows);
    attend(p.shape, rows, p.kv, scratch.data(), GetParam());
    std::vector<std::vector<float>> memory;
    std::vector<AttentionPart> parts;
    for (size_t piece = 0; piece < 4; ++piece) {
      memory.emplace_back(attention_part_floats(p.shape, kRows));
      parts.push_back(attention_part_at(p.shape, kRows, memory.back().data()));
    }
    for (size_t r = 0; r < kRows; ++r) rows[r].out = merged.data() + r * 40;
    for (const size_t piece : {2u, 0u, 3u, 1u}) {
      attend_piece(p.shape, rows, p.kv, piece, parts[piece], scratch.data(), GetParam());
    }
    merge_parts(p.shape, rows, parts, GetParam());
    EXPECT_EQ(whole, merged) << kv_cache_type_name(type);
  }
}

TEST_P(AttentionTest, HugeScoresDoNotOverflow) {
  Problem p(70, 16, 7);
  p.shape.scale = 1000.f;
  const auto q = p.query(8);
  std::vector<float> out(16), scratch = p.scratch(1);
  const AttentionRow row = {q.data(), out.data(), 0, 70};
  attend(p.shape, {&row, 1}, p.kv, scratch.data(), GetParam());
  for (const float v : out) EXPECT_TRUE(std::isfinite(v));
}

TEST_P(AttentionTest, StoresTheSameBytesOnEveryTarget) {
  for (const KvCacheType type : kTypes) {
    for (const size_t head_dim : {1u, 7u, 16u, 24u, 80u, 128u}) {
      const size_t bytes = head_block_layout(type, head_dim, head_dim).bytes;
      std::vector<std::byte> expected(bytes), got(bytes);
      for (unsigned slot = 0; slot < kAttentionBlock; ++slot) {
        const float size = std::exp2(static_cast<float>(slot) - 40.f);  // from subnormal halves to large ones
        const auto key = normal_floats(head_dim, 20 + slot, size);
        const auto value =
            slot == 5 ? std::vector<float>(head_dim) : normal_floats(head_dim, 90 + slot, 1 / size);
        store_token(type, head_dim, head_dim, slot, key.data(), value.data(), expected.data(),
                    CpuTarget::kScalar);
        store_token(type, head_dim, head_dim, slot, key.data(), value.data(), got.data(), GetParam());
      }
      EXPECT_EQ(expected, got) << kv_cache_type_name(type) << " head_dim=" << head_dim;
    }
  }
}

TEST_P(AttentionTest, StoredNumbersAreWithinTheirRounding) {
  const size_t head_dim = 48;
  std::vector<std::byte> block(head_block_layout(KvCacheType::kF32, head_dim, head_dim).bytes);
  auto key = normal_floats(head_dim, 30);
  const auto value = normal_floats(head_dim, 31, 1e-3f);
  key[7] = -20.f;
  for (const KvCacheType type : kTypes) {
    store_token(type, head_dim, head_dim, 9, key.data(), value.data(), block.data(), GetParam());
    const float key_step = type == KvCacheType::kInt8 ? 20.f / 127 : 0.f;
    for (size_t d = 0; d < head_dim; ++d) {
      const float relative = type == KvCacheType::kF16 ? 0x1p-11f : 1e-6f;
      EXPECT_NEAR(stored_key(type, head_dim, head_dim, block.data(), 9, d), key[d],
                  0.5f * key_step + relative * std::abs(key[d]));
      EXPECT_NEAR(stored_value(type, head_dim, head_dim, block.data(), 9, d), value[d],
                  type == KvCacheType::kInt8 ? 2e-5f : relative * 4e-3f);
    }
  }
}

// A number that is not finite must not become a small one.
TEST_P(AttentionTest, NumbersThatAreNotFiniteStayVisible) {
  for (const KvCacheType type : kTypes) {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      Problem p(3, 24, 13, type);
      auto value = normal_floats(24, 14);
      value[20] = bad;
      store_token(type, 24, 24, 1, value.data(), value.data(), p.blocks[0], GetParam());
      EXPECT_FALSE(std::isfinite(stored_key(type, 24, 24, p.blocks[0], 1, 20)));
      EXPECT_FALSE(std::isfinite(stored_value(type, 24, 24, p.blocks[0], 1, 20)));
    }
  }
}

}  // namespace
}  // namespace nibble::kernels
