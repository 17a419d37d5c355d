#include "nibble/pipeline/folded_block.h"

#include "nibble/pipeline/test_model.h"

namespace nibble {
namespace {

using test::open_architecture;

ScaleGroup group_of(const ModelSource& source, size_t index) {
  return scale_groups(source.spec, block_modules(source.spec, 0, false), source.slots)[index];
}

TEST(FoldedBlock, MultipliesColumnsAndDividesTheNorm) {
  const ModelSource source = open_architecture("llama_bias");
  const ScaleGroup group = group_of(source, 0);
  ThreadPool pool(2);
  FoldedBlock block(source);
  std::vector<float> scales(64, 1.f);
  scales[5] = 4.f;  // a power of two: nothing is rounded
  const auto taken = block.fold(group, scales, pool);
  ASSERT_TRUE(taken) << to_string(taken.error());
  EXPECT_EQ(*taken, scales);
  const std::string q = "model.layers.0.self_attn.q_proj";
  const std::vector<float> before = source.weight(q).value();
  const auto after = block.weight(q).value();
  EXPECT_EQ(after.row(3)[5], 4.f * before[3 * 64 + 5]);
  EXPECT_EQ(after.row(3)[6], before[3 * 64 + 6]);
  const std::string norm = "model.layers.0.input_layernorm";
  EXPECT_EQ(block.changed().at(norm + ".weight")[5], source.weight(norm).value()[5] / 4.f);
  // q's bias is added behind its inputs.
  EXPECT_FALSE(block.changed().contains(q + ".bias"));
  EXPECT_EQ(block.changed().size(), 4u);
}

TEST(FoldedBlock, AProducersBiasIsDividedWithItsRows) {
  const ModelSource source = open_architecture("llama_bias");
  const ScaleGroup up_down = group_of(source, 2);
  ThreadPool pool(1);
  FoldedBlock block(source);
  std::vector<float> scales(128, 1.f);
  scales[7] = 2.f;
  ASSERT_TRUE(block.fold(up_down, scales, pool));
  const std::vector<float> bias = source.bias("model.layers.0.mlp.up_proj").value();
  const std::vector<float>& folded = block.changed().at("model.layers.0.mlp.up_proj.bias");
  EXPECT_EQ(folded[7], bias[7] / 2.f);
  EXPECT_EQ(folded[8], bias[8]);
}

// Gemma stores w - 1 in bfloat16: near w = 0 the steps are 1/256 of 1, not of w.
TEST(FoldedBlock, LinearsTakeTheScaleThatTheStoredNormHas) {
  const ModelSource source = open_architecture("gemma");
  ASSERT_EQ(source.checkpoint->find("model.layers.0.input_layernorm.weight")->dtype, DType::kBF16);
  const std::vector<float> before = source.weight("model.layers.0.input_layernorm").value();
  ThreadPool pool(1);
  FoldedBlock block(source);
  std::vector<float> scales(64, 1.3f);
  scales[1] = 30.f;
  scales[2] = 1e5f;  // would store -1: a channel of zeros
  const auto taken = block.fold(group_of(source, 0), scales, pool);
  ASSERT_TRUE(taken) << to_string(taken.error());
  const std::vector<float>& after = block.changed().at("model.layers.0.input_layernorm.weight");
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(after[i], rounded_to(DType::kBF16, after[i])) << i;
    EXPECT_FLOAT_EQ((after[i] + 1.f) * (*taken)[i], before[i] + 1.f) << i;
  }
  EXPECT_NEAR((*taken)[0], 1.3f, 1.3f * 0.005f);
  EXPECT_NE((*taken)[1], 30.f);
  EXPECT_EQ((*taken)[2], 1.f);
  EXPECT_EQ(after[2], before[2]);
}

}  // namespace
}  // namespace nibble
