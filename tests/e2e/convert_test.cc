// `nibble convert` between layouts of codes, and `nibble diff`.

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/safetensors.h"
#include "tests/e2e/read_tensor.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

ProgramResult convert(const std::string& source, const std::string& to, const std::string& out,
                      std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"convert", source, "--to", to, "-o", out};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_program(arguments);
}

// Logits in float32 arithmetic, as bytes.
std::string logits(const std::string& folder) {
  const TemporaryFolder out;
  const std::string file = (out.path() / "logits.safetensors").string();
  const std::string ids = (data_folder() / "goldens/tiny-llama.safetensors").string();
  const ProgramResult result =
      run_program({"logits", folder, "--input-ids", ids, "-o", file, "--compute", "f32"});
  EXPECT_EQ(result.status, 0) << result;
  return read_text_file(file).value();
}

TEST(Convert, TheResultComputesTheSameLogits) {
  const TemporaryFolder folder;
  struct Row {
    const char* model;
    const char* to;
  };
  for (const Row row : {Row{"gptq-4b-g128", "gemm"}, Row{"awq-gemm-g128", "compressed-tensors"},
                        Row{"gptq-4b-g128-desc_act", "compressed-tensors"}, Row{"gptq-3b-g64", "gptq_p"},
                        Row{"awq-marlin-g128", "gptq"}, Row{"gptq-4b-dynamic", "compressed-tensors"}}) {
    const std::string out = (folder.path() / (std::string(row.model) + row.to)).string();
    const ProgramResult result = convert(model(row.model), row.to, out, {"--json"});
    ASSERT_EQ(result.status, 0) << row.model << " " << row.to << result;
    const Json json = result.json();
    EXPECT_GT(json["proved"], 0);
    EXPECT_EQ(json["proved"], json["modules"]["exact"]);
    EXPECT_EQ(json["modules"]["requantized"], 0);
    EXPECT_TRUE(json["check"].is_null());
    EXPECT_EQ(logits(out), logits(model(row.model))) << row.model << " " << row.to;
    EXPECT_EQ(run_program({"inspect", out}).status, 0);
    EXPECT_TRUE(fs::exists(out + "/tokenizer.json"));
    EXPECT_EQ(fs::exists(out + "/quantize_config.json"), std::string(row.to).starts_with("gptq"));
  }
}

TEST(Convert, WhatDoesNotFitIsRefusedAndLeavesNothing) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  const auto error = [&](const char* name, const char* to) {
    const ProgramResult result = convert(model(name), to, out);
    EXPECT_EQ(result.status, 3) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    EXPECT_EQ(result.out, "");
    EXPECT_FALSE(fs::exists(out));
    return result.err;
  };
  EXPECT_THAT(error("gptq-3b-g64", "gemm"), AllOf(HasSubstr("3 bits"), HasSubstr("--requantize")));
  EXPECT_THAT(error("bnb-nf4", "gptq"), HasSubstr("table"));
  EXPECT_THAT(error("gptq-4b-g128-desc_act", "gemm"), HasSubstr("order of inputs"));
  EXPECT_THAT(error("awq-gemm-g128", "gemv_fast"), HasSubstr("rounded to float16"));
}

TEST(Convert, RequantizingSaysWhatItCosts) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  const ProgramResult result = convert(model("bnb-nf4"), "gptq", out, {"--requantize", "--json"});
  ASSERT_EQ(result.status, 0) << result;
  const Json json = result.json();
  EXPECT_EQ(json["proved"], 0);
  EXPECT_GT(json["modules"]["requantized"], 0);
  EXPECT_GT(json["check"]["kl"], 0.0);
  EXPECT_FALSE(json["check"]["broken"]);
  EXPECT_THAT(json["changed"][0]["why"].get<std::string>(), HasSubstr("table"));
  EXPECT_EQ(run_program({"inspect", out, "--json"}).json()["quantization"]["method"], "gptq");
}

