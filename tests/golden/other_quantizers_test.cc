// Checkpoints that AutoRound and LLM Compressor wrote (tools/goldens/other_quantizers.py), whose formats wrap
// or resemble those of GPTQ and AWQ, against the same weights in Transformers.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/golden/agreement.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

class OtherQuantizer : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto golden = load_golden(folder() / "goldens.safetensors");
    ASSERT_TRUE(golden.has_value()) << to_string(golden.error());
    golden_.emplace(*std::move(golden));
  }
  static std::filesystem::path folder() { return data_folder() / "other_quantizers" / GetParam(); }

  std::optional<Golden> golden_;
};

INSTANTIATE_TEST_SUITE_P(Every, OtherQuantizer, testing::ValuesIn(other_quantizer_names()),
                         [](const auto& test) { return test.param; });

TEST_P(OtherQuantizer, LogitsAndGreedyContinuationAgree) {
  Runner runner(folder(), in_float32());
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  const double tolerance = 1e-3 * golden_->logits_std;
  const double largest = expect_logits(runner, *golden_, tolerance);
  expect_greedy(runner, *golden_, tolerance);
  report(fmt::format("{}: logits differ by {:.1e} of their standard deviation", GetParam(),
                     largest / golden_->logits_std));
}

TEST_P(OtherQuantizer, IntegerActivationsStayNear) {
  Runner runner(folder(), in_auto());
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  const std::string kernels = (*runner.model)->kernels();
  EXPECT_NE(kernels.find("-a16-"), std::string::npos) << kernels;  // of q, k and v at least
  EXPECT_EQ(kernels.find("-f32-"), std::string::npos) << kernels;
  // The largest of 12,288 logits, of random weights in two narrow layers, where little averages out.
  expect_logits(runner, *golden_, 0.25 * golden_->logits_std);
}

}  // namespace
}  // namespace nibble::test
