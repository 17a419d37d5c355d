// The head as a linear, and the comparison of the streams.

#include "nibble/calibration/test_walk.h"
#include "nibble/models/auto_model.h"
#include "nibble/nn/kv_cache.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

constexpr size_t kVocabSize = 256;

// Of the decoder over the last `count` sequences.
double decoder_perplexity(const std::string& name, const CalibrationData& data, size_t count,
                          ThreadPool& pool) {
  FromPretrainedOptions options;
  options.compute = ComputeMode::kF32;
  const auto model =
      AutoModelForCausalLM::from_pretrained((data_folder() / "architectures" / name).string(), options, pool);
  EXPECT_TRUE(model);
  double nll = 0.0;
  size_t tokens = 0;
  for (size_t s = data.sequences.size() - count; s < data.sequences.size(); ++s) {
    const std::vector<int32_t>& sequence = data.sequences[s];
    const auto cache = (*model)->make_cache(sequence.size());
    const std::vector<SequenceChunk> chunks = {{sequence, cache.get(), sequence.size(), 0}};
    std::vector<float> logits(sequence.size() * kVocabSize);
    Arena arena;
    ExecutionContext context = {pool, arena};
    EXPECT_TRUE((*model)->forward(chunks, {logits.data(), sequence.size(), kVocabSize}, context));
    for (size_t i = 0; i + 1 < sequence.size(); ++i, ++tokens) {
      const auto row = std::span(logits).subspan(i * kVocabSize, kVocabSize);
      nll += logsumexp(row) - row[static_cast<size_t>(sequence[i + 1])];
    }
  }
  return std::exp(nll / static_cast<double>(tokens));
}

WalkOptions with_held_out(bool float_stream) {
  WalkOptions options = exact_options();
  options.held_out = 2;
  options.float_stream = float_stream;
  return options;
}

class EveryCheck : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Walk, EveryCheck, testing::ValuesIn(architecture_names()),
                         [](const auto& test) { return test.param; });

TEST_P(EveryCheck, UnchangedWeightsDoNotDifferFromTheFloatModel) {
  for (const bool float_stream : {true, false}) {
    WalkedModel model(GetParam(), some_tokens(5, kVocabSize), with_held_out(float_stream));
    model.walk_all(keep_weights);
    const auto check = model.walk->check();
    ASSERT_TRUE(check) << to_string(check.error());
    EXPECT_NEAR(check->kl, 0.0, 1e-12);
    EXPECT_EQ(check->top1_agreement, 1.0);
    size_t tokens = 0;
    for (size_t s = 3; s < 5; ++s) tokens += model.data.sequences[s].size() - 1;
    EXPECT_EQ(check->tokens, tokens);
    EXPECT_EQ(check->perplexity_float, check->perplexity_quantized);
    const double expected = decoder_perplexity(GetParam(), model.data, 2, model.pool);
    EXPECT_NEAR(check->perplexity_float, expected, 1e-4 * expected);
  }
}

// The float stream of the held-out rows does not depend on whether the others have one.
TEST_P(EveryCheck, CoarseWeightsDiffer) {
  std::vector<WalkCheck> checks;
  for (const bool float_stream : {true, false}) {
    WalkedModel model(GetParam(), some_tokens(5, kVocabSize), with_held_out(float_stream));
    model.walk_all(round_coarsely);
    const auto check = model.walk->check();
    ASSERT_TRUE(check) << to_string(check.error());
    EXPECT_GT(check->kl, 1e-6);
    EXPECT_NE(check->perplexity_float, check->perplexity_quantized);
    checks.push_back(*check);
  }
  EXPECT_EQ(checks[0].kl, checks[1].kl);
  EXPECT_EQ(checks[0].perplexity_float, checks[1].perplexity_float);
}

TEST(WalkCheck, NeedsHeldOutSequences) {
  WalkedModel model("qwen3", some_tokens(3, kVocabSize), exact_options());
  model.walk_all(keep_weights);
  const auto check = model.walk->check();
  ASSERT_FALSE(check);
  EXPECT_EQ(check.error().code, ErrorCode::kInvalidArgument);
}

TEST(WalkHead, ReadsTheFinalNorm) {
  WalkedModel model("qwen3", some_tokens(5, kVocabSize), with_held_out(true));
  model.walk_all(round_coarsely);
  size_t calibration = 0;
  for (size_t s = 0; s < 3; ++s) calibration += model.data.sequences[s].size();
  Shown shown;
  const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
    shown = copy_shown(seen, tasks);
    return keep_weights(seen, tasks);
  };
  ASSERT_TRUE(model.walk->walk_head({.known = {}, .quantize = quantize}));
  EXPECT_THAT(shown.modules, testing::ElementsAre("lm_head"));
  EXPECT_EQ(shown.tokens, calibration);
  const std::vector<float> norm = model.tensor("model.norm.weight");
  const double eps = model.source.config.norm_eps;
  const Table x = rms_norm(model.stream(true, calibration), norm, eps);
  const Table x_float = rms_norm(model.stream(false, calibration), norm, eps);
  expect_close(shown.gram, mean_products(x, x), 1e-5, "H");
  const Table mismatch = mean_products(x, minus(x_float, x));
  expect_close(shown.shift.at("lm_head"), times_transposed(shown.weight.at("lm_head"), mismatch), 1e-3, "D");
}

TEST(WalkHead, TakesPartInTheCheck) {
  for (const bool known : {false, true}) {
    WalkedModel model("qwen3", some_tokens(5, kVocabSize), with_held_out(false));
    model.walk_all(keep_weights);
    const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
      EXPECT_EQ(seen.gram.data() == nullptr, known);
      return round_coarsely(seen, tasks);
    };
    const auto is_known = [&](std::span<const std::string>) { return known; };
    ASSERT_TRUE(model.walk->walk_head({.known = is_known, .quantize = quantize}));
    const auto check = model.walk->check();
    ASSERT_TRUE(check);
    EXPECT_GT(check->kl, 1e-6);
  }
}

TEST(WalkHead, IsRefusedWhereItIsTheEmbedding) {
  WalkedModel model("qwen2", some_tokens(3, kVocabSize), exact_options());
  model.walk_all(keep_weights);
  const Status done = model.walk->walk_head({.known = {}, .quantize = keep_weights});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace nibble::test