TEST(Convert, UsageErrorsAreNamed) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  const auto error = [&](const std::vector<std::string>& arguments) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.status, 2) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    EXPECT_FALSE(fs::exists(out));
    return result.err;
  };
  EXPECT_THAT(error({"convert", model("gptq-4b-g128"), "-o", out}), HasSubstr("--to is missing"));
  EXPECT_THAT(error({"convert", model("gptq-4b-g128"), "--to", "gptq", "-o", out}),
              HasSubstr("gptq already"));
  EXPECT_THAT(error({"convert", model("gptq-4b-g128"), "--to", "gguf", "-o", out}), HasSubstr("gguf"));
  EXPECT_THAT(error({"convert", model("tiny-llama"), "--to", "gptq", "-o", out}),
              HasSubstr("nibble quantize"));
  EXPECT_THAT(error({"convert", model("gptq-4b-g128"), "--to", "gemm", "-o", model("gptq-4b-g128")}),
              HasSubstr("the output is the model that is read"));
}

TEST(Convert, ToFloatIsDequantize) {
  const TemporaryFolder folder;
  const std::string a = (folder.path() / "a").string();
  const std::string b = (folder.path() / "b").string();
  ASSERT_EQ(convert(model("awq-gemm-g64"), "float", a).status, 0);
  ASSERT_EQ(run_program({"dequantize", model("awq-gemm-g64"), "-o", b}).status, 0);
  const ProgramResult same = run_program({"diff", a, b});
  EXPECT_EQ(same.status, 0) << same;
  EXPECT_THAT(same.out, HasSubstr("\nidentical\n"));
}

// Scales that divide what an activation gives exist in AWQ's files alone.
TEST(Convert, ToFloatPutsScalesOfActivationsIntoTheWeights) {
  const TemporaryFolder folder;
  const std::string ids = (folder.path() / "ids.safetensors").string();
  std::vector<int32_t> tokens(4 * 32);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((17 * i * i + 5 * i) % 90);
  ASSERT_TRUE(write_safetensors(ids, {{"input_ids", Tensor::of(DType::kI32, {4, 32}, tokens)}}).has_value());
  const std::string awq = (folder.path() / "awq").string();
  const std::string floats = (folder.path() / "floats").string();
  const ProgramResult quantized = run_program(
      {"quantize", (data_folder() / "architectures/gpt_neox").string(), "-o", awq, "--method", "awq",
       "--effort", "compat", "--group-size", "32", "--dataset", ids, "--seqlen", "32", "--no-check"});
  ASSERT_EQ(quantized.status, 0) << quantized;
  const Tensor scales = read_tensor(awq + "/model.safetensors", "gpt_neox.layers.0.mlp.act.scales");
  EXPECT_EQ(scales.dtype, DType::kF16);
  ASSERT_EQ(convert(awq, "float32", floats).status, 0);
  const auto logits_of = [&](const std::string& model) {
    const std::string out = model + ".safetensors";
    const ProgramResult result =
        run_program({"logits", model, "--input-ids", ids, "-o", out, "--compute", "f32"});
    EXPECT_EQ(result.status, 0) << result;
    return to_floats(read_tensor(out, "logits")).value();
  };
  const std::vector<float> expected = logits_of(awq);
  const std::vector<float> got = logits_of(floats);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-4) << i;
}

TEST(Convert, InterruptedLeavesNothingHalf) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  const ProgramResult result =
      run_program({"convert", model("gptq-8b-g128"), "--to", "gemm", "--requantize", "-o", out, "-t", "1"},
                  {.environment = {{"NIBBLE_CPU", "scalar"}},
                   .interrupt_when = [&](const std::string&) { return fs::exists(out); }});
  EXPECT_EQ(result.status, 130) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_FALSE(fs::exists(out));
}

TEST(Convert, SaysWhatWasWrittenAndProvedInLines) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  const ProgramResult result = run_program({"convert", model("gptq-4b-g128"), "--to", "gptq_v2", "-o", out});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.err,
              AllOf(HasSubstr(out + ": gptq_v2 from gptq, "), HasSubstr("\n21 of 21 modules hold")));
}

TEST(Convert, AFolderWithSomethingInItNeedsOverwrite) {
  const TemporaryFolder folder;
  ASSERT_TRUE(write_file(folder.path() / "precious", "text"));
  EXPECT_EQ(convert(model("gptq-4b-g128"), "gptq_v2", folder.path().string()).status, 2);
  EXPECT_EQ(convert(model("gptq-4b-g128"), "gptq_v2", folder.path().string(), {"--overwrite"}).status, 0);
  EXPECT_TRUE(fs::exists(folder.path() / "precious"));
}

