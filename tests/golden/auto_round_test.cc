// AutoRound's configuration in front of tensors in the layouts of GPTQ and AWQ: the same bytes of logits as
// with the configuration of the original library.

#include <cstring>
#include <ostream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

struct AutoRoundCase {
  const char* model;
  const char* quantization_config;
};

void PrintTo(const AutoRoundCase& test, std::ostream* out) { *out << test.model; }

class AutoRound : public testing::TestWithParam<AutoRoundCase> {};

constexpr AutoRoundCase kCases[] = {
    {"gptq-4b-g128", R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4,
                         "group_size": 128, "sym": true, "block_name_to_quantize": "model.layers"})"},
    {"gptq-2b-g32-asym-v2", R"({"quant_method": "auto-round", "packing_format": "auto_round:gptqmodel",
                                "bits": 2, "group_size": 32, "sym": false})"},
    {"gptq-4b-g32-asym-v2", R"({"quant_method": "intel/auto-round", "backend": "auto_round:exllamav2",
                                "bits": 4, "group_size": 32, "sym": false})"},
    {"gptq-4b-lm_head", R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4,
                            "group_size": 128, "sym": true, "extra_config": {
                              "lm_head": {"bits": 8, "group_size": 32, "sym": true}}})"},
    {"gptq-4b-dynamic", R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4,
                            "group_size": 64, "sym": true, "extra_config": {
                              "layers\\.1\\.mlp\\.down": {"bits": 8, "group_size": 128},
                              "model.layers.0.self_attn.k_proj": {"bits": 16}}})"},
    {"awq-gemm-g64", R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4,
                         "group_size": 64, "sym": false})"},
};

INSTANTIATE_TEST_SUITE_P(Every, AutoRound, testing::ValuesIn(kCases),
                         [](const auto& test) { return test_name(test.param.model); });

TEST_P(AutoRound, ReadsWhatTheWrappedFormatReads) {
  const auto source = model_folder(GetParam().model);
  ASSERT_TRUE(source.has_value()) << to_string(source.error());
  const TemporaryFolder copy;
  std::filesystem::copy_file(*source / "model.safetensors", copy.path() / "model.safetensors");
  Json config = parse_json(read_text_file(*source / "config.json").value()).value();
  config["quantization_config"] = parse_json(GetParam().quantization_config).value();
  ASSERT_TRUE(write_file(copy.path() / "config.json", dump_json(config)));

  Runner original(*source, in_float32());
  Runner wrapped(copy.path(), in_float32());
  ASSERT_TRUE(wrapped.model.has_value()) << to_string(wrapped.model.error());
  const std::vector<int32_t> tokens = {1, 50, 7, 900, 33, 2, 1999};
  const auto expected = original.logits(tokens);
  const auto got = wrapped.logits(tokens);
  ASSERT_TRUE(expected.has_value()) << to_string(expected.error());
  ASSERT_TRUE(got.has_value()) << to_string(got.error());
  ASSERT_EQ(got->size(), expected->size());
  EXPECT_EQ(std::memcmp(got->data(), expected->data(), got->size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace nibble::test
