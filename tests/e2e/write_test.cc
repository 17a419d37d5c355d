// Commands that write files: `nibble logits`, `dequantize`, and what Ctrl-C leaves behind.

#include <csignal>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/safetensors.h"
#include "tests/e2e/read_tensor.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string golden_file(const std::string& name) {
  return (data_folder() / "goldens" / (name + ".safetensors")).string();
}

// Logits [batch, length, vocab] of a model, by the program.
std::vector<float> logits(const std::string& folder, const std::string& input_ids,
                          std::vector<std::string> more = {}) {
  const TemporaryFolder out;
  const std::string file = (out.path() / "logits.safetensors").string();
  std::vector<std::string> arguments = {"logits", folder, "--input-ids", input_ids,
                                        "-o",     file,   "--compute",   "f32"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_EQ(result.out, "");
  const Tensor tensor = read_tensor(file, "logits");
  EXPECT_EQ(tensor.dtype, DType::kF32);
  return copy_elements<float>(tensor);
}

TEST(Logits, AgreeWithTheOriginals) {
  for (const char* const name : {"tiny-llama", "gptq-4b-g128-desc_act", "awq-gemm-g128", "bnb-nf4-dq",
                                 "bnb-int8", "bnb-int8-outlier-skip"}) {
    const std::string golden = golden_file(name);
    const auto positions = copy_elements<int32_t>(read_tensor(golden, "logits_positions"));
    const auto expected = copy_elements<float>(read_tensor(golden, "logits"));
    const auto all = logits(model(name), golden, {});
    constexpr size_t kBatch = 2;
    constexpr size_t kLength = 48;
    constexpr size_t kVocab = 2048;
    ASSERT_EQ(all.size(), kBatch * kLength * kVocab) << name;
    std::vector<float> chosen;
    for (size_t sequence = 0; sequence < kBatch; ++sequence) {
      for (const int32_t position : positions) {
        const auto row = all.begin() + static_cast<std::ptrdiff_t>(
                                           (sequence * kLength + static_cast<size_t>(position)) * kVocab);
        chosen.insert(chosen.end(), row, row + kVocab);
      }
    }
    // The bounds of the project: 1e-3 (float) and 5e-3 (quantized) of the logits' standard deviation.
    const double bound = (std::string(name) == "tiny-llama" ? 1e-3 : 5e-3) * standard_deviation(expected);
    EXPECT_LE(max_abs_difference(chosen, expected), bound) << name;
  }
}

TEST(Logits, ChunksThreadsAndIdTypesChangeNoBit) {
  const std::string golden = golden_file("tiny-llama");
  const std::vector<float> whole = logits(model("gptq-4b-g128"), golden);
  EXPECT_EQ(logits(model("gptq-4b-g128"), golden, {"--prefill-chunk", "7", "-t", "1"}), whole);

  const TemporaryFolder folder;
  const Tensor ids = read_tensor(golden, "input_ids");
  std::vector<int64_t> wide;
  for (const int32_t id : copy_elements<int32_t>(ids)) wide.push_back(id);
  const std::string file = (folder.path() / "ids.safetensors").string();
  ASSERT_TRUE(
      write_safetensors(
          file, std::map<std::string, Tensor>{{"input_ids", Tensor::of(DType::kI64, ids.shape, wide)}})
          .has_value());
  EXPECT_EQ(logits(model("gptq-4b-g128"), file), whole);
}

TEST(Logits, BadInputsAreNamed) {
  const TemporaryFolder folder;
  const std::string tiny = model("tiny-llama");
  const std::string out = (folder.path() / "out.safetensors").string();
  const auto error = [&](const std::string& input, const std::string& output) {
    const ProgramResult result = run_program({"logits", tiny, "--input-ids", input, "-o", output});
    EXPECT_TRUE(is_one_error(result.err)) << result;
    EXPECT_FALSE(fs::exists(out));
    return std::to_string(result.status) + " " + result.err;
  };
  EXPECT_THAT(error("/no/such.safetensors", out),
              testing::AllOf(HasSubstr("1 error"), HasSubstr("/no/such.safetensors")));
  EXPECT_THAT(error(tiny + "/model.safetensors", out), HasSubstr("2 error"));
  EXPECT_THAT(error(tiny + "/model.safetensors", out), HasSubstr("no tensor \"input_ids\""));
  EXPECT_THAT(error(golden_file("tiny-llama"), folder.path().string()), HasSubstr("is a folder"));
  EXPECT_THAT(error(golden_file("tiny-llama"), "/no/such/folder/out"), HasSubstr("/no/such/folder"));
  ASSERT_TRUE(write_file(folder.path() / "there", "text").has_value());
  EXPECT_THAT(error(golden_file("tiny-llama"), (folder.path() / "there").string()),
              HasSubstr("exists already"));
  const std::string large = (folder.path() / "ids.safetensors").string();
  ASSERT_TRUE(write_safetensors(large,
                                std::map<std::string, Tensor>{
                                    {"input_ids", Tensor::of<int32_t>(DType::kI32, {1, 2}, {5, 2048})}})
                  .has_value());
  EXPECT_THAT(error(large, out), testing::AllOf(HasSubstr("2 error"), HasSubstr("2048")));
}

TEST(Logits, OfAMissingModel) {
  const TemporaryFolder folder;
  const ProgramResult result = run_program({"logits", "/no/such/folder", "--input-ids",
                                            golden_file("tiny-llama"), "-o", (folder.path() / "x").string()});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, HasSubstr("/no/such/folder"));
}

