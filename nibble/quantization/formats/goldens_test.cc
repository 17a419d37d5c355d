// Against files that the original libraries wrote: tests/data/models and tests/data/malformed.

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/quantization/formats/formats.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

using testing::HasSubstr;

struct Opened {
  std::shared_ptr<const Checkpoint> checkpoint;
  QuantizationConfig config;
};

Expected<Opened> open_folder(const std::filesystem::path& folder) {
  NIBBLE_TRY(const ModelFiles files, find_model(folder.string()));
  NIBBLE_TRY(const std::string text, files.read_required("config.json"));
  NIBBLE_TRY(const Json json, parse_json(text));
  NIBBLE_TRY(QuantizationConfig config, quantization_config_from_json(json.at("quantization_config")));
  NIBBLE_TRY(std::shared_ptr<const Checkpoint> checkpoint, open_checkpoint(files));
  return Opened{std::move(checkpoint), std::move(config)};
}

std::vector<std::string> quantized_model_names() {
  std::vector<std::string> names;
  for (const std::string& name : test::model_names()) {
    if (name != "tiny-llama") names.push_back(name);
  }
  return names;
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

class Goldens : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Models, Goldens, testing::ValuesIn(quantized_model_names()), test_name);

TEST_P(Goldens, DequantizedWeightEqualsTheOriginals) {
  const auto folder = test::model_folder(GetParam());
  ASSERT_TRUE(folder) << to_string(folder.error());
  const auto model = open_folder(*folder);
  ASSERT_TRUE(model) << to_string(model.error());
  const auto golden = SafetensorsFile::open(test::data_folder() / "goldens" / (GetParam() + ".safetensors"));
  ASSERT_TRUE(golden) << to_string(golden.error());
  const auto& metadata = golden->header().metadata;
  const std::string& module = metadata.at("dequantized_module");
  ASSERT_EQ(metadata.at("dequantized_rows"), "0..63 of [256, 512]");

  const auto decoded = decode_module(*model->checkpoint, module, model->config,
                                     LinearShape{.out_features = 256, .in_features = 512});
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  const auto whole = dequantize(decoded->weight, std::nullopt);
  ASSERT_TRUE(whole) << to_string(whole.error());

  EXPECT_EQ(torch_dtype_name(whole->dtype), metadata.at("dequantized_dtype"));
  EXPECT_EQ(sha256(whole->bytes), metadata.at("dequantized_sha256"));
  const auto expected = golden->tensor("dequantized");
  ASSERT_TRUE(expected);
  std::vector<float> rows(size_t{64} * 512);
  dequantize_rows(decoded->weight, 0, 64, rows.data());
  // The golden rows have passed through the library's dtype.
  const auto narrow = convert_tensor(Tensor::of(DType::kF32, {64, 512}, std::move(rows)), whole->dtype);
  ASSERT_TRUE(narrow);
  EXPECT_EQ(to_floats(*narrow).value(), copy_elements<float>(*expected));
}

// Words are what 2 and 4 bits are packed from; other widths, and layouts whose words hold no neighbours, come
// in bytes.
TEST_P(Goldens, WordsHoldTheCodes) {
  const auto folder = test::model_folder(GetParam());
  ASSERT_TRUE(folder) << to_string(folder.error());
  const auto model = open_folder(*folder);
  ASSERT_TRUE(model) << to_string(model.error());
  const std::set<std::string> in_words = {
      "gptq",     "gptq_v2",          "gptq_p",           "awq gemm",
      "awq gemv", "bitsandbytes nf4", "bitsandbytes fp4", "pack-quantized"};
  for (const std::string& module : quantized_modules(*model->checkpoint)) {
    const auto bytes = decode_module(*model->checkpoint, module, model->config, std::nullopt);
    const auto words =
        decode_module(*model->checkpoint, module, model->config, std::nullopt, CodeStorage::kWords);
    ASSERT_TRUE(bytes && words) << module;
    EXPECT_FALSE(bytes->weight.words) << module;
    const bool fits = bytes->weight.bits == 2 || bytes->weight.bits == 4;
    EXPECT_EQ(words->weight.words.has_value(), fits && in_words.contains(bytes->format))
        << module << " " << bytes->format;
    EXPECT_EQ(with_byte_codes(words->weight).codes, bytes->weight.codes) << module;
  }
}

