#include "nibble/kernels/attention.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace nibble::kernels {
namespace {

// Keys and values of one head for `tokens` tokens, in blocks as the cache holds them. Slots that no
// token has written yet hold NaN: nobody may look at them.
struct Problem {
  Problem(size_t tokens, size_t head_dim, unsigned seed) : shape{head_dim, head_dim, 0.25f, 0.f} {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    for (size_t start = 0; start < tokens; start += kAttentionBlock) {
      std::vector<float>& block =
          memory.emplace_back(2 * kAttentionBlock * head_dim, std::numeric_limits<float>::quiet_NaN());
      for (size_t slot = 0; slot < kAttentionBlock && start + slot < tokens; ++slot) {
        for (size_t d = 0; d < head_dim; ++d) {
          block[d * kAttentionBlock + slot] = normal(rng);
          block[kAttentionBlock * head_dim + slot * head_dim + d] = normal(rng);
        }
      }
    }
    for (const auto& block : memory) blocks.push_back(block.data());
    kv = {blocks.data(), 0, kAttentionBlock * head_dim};
  }

  std::vector<float> query(unsigned seed) const {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0.f, 2.f);
    std::vector<float> q(shape.head_dim);
    for (float& v : q) v = normal(rng);
    return q;
  }

  AttentionShape shape;
  std::vector<std::vector<float>> memory;
  std::vector<const float*> blocks;
  AttentionBlocks kv{};
};

std::string target_name(const testing::TestParamInfo<CpuTarget>& info) {
  return std::string(cpu_target_name(info.param));
}

class AttentionTest : public testing::TestWithParam<CpuTarget> {};
INSTANTIATE_TEST_SUITE_P(EveryTarget, AttentionTest, testing::ValuesIn(supported_cpu_targets()), target_name);

TEST_P(AttentionTest, OneTokenGivesItsValue) {
  Problem p(1, 16, 1);
  const auto q = p.query(2);
  std::vector<float> out(16), scratch(attention_scratch(1));
  const AttentionRow row = {q.data(), out.data(), 0, 1};
  attend(p.shape, {&row, 1}, p.kv, scratch.data(), GetParam());
  for (size_t d = 0; d < 16; ++d) EXPECT_EQ(out[d], p.memory[0][kAttentionBlock * 16 + d]);
}

TEST_P(AttentionTest, AgreesWithTheReferenceForEveryLengthAndWindow) {
  for (const size_t head_dim : {1u, 8u, 16u, 24u, 32u, 64u, 80u, 128u}) {
    for (const size_t tokens : {1u, 2u, 63u, 64u, 65u, 130u, 300u}) {
      for (const size_t window : {0u, 1u, 5u, 64u, 100u}) {
        for (const float cap : {0.f, 3.f}) {
          Problem p(tokens, head_dim, 3);
          p.shape.soft_cap = cap;
          const auto q = p.query(4);
          const size_t first = window > 0 && tokens > window ? tokens - window : 0;
          std::vector<float> out(head_dim), expected(head_dim), scratch(attention_scratch(1)), scores(tokens);
          const float slope = window == 5 ? 0.25f : 0.f;
          const AttentionRow row = {q.data(), out.data(), first, tokens, slope};
          const AttentionRow reference = {q.data(), expected.data(), first, tokens, slope};
          attend(p.shape, {&row, 1}, p.kv, scratch.data(), GetParam());
          attend_reference(p.shape, {&reference, 1}, p.kv, scores.data());
          for (size_t d = 0; d < head_dim; ++d) {
            // A score sums head_dim products of size about 2; its error of head_dim half ulps is a
            // relative error of the weights, which average values below 5.
            const double tolerance = 5 * (static_cast<double>(head_dim) * 4 + 64) * 0x1p-23;
            ASSERT_NEAR(out[d], expected[d], tolerance)
                << "head_dim=" << head_dim << " tokens=" << tokens << " window=" << window << " cap=" << cap;
          }
        }
      }
    }
  }
}

// A prompt in one piece, in several, or beside other rows: the same bits for each row.
TEST_P(AttentionTest, RowsDoNotSeeEachOther) {
  Problem p(200, 32, 5);
  std::vector<std::vector<float>> queries, together(20, std::vector<float>(32)), alone = together;
  std::vector<AttentionRow> rows;
  std::vector<float> scratch(attention_scratch(20));
  for (unsigned r = 0; r < 20; ++r) {
    queries.push_back(p.query(100 + r));
    rows.push_back({queries.back().data(), together[r].data(), r * 3, 100 + r * 5});
  }
  attend(p.shape, rows, p.kv, scratch.data(), GetParam());
  for (size_t r = 0; r < 20; ++r) {
    AttentionRow row = rows[r];
    row.out = alone[r].data();
    attend(p.shape, {&row, 1}, p.kv, scratch.data(), GetParam());
    EXPECT_EQ(alone[r], together[r]) << "row " << r;
  }
}

TEST_P(AttentionTest, HugeScoresDoNotOverflow) {
  Problem p(70, 16, 7);
  p.shape.scale = 1000.f;
  const auto q = p.query(8);
  std::vector<float> out(16), scratch(attention_scratch(1));
  const AttentionRow row = {q.data(), out.data(), 0, 70};
  attend(p.shape, {&row, 1}, p.kv, scratch.data(), GetParam());
  for (const float v : out) EXPECT_TRUE(std::isfinite(v));
}

}  // namespace
}  // namespace nibble::kernels