class Dequantize : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Models, Dequantize, testing::ValuesIn(model_names()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

TEST_P(Dequantize, GivesTheOriginalsBytesAndTheSameLogits) {
  if (GetParam() == "tiny-llama") GTEST_SKIP() << "not quantized";
  const TemporaryFolder folder;
  // The SHA-256 of the whole matrix, in the dtype that the original library was asked for.
  const auto golden = SafetensorsFile::open(golden_file(GetParam()));
  ASSERT_TRUE(golden.has_value());
  const auto& metadata = golden->header().metadata;
  const std::string typed = (folder.path() / "typed").string();
  const ProgramResult with_dtype = run_program(
      {"dequantize", model(GetParam()), "-o", typed, "--dtype", metadata.at("dequantized_dtype")});
  ASSERT_EQ(with_dtype.status, 0) << with_dtype;
  const Tensor weight = read_tensor(typed + "/model.safetensors", "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(torch_dtype_name(weight.dtype), metadata.at("dequantized_dtype"));
  EXPECT_EQ(sha256(weight.bytes), metadata.at("dequantized_sha256"));

  const std::string out = (folder.path() / "float").string();
  const ProgramResult result = run_program({"dequantize", model(GetParam()), "-o", out, "--json"});
  ASSERT_EQ(result.status, 0) << result;
  const Json config = parse_json(read_text_file(out + "/config.json").value()).value();
  EXPECT_FALSE(config.contains("quantization_config"));
  EXPECT_EQ(config["dtype"], result.json()["dtype"]);
  EXPECT_TRUE(fs::exists(out + "/tokenizer.json"));
  EXPECT_FALSE(fs::exists(out + "/quantize_config.json"));
  EXPECT_EQ(run_program({"inspect", out, "--json"}).json()["quantization"]["method"], "none");

  // In float32 nothing is rounded any more: only the order of the sums may differ.
  const std::string exact = (folder.path() / "float32").string();
  ASSERT_EQ(run_program({"dequantize", model(GetParam()), "-o", exact, "--dtype", "f32"}).status, 0);
  const auto of_codes = logits(model(GetParam()), golden_file(GetParam()));
  const auto of_floats = logits(exact, golden_file(GetParam()));
  const bool quantizes_activations = GetParam().rfind("bnb-int8", 0) == 0;
  const double bound = (quantizes_activations ? 0.1 : 1e-4) * standard_deviation(of_codes);
  EXPECT_LE(max_abs_difference(of_codes, of_floats), bound);
}

TEST(DequantizeOutput, IsNeverWrittenOverSomething) {
  const TemporaryFolder folder;
  const std::string source = model("gptq-4b-g128");
  const auto error = [&](const std::string& out) {
    const ProgramResult result = run_program({"dequantize", source, "-o", out});
    EXPECT_EQ(result.status, 2) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    return result.err;
  };
  EXPECT_THAT(error(source), HasSubstr("the output is the model that is read"));
  ASSERT_TRUE(write_file(folder.path() / "precious", "text").has_value());
  EXPECT_THAT(error(folder.path().string()), HasSubstr("is not empty"));
  EXPECT_THAT(error((folder.path() / "precious").string()), HasSubstr("is a file"));
  EXPECT_EQ(read_text_file(folder.path() / "precious").value(), "text");
  EXPECT_EQ(run_program({"dequantize", source, "-o", folder.path().string(), "--force"}).status, 0);
  EXPECT_EQ(read_text_file(folder.path() / "precious").value(), "text");
  EXPECT_TRUE(fs::exists(folder.path() / "model.safetensors"));
}

// Weights of the new model under the description of the old one could be read, and wrongly.
TEST(DequantizeOutput, AFailureNeverMixesTwoModels) {
  const TemporaryFolder folder;
  ASSERT_TRUE(write_file(folder.path() / "config.json", "old").has_value());
  ASSERT_TRUE(write_file(folder.path() / "quantize_config.json", "old").has_value());
  const fs::path weights = folder.path() / "model.safetensors";
  const std::string source = model("gptq-4b-g128");
  const ProgramResult result =
      run_program({"dequantize", source, "-o", folder.path().string(), "--force"},
                  {.interrupt_when = [&](const std::string&) { return fs::exists(weights); }});
  if (result.status == 0) GTEST_SKIP() << "it was done before the signal came";
  EXPECT_EQ(result.status, 130) << result;
  EXPECT_FALSE(fs::exists(folder.path() / "config.json"));
  EXPECT_FALSE(fs::exists(folder.path() / "quantize_config.json"));
}

TEST(DequantizeOutput, IsGoneAgainAfterAFailure) {
  const TemporaryFolder folder;
  const fs::path out = folder.path() / "out";
  const ProgramResult nothing = run_program({"dequantize", model("tiny-llama"), "-o", out.string()});
  EXPECT_EQ(nothing.status, 2) << nothing;
  EXPECT_THAT(nothing.err, HasSubstr("nothing in this model is quantized"));
  EXPECT_FALSE(fs::exists(out));
  const std::string broken = (data_folder() / "malformed/gptq-scales-nan").string();
  const ProgramResult result = run_program({"dequantize", broken, "-o", out.string()});
  EXPECT_EQ(result.status, 1) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_FALSE(fs::exists(out));
  fs::create_directory(out);
  EXPECT_EQ(run_program({"dequantize", broken, "-o", out.string()}).status, 1);
  EXPECT_TRUE(fs::exists(out) && fs::is_empty(out));
}

TEST(DequantizeOutput, MayBeSharded) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  ASSERT_EQ(
      run_program({"dequantize", model("awq-gemm-g64"), "-o", out, "--max-shard-size", "1000000"}).status, 0);
  EXPECT_TRUE(fs::exists(out + "/model.safetensors.index.json"));
  EXPECT_EQ(run_program({"inspect", out}).status, 0);
}

// A model of many layers, so that there is time to interrupt.
std::string deep_model(const fs::path& folder) {
  constexpr int kLayers = 48;
  const fs::path source = model("gptq-4b-g128");
  const auto file = SafetensorsFile::open(source / "model.safetensors");
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, entry] : file->header().tensors) {
    const std::string prefix = "model.layers.0.";
    if (name.rfind("model.layers.", 0) != 0) tensors[name] = file->tensor(name).value();
    if (name.rfind(prefix, 0) != 0) continue;
    for (int layer = 0; layer < kLayers; ++layer) {
      tensors["model.layers." + std::to_string(layer) + "." + name.substr(prefix.size())] =
          file->tensor(name).value();
    }
  }
  const fs::path out = folder / "deep";
  fs::create_directory(out);
  EXPECT_TRUE(write_safetensors(out / "model.safetensors", tensors).has_value());
  Json config = parse_json(read_text_file(source / "config.json").value()).value();
  config["num_hidden_layers"] = kLayers;
  EXPECT_TRUE(write_file(out / "config.json", config.dump()).has_value());
  return out.string();
}

