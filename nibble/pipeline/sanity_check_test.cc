// The comparison of a written model with its original, against whole rows of logits from the decoder.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/pipeline/run.h"
#include "nibble/pipeline/test_model.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

WalkOptions exact_options() {
  WalkOptions options;
  options.activations = DType::kF32;
  options.tokens_at_once = 40;  // a few groups
  return options;
}

CalibrationData some_text(const ModelSource& source) {
  CalibrationData text;
  for (const size_t length : {24u, 9u, 17u, 2u, 30u}) {
    std::vector<int32_t> tokens = some_tokens(source, length + 5 * text.sequences.size());
    text.sequences.emplace_back(tokens.end() - static_cast<ptrdiff_t>(length), tokens.end());
  }
  return text;
}

SanityCheck plain_comparison(const std::filesystem::path& original, const std::filesystem::path& written,
                             const CalibrationData& text, size_t vocab) {
  SanityCheck check;
  double nll = 0;
  double nll_after = 0;
  for (const std::vector<int32_t>& sequence : text.sequences) {
    const std::vector<float> all_p = logits_of(original, sequence);
    const std::vector<float> all_q = logits_of(written, sequence);
    for (size_t i = 0; i + 1 < sequence.size(); ++i) {
      const std::span<const float> p = std::span(all_p).subspan(i * vocab, vocab);
      const std::span<const float> q = std::span(all_q).subspan(i * vocab, vocab);
      const auto next = static_cast<size_t>(sequence[i + 1]);
      check.kl += kl_divergence(p, q);
      check.top1_agreement += argmax(p) == argmax(q) ? 1 : 0;
      nll += logsumexp(p) - p[next];
      nll_after += logsumexp(q) - q[next];
      ++check.tokens;
    }
  }
  const auto n = static_cast<double>(check.tokens);
  check.kl /= n;
  check.top1_agreement /= n;
  check.perplexity = std::exp(nll / n);
  check.perplexity_after = std::exp(nll_after / n);
  return check;
}

void expect_near(const SanityCheck& ours, const SanityCheck& expected, const std::string& what) {
  constexpr double kClose = 1e-4;
  EXPECT_GT(expected.kl, 1e-6) << what;
  EXPECT_NEAR(ours.kl, expected.kl, kClose * expected.kl) << what;
  EXPECT_NEAR(ours.perplexity, expected.perplexity, kClose * expected.perplexity) << what;
  EXPECT_NEAR(ours.perplexity_after, expected.perplexity_after, kClose * expected.perplexity_after) << what;
  EXPECT_EQ(ours.top1_agreement, expected.top1_agreement) << what;
  EXPECT_EQ(ours.tokens, expected.tokens) << what;
}

void quantize_to(const std::filesystem::path& original, const std::filesystem::path& folder, bool lm_head,
                 ThreadPool& pool) {
  QuantizeOptions options;
  options.config = GPTQConfig{.bits = 3, .group_size = 32, .lm_head = lm_head};
  options.fit_group_size = true;
  options.round_to_nearest = true;
  options.check = false;
  // Sizes that the layout cannot hold: in llama_bias, DeepSeek's, Qwen's mixtures.
  for (const char* const misfit :
       {".*\\.[kqv]_proj", ".*\\.(q_a|q_b|kv_a|kv_b|o)_proj.*", ".*\\.mlp\\.(shared_)?experts\\..*"}) {
    std::get<GPTQConfig>(options.config).dynamic.push_back({misfit, true, Json::object()});
  }
  const auto done = quantize_model(find_model(original.string()).value(), folder, options, pool);
  ASSERT_TRUE(done) << to_string(done.error());
}

TEST(CompareModels, IsWhatWholeRowsOfLogitsGive) {
  const std::filesystem::path original = model_folder("tiny-llama").value();
  const ModelSource source = open_model(original);
  const CalibrationData text = some_text(source);
  for (const bool lm_head : {false, true}) {
    if (lm_head && source.config.tie_word_embeddings) continue;
    const TemporaryFolder folder;
    const std::filesystem::path path = folder.path() / "written";
    ThreadPool pool(2);
    quantize_to(original, path, lm_head, pool);
    const ModelSource written = open_model(path);
    const SanityCheck expected = plain_comparison(original, path, text, source.config.vocab_size);
    for (const size_t slice : {300u, 2048u, 5000u}) {
      const auto check = compare_models(source, written, text, exact_options(), pool, slice);
      ASSERT_TRUE(check) << to_string(check.error());
      expect_near(*check, expected, fmt::format("lm_head {}, slices of {}", lm_head, slice));
    }
  }
}

// Among them are tied heads, a head with a bias (phi), a soft cap (gemma2) and project_out (opt).
class CompareEvery : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Architectures, CompareEvery, testing::ValuesIn(architecture_names()),
                         [](const auto& test) { return test.param; });

TEST_P(CompareEvery, IsWhatWholeRowsOfLogitsGive) {
  const std::filesystem::path original = data_folder() / "architectures" / GetParam();
  const ModelSource source = open_model(original);
  const CalibrationData text = some_text(source);
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "written";
  ThreadPool pool(1);
  quantize_to(original, path, false, pool);
  const ModelSource written = open_model(path);
  const auto check = compare_models(source, written, text, exact_options(), pool, 100);
  ASSERT_TRUE(check) << to_string(check.error());
  expect_near(*check, plain_comparison(original, path, text, source.config.vocab_size), GetParam());
}

TEST(CompareModels, FindsNoDifferenceBetweenAModelAndItself) {
  const ModelSource source = open_model(model_folder("tiny-llama").value());
  const CalibrationData text = some_text(source);
  ThreadPool pool(2);
  const auto check = compare_models(source, source, text, {}, pool, 300);
  ASSERT_TRUE(check) << to_string(check.error());
  EXPECT_NEAR(check->kl, 0.0, 1e-6);
  EXPECT_EQ(check->top1_agreement, 1.0);
  EXPECT_EQ(check->perplexity, check->perplexity_after);
  EXPECT_FALSE(check->broken());
}

TEST(CompareModels, GivesTheSameBitsForAnyNumberOfThreads) {
  const ModelSource p = open_model(model_folder("tiny-llama").value());
  const ModelSource q = open_model(model_folder("gptq-3b-g64").value());
  const CalibrationData text = some_text(p);
  std::vector<SanityCheck> checks;
  for (const size_t threads : {1u, 2u, 3u}) {
    ThreadPool pool(threads);
    const auto check = compare_models(p, q, text, exact_options(), pool, 300);
    ASSERT_TRUE(check) << to_string(check.error());
    EXPECT_EQ(check->kl, checks.empty() ? check->kl : checks.front().kl);
    EXPECT_EQ(check->perplexity_after,
              checks.empty() ? check->perplexity_after : checks.front().perplexity_after);
    checks.push_back(*check);
  }
}

TEST(CompareModels, NeedsOneVocabulary) {
  const ModelSource source = open_model(model_folder("tiny-llama").value());
  ThreadPool pool(1);
  const auto check = compare_models(source, open_architecture("qwen2"), some_text(source), {}, pool);
  ASSERT_FALSE(check);
  EXPECT_EQ(check.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(check.error().what, testing::HasSubstr("2048"));
}

}  // namespace
}  // namespace nibble::test