TEST(Diff, AModelIsIdenticalToItself) {
  const ProgramResult result = run_program({"diff", model("gptq-4b-g128"), model("gptq-4b-g128"), "--json"});
  EXPECT_EQ(result.status, 0) << result;
  const Json json = result.json();
  EXPECT_EQ(json["verdict"], "identical");
  EXPECT_EQ(json["weights"]["same_bytes"], json["weights"]["compared"]);
  EXPECT_TRUE(json["settings"].empty() && json["files"].empty() && json["weights"]["different"].empty());
}

TEST(Diff, AnotherLayoutIsTheSameWeights) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  ASSERT_EQ(convert(model("awq-gemm-g64"), "gptq_v2", out).status, 0);
  const ProgramResult result = run_program({"diff", model("awq-gemm-g64"), out, "--json"});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_EQ(result.err, "");
  const Json json = result.json();
  EXPECT_EQ(json["verdict"], "same_weights");
  EXPECT_EQ(json["weights"]["same_values"], json["weights"]["compared"]);
  EXPECT_EQ(json["weights"]["different"].size(), 21u);  // the linear layers of three blocks
  EXPECT_EQ(json["weights"]["different"][0]["codes"]["differing"], 0);
  const ProgramResult text = run_program({"diff", model("awq-gemm-g64"), out});
  EXPECT_THAT(text.out, AllOf(HasSubstr("awq gemm -> gptq_v2"), HasSubstr("and 1 more: --all"),
                              HasSubstr("quantization_config.quant_method: \"awq\" -> \"gptq\""),
                              HasSubstr("quantize_config.json: only in B"),
                              HasSubstr("the same weights, stored in another way")));
  EXPECT_THAT(run_program({"diff", model("awq-gemm-g64"), out, "--all"}).out, Not(HasSubstr("more: --all")));
}

TEST(Diff, BackAndForthIsTheSameTensors) {
  const TemporaryFolder folder;
  const std::string there = (folder.path() / "there").string();
  const std::string back = (folder.path() / "back").string();
  ASSERT_EQ(convert(model("gptq-4b-g32-asym-v2"), "compressed-tensors", there).status, 0);
  ASSERT_EQ(convert(there, "gptq_v2", back).status, 0);
  const ProgramResult result = run_program({"diff", model("gptq-4b-g32-asym-v2"), back, "--json"});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_EQ(result.json()["verdict"], "same_tensors");
  EXPECT_TRUE(result.json()["weights"]["different"].empty());
}

// The zero points are stored as they are, or less 1: the same words mean other weights.
TEST(Diff, TheSameBytesMayMeanOtherWeights) {
  const TemporaryFolder folder;
  const std::string source = model("gptq-4b-g32-asym-v2");
  const std::string other = (folder.path() / "copy").string();
  fs::copy(source, other, fs::copy_options::recursive);
  for (const char* const name : {"config.json", "quantize_config.json"}) {
    std::string text = read_text_file(fs::path(other) / name).value();
    for (size_t at = 0; (at = text.find("\"gptq_v2\"", at)) != std::string::npos;)
      text.replace(at, 9, "\"gptq\"");
    ASSERT_TRUE(write_file(fs::path(other) / name, text));
  }
  const Json json = run_program({"diff", source, other, "--json"}).json();
  EXPECT_EQ(json["verdict"], "other_weights");
  EXPECT_EQ(json["weights"]["different"].size(), 21u);
  EXPECT_GT(json["weights"]["different"][0]["codes"]["zeros_differing"], 0);
}

// A copy of a model with changed tensors and settings.
std::string changed_copy(const fs::path& folder, const std::string& source,
                         const std::function<void(std::map<std::string, Tensor>&, Json&)>& change) {
  fs::copy(source, folder, fs::copy_options::recursive);
  const auto file = SafetensorsFile::open(folder / "model.safetensors");
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, entry] : file->header().tensors) tensors[name] = file->tensor(name).value();
  Json config = parse_json(read_text_file(folder / "config.json").value()).value();
  change(tensors, config);
  EXPECT_TRUE(write_safetensors(folder / "model.safetensors", tensors, file->header().metadata));
  EXPECT_TRUE(write_file(folder / "config.json", dump_json(config) + "\n"));
  return folder.string();
}

