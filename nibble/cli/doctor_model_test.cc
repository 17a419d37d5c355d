#include "nibble/cli/doctor_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fixtures.h"

namespace nibble::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(DoctorModel, SaysWhatAKernelMultiplies) {
  const auto uses = explain_kernels("154 x int4-a8-avx512, 2 x codebook4-f32-avx2, 1 x bf16-avx512");
  ASSERT_EQ(uses.size(), 3u);
  EXPECT_EQ(uses[0].kernel, "int4-a8-avx512");
  EXPECT_EQ(uses[0].layers, 154u);
  EXPECT_EQ(uses[0].meaning, "integer codes times activations in int8");
  EXPECT_EQ(uses[1].meaning, "codes of a table, dequantized, times activations in float32");
  EXPECT_EQ(uses[2].meaning, "bfloat16 weights as they are stored");
  EXPECT_THAT(explain_kernels(""), IsEmpty());
}

// Whatever kernels there will be: a report without a meaning helps nobody.
TEST(DoctorModel, KnowsTheKernelsOfEveryModel) {
  ThreadPool pool;
  for (const std::string& name : test::model_names()) {
    SCOPED_TRACE(name);
    const std::string folder = test::model_folder(name).value().string();
    const auto model = look_at_kernels(folder, {}, pool);
    ASSERT_TRUE(model) << to_string(model.error());
    EXPECT_FALSE(model->kernels.empty());
    for (const KernelUse& use : model->kernels) {
      EXPECT_GT(use.layers, 0u);
      EXPECT_NE(use.meaning, "") << use.kernel;
    }
  }
}

TEST(DoctorModel, SaysWhyLayersAreNotFaster) {
  ModelKernels model;
  model.model = "folder";
  model.quantization = "gptq";
  model.compute = "auto";
  model.slow = {{"groups of 16: ...", {"a", "b", "c"}}};
  EXPECT_THAT(to_text(model),
              AllOf(HasSubstr("- 3 layers (a, b, ...) have groups of 16"), Not(HasSubstr("nf4"))));
  model.quantization = "none";
  EXPECT_THAT(to_text(model), HasSubstr("--quantize nf4"));
  model.compute = "f32";
  EXPECT_THAT(to_text(model), AllOf(HasSubstr("--compute f32"), Not(HasSubstr("--quantize nf4"))));
}

}  // namespace
}  // namespace nibble::cli