TEST_P(Goldens, EveryModuleDecodesWithAndWithoutItsShape) {
  const auto folder = test::model_folder(GetParam());
  ASSERT_TRUE(folder) << to_string(folder.error());
  const auto model = open_folder(*folder);
  ASSERT_TRUE(model) << to_string(model.error());
  const std::vector<std::string> modules = quantized_modules(*model->checkpoint);
  EXPECT_GE(modules.size(), 18u);
  std::set<std::string> used;
  for (const std::string& module : modules) {
    const auto alone = decode_module(*model->checkpoint, module, model->config, std::nullopt);
    ASSERT_TRUE(alone) << to_string(alone.error());
    const LinearShape shape{alone->weight.out_features, alone->weight.in_features};
    EXPECT_TRUE(decode_module(*model->checkpoint, module, model->config, shape)) << module;
    const LinearShape other{shape.out_features * 2, shape.in_features};
    EXPECT_FALSE(decode_module(*model->checkpoint, module, model->config, other)) << module;

    const auto summary = summarize_module(*model->checkpoint, module, model->config);
    ASSERT_TRUE(summary) << to_string(summary.error());
    EXPECT_EQ(summary->format, alone->format);
    EXPECT_EQ(summary->out_features, shape.out_features);
    EXPECT_EQ(summary->in_features, shape.in_features);
    EXPECT_EQ(summary->bits, alone->weight.bits);
    size_t bytes = 0;
    for (const std::string& name : alone->tensors) bytes += *num_bytes(*model->checkpoint->find(name));
    EXPECT_EQ(summary->stored_bytes, bytes) << module;
    used.insert(alone->tensors.begin(), alone->tensors.end());
  }
  // What is left over is what a float model has, too.
  for (const auto& [name, info] : model->checkpoint->tensors()) {
    if (used.contains(name)) continue;
    EXPECT_TRUE(name.ends_with(".weight") || name.ends_with(".bias")) << name;
    EXPECT_TRUE(info.dtype == DType::kF16 || info.dtype == DType::kBF16) << name;
  }
}

TEST(Goldens, QuantizedHeadHasItsOwnBits) {
  const auto folder = test::model_folder("gptq-4b-lm_head");
  ASSERT_TRUE(folder);
  const auto model = open_folder(*folder);
  ASSERT_TRUE(model) << to_string(model.error());
  const auto head = summarize_module(*model->checkpoint, "lm_head", model->config);
  ASSERT_TRUE(head) << to_string(head.error());
  EXPECT_EQ(head->bits, 8);
  EXPECT_EQ(head->group_size, 32u);
}

TEST(Goldens, OrderedActivationsGiveAShuffledGIdx) {
  const auto folder = test::model_folder("gptq-4b-g128-desc_act");
  ASSERT_TRUE(folder);
  const auto model = open_folder(*folder);
  ASSERT_TRUE(model) << to_string(model.error());
  const auto decoded = decode_module(*model->checkpoint, "model.layers.1.mlp.down_proj", model->config, {});
  ASSERT_TRUE(decoded) << to_string(decoded.error());
  EXPECT_EQ(decoded->weight.g_idx.size(), 512u);
}

struct Malformed {
  const char* name;
  const char* message;  // a part of it
};

std::string malformed_name(const testing::TestParamInfo<Malformed>& info) {
  return test_name({info.param.name, info.index});
}

void PrintTo(const Malformed& m, std::ostream* out) { *out << m.name; }