TEST(Interrupt, DequantizeLeavesNothingHalf) {
  const TemporaryFolder folder;
  const std::string deep = deep_model(folder.path());
  const fs::path out = folder.path() / "out";
  const ProgramResult result =
      run_program({"dequantize", deep, "-o", out.string()},
                  {.interrupt_when = [&](const std::string&) { return fs::exists(out); }});
  EXPECT_EQ(result.status, 130) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_FALSE(fs::exists(out));
}

TEST(Interrupt, LogitsLeavesNoFile) {
  const TemporaryFolder folder;
  const std::string deep = deep_model(folder.path());
  const std::string out = (folder.path() / "out.safetensors").string();
  const auto num_files = [&] {
    return std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator());
  };
  const ptrdiff_t before = num_files();
  // -v says which kernels run once the model is loaded: the logits come next.
  const ProgramResult result =
      run_program({"logits", deep, "--input-ids", golden_file("tiny-llama"), "-o", out, "-v", "-t", "1",
                   "--prefill-chunk", "1"},
                  {.environment = {{"NIBBLE_CPU", "scalar"}}, .interrupt_when = [](const std::string& seen) {
                     return seen.find("backend auto") != std::string::npos;
                   }});
  EXPECT_EQ(result.status, 130) << result;
  EXPECT_EQ(num_files(), before);
}

TEST(Logits, AreWrittenOverNoFileOfTheModel) {
  const TemporaryFolder folder;
  const fs::path copy = folder.path() / "model";
  fs::copy(model("tiny-llama"), copy, fs::copy_options::recursive);
  const auto error = [&](const fs::path& out) {
    const ProgramResult result = run_program(
        {"logits", copy.string(), "--input-ids", golden_file("tiny-llama"), "-o", out.string(), "--force"});
    EXPECT_EQ(result.status, 2) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    return result.err;
  };
  fs::create_symlink(copy / "config.json", folder.path() / "link");
  for (const fs::path& out : {copy / "model.safetensors", folder.path() / "link"}) {
    EXPECT_THAT(error(out), HasSubstr("a file of the model that is read"));
  }
  EXPECT_THAT(error("/dev/null"), HasSubstr("a device"));
  EXPECT_EQ(fs::file_size(copy / "model.safetensors"),
            fs::file_size(fs::path(model("tiny-llama")) / "model.safetensors"));
}

}  // namespace
}  // namespace nibble::test
