// `nibble quantize`, compared with what the original libraries wrote for the same model and tokens.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/mapped_file.h"
#include "tests/e2e/read_tensor.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;

// Quantizes tiny-llama with the tokens that GPTQModel's files were made with.
void quantize(const fs::path& folder, std::vector<std::string> more) {
  const auto model = model_folder("tiny-llama");
  ASSERT_TRUE(model) << to_string(model.error());
  std::vector<std::string> arguments = {"quantize", model->string(), "-o", folder.string(), "-q"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const ProgramResult result = run_program(arguments);
  ASSERT_EQ(result.status, 0) << result;
}

std::vector<std::string> gptq_arguments(const std::string& effort, const std::string& threads) {
  const std::string tokens = (data_folder() / "calibration-tokens.safetensors").string();
  return {"--method", "gptq", "--dataset",  tokens,      "--nsamples", "64",        "--seqlen", "512",
          "--effort", effort, "--no-check", "--compute", "f32",        "--threads", threads};
}

Tensor tensor_of(const fs::path& folder, std::string_view name) {
  return read_tensor(folder / "model.safetensors", name);
}

// The original ran in float16, so that a few codes near a border differ, and later layers see other inputs.
TEST(Quantize, GptqGivesTheOriginalsCodesInTheFirstLayers) {
  const TemporaryFolder out;
  std::vector<std::string> arguments = gptq_arguments("compat", "2");
  arguments.emplace_back("--no-act-group-aware");  // as that file was made
  quantize(out.path() / "q", arguments);
  const auto original = model_folder("gptq-4b-g128");
  ASSERT_TRUE(original) << to_string(original.error());
  for (const char* const name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string tensor = std::string("model.layers.0.self_attn.") + name + ".qweight";
    const auto ours = copy_elements<uint32_t>(tensor_of(out.path() / "q", tensor));
    const auto theirs = copy_elements<uint32_t>(tensor_of(*original, tensor));
    ASSERT_EQ(ours.size(), theirs.size());
    size_t equal = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      for (int shift = 0; shift < 32; shift += 4) equal += ((ours[i] ^ theirs[i]) >> shift & 15u) == 0;
    }
    EXPECT_GT(static_cast<double>(equal), 0.997 * 8 * static_cast<double>(ours.size())) << name;
  }
}

TEST(Quantize, GivesTheSameBytesForAnyNumberOfThreads) {
  const TemporaryFolder out;
  quantize(out.path() / "one", gptq_arguments("best", "1"));
  quantize(out.path() / "two", gptq_arguments("best", "2"));
  EXPECT_EQ(*read_text_file(out.path() / "one" / "model.safetensors"),
            *read_text_file(out.path() / "two" / "model.safetensors"));
}

TEST(Quantize, Nf4CodesAreThoseOfBitsandbytes) {
  const TemporaryFolder out;
  quantize(out.path() / "q", {"--method", "nf4"});
  const auto original = model_folder("bnb-nf4");
  ASSERT_TRUE(original) << to_string(original.error());
  for (const char* const suffix : {"weight", "weight.absmax"}) {
    const std::string tensor = std::string("model.layers.1.mlp.down_proj.") + suffix;
    EXPECT_EQ(copy_elements<uint8_t>(tensor_of(out.path() / "q", tensor)),
              copy_elements<uint8_t>(tensor_of(*original, tensor)))
        << suffix;
  }
}

TEST(Quantize, WhatGoesNotTogetherIsRefusedBeforeTheWork) {
  const TemporaryFolder out;
  const auto model = model_folder("tiny-llama");
  ASSERT_TRUE(model) << to_string(model.error());
  const ProgramResult result = run_program(
      {"quantize", model->string(), "-o", (out.path() / "q").string(), "--method", "nf4", "--bits", "3"});
  EXPECT_NE(result.status, 0);
  EXPECT_THAT(result.err, testing::HasSubstr("--bits says nothing to nf4"));
  EXPECT_FALSE(fs::exists(out.path() / "q"));
}

}  // namespace
}  // namespace nibble::test
