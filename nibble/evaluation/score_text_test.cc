// Against perplexity, KL and agreement that Transformers computed (tests/data/goldens/accuracy.json).

#include "nibble/evaluation/score_text.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/mapped_file.h"
#include "nibble/evaluation/quality.h"
#include "nibble/models/auto_model.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

std::unique_ptr<CausalLM> load(const std::string& name, ThreadPool& pool,
                               ComputeMode compute = ComputeMode::kF32) {
  FromPretrainedOptions options;
  options.compute = compute;
  const auto folder = test::model_folder(name, {.with_tokenizer = true});
  EXPECT_TRUE(folder.has_value());
  auto model = AutoModelForCausalLM::from_pretrained(folder->string(), options, pool);
  EXPECT_TRUE(model.has_value()) << (model ? "" : to_string(model.error()));
  return std::move(*model);
}

TextWindows windows(size_t tokens, size_t window) {
  const auto folder = test::model_folder("tiny-llama", {.with_tokenizer = true});
  const ModelFiles files = find_model(folder->string()).value();
  const PretrainedConfig config =
      PretrainedConfig::from_json(parse_json(files.read_required("config.json").value()).value()).value();
  return cut_text(default_evaluation_text(), "WikiText-2",
                  {.window = window, .max_tokens = tokens, .bos = false}, files, config)
      .value();
}

Json golden(const std::string& name) {
  const auto text = read_text_file(test::data_folder() / "goldens" / "accuracy.json");
  return parse_json(*text).value()["variants"][name];
}

TEST(ScoreText, PerplexityKlAndAgreementAreThoseOfTransformers) {
  ThreadPool pool;
  const test::TemporaryFolder kept;
  const TextWindows text = windows(16384, 512);
  ASSERT_EQ(text.positions, 32u * 511u);
  const auto reference = load("tiny-llama", pool);
  const ReferenceModel yardstick = {*reference, kept.path()};
  for (const char* name :
       {"gptq-4b-g128", "gptq-3b-g64", "gptq-2b-g32-asym-v2", "awq-gemm-g64", "bnb-nf4", "bnb-fp4"}) {
    SCOPED_TRACE(name);
    const auto model = load(name, pool);
    const auto scores = score_text(*model, &yardstick, text, "", pool);
    ASSERT_TRUE(scores) << to_string(scores.error());
    const Quality quality = summarize(*scores, text, 0.95);
    const Json expected = golden(name);
    const auto near = [](double is, const Json& should) {
      const auto value = should.get<double>();
      EXPECT_NEAR(is, value, 1e-3 * std::fabs(value));
    };
    near(quality.perplexity.value, expected["perplexity"]);
    near(quality.nll.value, expected["nll"]);
    near(quality.divergence->kl.value, expected["kl"]);
    near(quality.divergence->top1_agreement.value, expected["top1_agreement"]);
  }
}

TEST(ScoreText, AModelBesideItselfIsIdentical) {
  ThreadPool pool;
  const TextWindows text = windows(1024, 256);
  for (const ComputeMode compute : {ComputeMode::kF32, ComputeMode::kAuto}) {
    const auto model = load("gptq-4b-g128", pool, compute);
    const auto twin = load("gptq-4b-g128", pool, compute);
    const ReferenceModel yardstick = {*twin, {}};
    const auto scores = score_text(*model, &yardstick, text, "", pool);
    ASSERT_TRUE(scores) << to_string(scores.error());
    EXPECT_TRUE(is_identical(*scores));
    const Quality quality = summarize(*scores, text, 0.95);
    EXPECT_EQ(quality.divergence->kl.value, 0);
    EXPECT_EQ(quality.divergence->top1_agreement.value, 1);
    EXPECT_EQ(quality.divergence->top5_overlap.value, 1);
    EXPECT_EQ(quality.divergence->rms_delta_prob.value, 0);
  }
}