class MalformedFiles : public testing::TestWithParam<Malformed> {};
INSTANTIATE_TEST_SUITE_P(
    Weights, MalformedFiles,
    testing::Values(
        Malformed{"gptq-bits-8",
                  "8 rows, but 64 inputs (config.json) at 8 bits take 16 (that many rows would be 4 bits)"},
        Malformed{"gptq-g_idx-negative", "element [3] is -3, but there are 2 groups"},
        Malformed{"gptq-g_idx-short", "shape [63], but 64 inputs make it [64]"},
        Malformed{"gptq-g_idx-too-large", "element [3] is 2, but there are 2 groups"},
        Malformed{"gptq-group-mismatch", "shape [2, 32], but 64 inputs with group_size 16"},
        Malformed{"gptq-group-too-large", "shape [2, 32], but 64 inputs with group_size 4096"},
        Malformed{"gptq-missing-qweight", "down_proj.qweight: the tensor is missing"},
        Malformed{"gptq-missing-scales", "down_proj.scales: the tensor is missing"},
        Malformed{"gptq-qweight-dtype", "elements are F32, but must be I32"},
        Malformed{"gptq-qweight-rows",
                  "shape [7, 32] has 7 rows, but 64 inputs (config.json) at 4 bits take 8"},
        Malformed{"gptq-qzeros-rows", "shape [1, 4], but 2 groups"},
        Malformed{"gptq-qzeros-shape", "shape [2, 3], but 2 groups"},
        Malformed{"gptq-scales-inf", "element [1, 7] is infinite"},
        Malformed{"gptq-scales-nan", "element [0, 5] is NaN"},
        Malformed{"gptq-weight-and-qweight", "down_proj.weight: the tensor is there beside"},
        Malformed{"awq-qzeros-missing", "zero_point is true"},
        Malformed{"awq-scales-shape", "shape [1, 32], but 64 inputs with group_size 32"},
        Malformed{"awq-version-gemv", "is the layout of version gemm, but config.json says gemv"},
        Malformed{"bnb4-absmax-short", "shape [31], but 2048 codes in blocks of 64 make it [32]"},
        Malformed{"bnb4-codebook-15", "shape [15], but codes of 4 bits make it [16]"},
        Malformed{"bnb4-nested-map-missing", "nested_quant_map: the tensor is missing"},
        Malformed{"bnb4-nested-missing", "nested_absmax: the tensor is missing"},
        Malformed{"bnb4-state-bad-utf8", "not valid JSON"},
        Malformed{"bnb4-state-blocksize-0", "blocksize is 0"},
        Malformed{"bnb4-state-blocksize-48", "blocksize is 48"},
        Malformed{"bnb4-state-extra-key", "unknown key"},
        Malformed{"bnb4-state-missing", "state of the quantization is missing"},
        Malformed{"bnb4-state-not-json", "not valid JSON"},
        Malformed{"bnb4-state-shape-overflow", "more than there can be"},
        Malformed{"bnb4-state-shape-wrong", "[32, 65]"},
        Malformed{"bnb4-state-two-keys", "2 states of the quantization"},
        Malformed{"bnb4-state-unknown-type", "quant_type is \"nf5\""},
        Malformed{"bnb4-weight-short", "1023 bytes of codes"},
        Malformed{"int8-scb-missing", "down_proj.SCB: the tensor is missing"},
        Malformed{"int8-scb-short", "shape [31], but 32 outputs make it [32]"},
        Malformed{"int8-weight-dtype", "but must be I8"},
        Malformed{"int8-weight-format-2", "is 2, an order made for one generation of GPUs"}),
    malformed_name);

// The shape that the architecture would ask for: hidden_size 32, intermediate_size 64, two heads of
// 16, one of keys and values.
LinearShape expected_shape(const std::string& module) {
  if (module.ends_with("down_proj")) return {32, 64};
  if (module.ends_with("gate_proj") || module.ends_with("up_proj")) return {64, 32};
  if (module.ends_with("k_proj") || module.ends_with("v_proj")) return {16, 32};
  return {32, 32};
}

Expected<size_t> decode_all(const Opened& model) {
  const std::vector<std::string> modules = quantized_modules(*model.checkpoint);
  for (const std::string& module : modules) {
    NIBBLE_RETURN_IF_ERROR(decode_module(*model.checkpoint, module, model.config, expected_shape(module)));
  }
  return modules.size();
}

TEST_P(MalformedFiles, AreRefusedByName) {
  const auto model = open_folder(test::data_folder() / "malformed" / GetParam().name);
  ASSERT_TRUE(model) << to_string(model.error());
  const auto decoded = decode_all(*model);
  ASSERT_FALSE(decoded);
  EXPECT_THAT(to_string(decoded.error()), HasSubstr(GetParam().message));
  EXPECT_THAT(to_string(decoded.error()), HasSubstr("down_proj"));
  EXPECT_FALSE(decoded.error().fix.empty());
}

TEST(ValidControls, Decode) {
  for (const char* name : {"valid-gptq", "valid-awq", "valid-bnb4", "valid-int8"}) {
    const auto model = open_folder(test::data_folder() / "malformed" / name);
    ASSERT_TRUE(model) << to_string(model.error());
    const auto decoded = decode_all(*model);
    ASSERT_TRUE(decoded) << to_string(decoded.error());
    EXPECT_GT(*decoded, 0u) << name;
  }
}

}  // namespace
}  // namespace nibble
