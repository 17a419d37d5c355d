#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/mapped_file.h"
#include "tests/support/fixtures.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

TEST(Fixtures, EveryModelCanBePutTogether) {
  ASSERT_GE(model_names().size(), 26u);
  for (const std::string& name : model_names()) {
    const auto folder = model_folder(name);
    ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
    EXPECT_TRUE(std::filesystem::exists(*folder / "model.safetensors")) << name;
    EXPECT_TRUE(std::filesystem::exists(*folder / "config.json")) << name;
    EXPECT_FALSE(std::filesystem::exists(*folder / "cut.json")) << name;
  }
}

TEST(Fixtures, TokenizerIsThatOfTinyLlama) {
  const auto folder = model_folder("bnb-nf4", {.with_tokenizer = true});
  ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
  EXPECT_EQ(read_text_file(*folder / "tokenizer.json").value(),
            read_text_file(data_folder() / "models/tiny-llama/tokenizer.json").value());
  EXPECT_NE(*folder, model_folder("bnb-nf4").value());
}

TEST(Fixtures, UnknownModelIsNotFound) {
  const auto folder = model_folder("no-such-model");
  ASSERT_FALSE(folder.has_value());
  EXPECT_EQ(folder.error().code, ErrorCode::kNotFound);
}

TEST(Fixtures, ManyMayAskAtOnce) {
  std::vector<std::string> found(8);
  std::vector<std::thread> threads;
  for (std::string& path : found) {
    threads.emplace_back([&path] { path = model_folder("gptq-3b-g64", {.with_tokenizer = true}).value(); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::set<std::string>(found.begin(), found.end()).size(), 1u);
}

TEST(Logits, KnownValues) {
  const std::vector<float> p = {0.f, 2.f, 1.f, 2.f};
  const std::vector<float> q = {0.f, 0.f, 0.f, 0.f};
  EXPECT_EQ(argmax(p), 1);
  EXPECT_EQ(top_gap(p), 0.0);
  EXPECT_NEAR(logsumexp(q), std::log(4.0), 1e-12);
  EXPECT_EQ(max_abs_difference(p, q), 2.0);
  EXPECT_NEAR(standard_deviation(p), std::sqrt(0.6875), 1e-12);
  // sum p log p + log 4, from the definition.
  const double total = 1.0 + std::exp(1.0) + 2.0 * std::exp(2.0);
  const double mean_logit = (std::exp(1.0) + 4.0 * std::exp(2.0)) / total;
  EXPECT_NEAR(kl_divergence(p, q), mean_logit - std::log(total) + std::log(4.0), 1e-12);
  EXPECT_EQ(kl_divergence(p, p), 0.0);
}

TEST(Logits, NanAndOtherSizesAreNoSmallDifference) {
  const std::vector<float> good = {0.f, 1.f};
  const std::vector<float> bad = {std::numeric_limits<float>::quiet_NaN(), 1.f};
  EXPECT_TRUE(std::isnan(max_abs_difference(good, bad)));
  EXPECT_TRUE(std::isinf(max_abs_difference(good, {})));
}

}  // namespace
}  // namespace nibble::test