TEST(ScoreText, AKeptReferenceGivesTheSameBits) {
  ThreadPool pool;
  const test::TemporaryFolder folder;
  const TextWindows text = windows(1200, 256);
  const auto reference = load("tiny-llama", pool);
  const auto model = load("bnb-nf4", pool);
  const ReferenceModel live = {*reference, {}};
  const ReferenceModel kept = {*reference, folder.path() / "reference"};
  const auto once = score_text(*model, &live, text, "", pool);
  const auto made = score_text(*model, &kept, text, "", pool);
  const auto read = score_text(*model, &kept, text, "", pool);
  ASSERT_TRUE(once && made && read);
  EXPECT_EQ(*once, *made);
  EXPECT_EQ(*once, *read);
  EXPECT_FALSE(is_identical(*once));

  // A window that was damaged on disk is named, not used.
  std::filesystem::resize_file(folder.path() / "reference" / "window-00001.f32", 100);
  const auto broken = score_text(*model, &kept, text, "", pool);
  ASSERT_FALSE(broken);
  EXPECT_THAT(to_string(broken.error()), testing::HasSubstr("window-00001.f32: 100 bytes"));
}

TEST(ScoreText, ThreadsChangeNothing) {
  ThreadPool one(1);
  ThreadPool three(3);
  const TextWindows text = windows(700, 300);
  const auto model = load("gptq-4b-g128", one, ComputeMode::kAuto);
  const auto a = score_text(*model, nullptr, text, "", one);
  const auto b = score_text(*model, nullptr, text, "", three);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(*a, *b);
  EXPECT_FALSE(a->has_reference());
}

TEST(ScoreText, AnotherVocabularyIsRefused) {
  ThreadPool pool(1);
  const auto model = load("tiny-llama", pool);
  const auto other = AutoModelForCausalLM::from_pretrained(
      (test::data_folder() / "architectures" / "qwen2").string(), {}, pool);
  ASSERT_TRUE(other) << to_string(other.error());
  if ((*other)->config().vocab_size == model->config().vocab_size) GTEST_SKIP() << "the same vocabulary";
  const ReferenceModel yardstick = {**other, {}};
  const auto scores = score_text(*model, &yardstick, windows(100, 64), "", pool);
  ASSERT_FALSE(scores);
  EXPECT_THAT(to_string(scores.error()), testing::HasSubstr("same tokenizer"));
}

TEST(TokenScores, SurviveTheirFile) {
  const test::TemporaryFolder folder;
  TokenScores scores;
  scores.resize(3, true);
  scores.nll = {1, 2, 3};
  scores.kl = {0.5f, 0, 4};
  scores.same_top = {1, 0, 1};
  ASSERT_TRUE(save_scores(scores, folder.path() / "s.safetensors"));
  const auto read = load_scores(folder.path() / "s.safetensors");
  ASSERT_TRUE(read) << to_string(read.error());
  EXPECT_EQ(*read, scores);
}

TEST(ScoreToken, CountsTheTopFive) {
  TokenScores scores;
  scores.resize(1, true);
  const std::vector<float> reference = {9, 8, 7, 6, 5, 4, 3};
  const std::vector<float> logits = {5, 6, 7, 8, 1, 9, 2};  // top five: 5, 3, 2, 1, 0
  score_token(logits, reference, 2, 0, scores);
  EXPECT_FLOAT_EQ(scores.top5_overlap[0], 0.8f);
  EXPECT_EQ(scores.same_top[0], 0);
  double p = 0;
  double q = 0;
  for (const float v : reference) p += std::exp(v);
  for (const float v : logits) q += std::exp(v);
  EXPECT_NEAR(scores.nll[0], std::log(q) - 7, 1e-6);
  EXPECT_NEAR(scores.delta_log[0], std::log(p) - std::log(q), 1e-6);
  EXPECT_NEAR(scores.delta_prob[0], std::exp(7) / q - std::exp(7) / p, 1e-6);
}

}  // namespace
}  // namespace nibble