TEST(Diff, NamesWhatWasChanged) {
  const TemporaryFolder folder;
  const std::string source = model("tiny-llama");
  const std::string other =
      changed_copy(folder.path() / "copy", source, [](std::map<std::string, Tensor>& tensors, Json& config) {
        config["rope_theta"] = 5;
        config.erase("pad_token_id");
        auto& norm = tensors["model.norm.weight"];
        std::vector<uint16_t> halves = copy_elements<uint16_t>(norm);
        halves[3] = 0x7E00;  // NaN
        halves[5] ^= 1;
        norm = Tensor::of(DType::kF16, norm.shape, halves);
        auto& up = tensors["model.layers.2.mlp.up_proj.weight"];
        up = Tensor::of(DType::kF16, up.shape, std::vector<uint16_t>(up.size(), 0));
        tensors["model.extra"] = Tensor::of<uint8_t>(DType::kU8, {2}, {1, 2});
        auto& down = tensors["model.layers.0.mlp.down_proj.weight"];
        down.shape = {down.shape[1], down.shape[0]};
      });
  ASSERT_TRUE(write_file(fs::path(other) / "tokenizer_config.json", "{}"));
  const ProgramResult result = run_program({"diff", source, other, "--json"});
  EXPECT_EQ(result.status, 1) << result;
  const Json json = result.json();
  EXPECT_EQ(json["verdict"], "other_weights");
  std::map<std::string, Json> keys;
  for (const Json& key : json["settings"]) keys[key["key"]] = key;
  EXPECT_EQ(keys.at("rope_theta")["b"], 5);
  EXPECT_FALSE(keys.at("pad_token_id").contains("b"));
  ASSERT_EQ(json["files"].size(), 1u);
  EXPECT_EQ(json["files"][0]["file"], "tokenizer_config.json");
  const Json& different = json["weights"]["different"];
  ASSERT_EQ(different.size(), 4u);  // missing ones first, then shapes, then by size
  EXPECT_EQ(different[0]["name"], "model.extra");
  EXPECT_TRUE(different[0]["stored_a"].is_null());
  EXPECT_EQ(different[1]["name"], "model.layers.0.mlp.down_proj.weight");
  EXPECT_EQ(different[2]["name"], "model.layers.2.mlp.up_proj.weight");
  EXPECT_DOUBLE_EQ(different[2]["relative"], 1.0);
  EXPECT_EQ(different[3]["name"], "model.norm.weight");
  EXPECT_EQ(different[3]["differing"], 2);
  EXPECT_EQ(different[3]["not_finite"], 1);
  // The other way round nothing is divided by.
  const ProgramResult back = run_program({"diff", other, source, "--json"});
  EXPECT_TRUE(back.json()["weights"]["different"][2]["relative"].is_null()) << back;
}

TEST(Diff, CountsCodes) {
  const TemporaryFolder folder;
  const std::string source = model("gptq-4b-g128");
  const std::string other =
      changed_copy(folder.path() / "copy", source, [](std::map<std::string, Tensor>& tensors, Json&) {
        auto& words = tensors["model.layers.1.mlp.up_proj.qweight"];
        std::vector<uint32_t> values = copy_elements<uint32_t>(words);
        values[7] ^= 0x00010001;  // two codes
        words = Tensor::of(DType::kI32, words.shape, values);
      });
  const Json json = run_program({"diff", source, other, "--json"}).json();
  ASSERT_EQ(json["weights"]["different"].size(), 1u);
  const Json& up = json["weights"]["different"][0];
  EXPECT_EQ(up["name"], "model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(up["codes"]["differing"], 2);
  EXPECT_EQ(up["codes"]["scales_differing"], 0);
  EXPECT_EQ(up["differing"], 2);
}

TEST(Diff, FailuresAreErrorsNotDifferences) {
  const auto error = [](const std::string& a, const std::string& b, int status) {
    const ProgramResult result = run_program({"diff", a, b});
    EXPECT_EQ(result.status, status) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    EXPECT_EQ(result.out, "");
    return result.err;
  };
  const std::string fine = model("gptq-4b-g128");
  EXPECT_THAT(error(fine, "/no/such/folder", 1), HasSubstr("/no/such/folder"));
  // Read only once its weights are found to differ.
  const fs::path malformed = data_folder() / "malformed";
  EXPECT_THAT(error((malformed / "valid-gptq").string(), (malformed / "gptq-scales-nan").string(), 1),
              AllOf(HasSubstr("gptq-scales-nan"), HasSubstr("NaN")));
  EXPECT_THAT(error((malformed / "gptq-missing-scales").string(), fine, 1), HasSubstr("scales"));
  EXPECT_EQ(run_program({"diff", fine}).status, 2);
}

}  // namespace
}  // namespace nibble::test
