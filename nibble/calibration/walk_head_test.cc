// The head as a linear.

#include "nibble/calibration/test_walk.h"

namespace nibble::test {
namespace {

constexpr size_t kHeadVocab = 256;

TEST(WalkHead, ReadsTheFinalNorm) {
  WalkedModel model("qwen3", some_tokens(5, kHeadVocab), exact_options());
  model.walk_all(round_coarsely);
  const size_t tokens = model.data.num_tokens();
  Shown shown;
  const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
    shown = copy_shown(seen, tasks);
    return keep_weights(seen, tasks);
  };
  ASSERT_TRUE(model.walk->walk_head({.known = {}, .quantize = quantize}));
  EXPECT_THAT(shown.modules, testing::ElementsAre("lm_head"));
  EXPECT_EQ(shown.tokens, tokens);
  const std::vector<float> norm = model.tensor("model.norm.weight");
  const double eps = model.source.config.norm_eps;
  const Table x = rms_norm(model.stream(true, tokens), norm, eps);
  const Table x_float = rms_norm(model.stream(false, tokens), norm, eps);
  expect_close(shown.gram, mean_products(x, x), 1e-5, "H");
  const Table mismatch = mean_products(x, minus(x_float, x));
  expect_close(shown.shift.at("lm_head"), times_transposed(shown.weight.at("lm_head"), mismatch), 1e-3, "D");
}

TEST(WalkHead, IsRefusedWhereItIsTheEmbedding) {
  WalkedModel model("qwen2", some_tokens(3, kHeadVocab), exact_options());
  model.walk_all(keep_weights);
  const Status done = model.walk->walk_head({.known = {}, .quantize = keep_weights});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace nibble::test
