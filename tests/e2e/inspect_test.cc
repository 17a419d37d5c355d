// `nibble inspect`: numbers against the headers of the files.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/safetensors.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

using testing::HasSubstr;

// Of the tiny model that all of tests/data/models derive from: 3 layers of q, o [256, 256], k, v [128, 256],
// and an MLP of 3 x [512, 256]; embedding [2048, 256], which is the head too; 7 norms of 256.
constexpr size_t kLinearWeights = 3 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256);
constexpr size_t kEmbedding = 2048 * 256;
constexpr size_t kNorms = 7 * 256;

struct Expectation {
  const char* model;
  const char* method;
  int bits;
  int group_size;  // 0: null
  size_t modules;
  std::vector<std::string> exceptions;
};

std::ostream& operator<<(std::ostream& out, const Expectation& expected) { return out << expected.model; }

class Inspect : public testing::TestWithParam<Expectation> {};
INSTANTIATE_TEST_SUITE_P(
    Models, Inspect,
    testing::Values(Expectation{"tiny-llama", "none", 16, 0, 0, {}},
                    Expectation{"gptq-4b-g128", "gptq", 4, 128, 21, {}},
                    Expectation{"gptq-4b-g-1", "gptq", 4, -1, 21, {}},
                    Expectation{"gptq-2b-g32-asym-v2", "gptq", 2, 32, 21, {}},
                    Expectation{"gptq-3b-g64", "gptq", 3, 64, 21, {}},
                    Expectation{"gptq-5b-g64-planar", "gptq", 5, 64, 21, {}},
                    Expectation{"gptq-8b-g128", "gptq", 8, 128, 21, {}},
                    Expectation{"gptq-4b-lm_head", "gptq", 4, 128, 22, {"lm_head"}},
                    Expectation{"gptq-4b-dynamic",
                                "gptq",
                                4,
                                64,
                                20,
                                {"model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"}},
                    Expectation{"awq-gemm-g64", "awq", 4, 64, 21, {}},
                    Expectation{"awq-gemm-g32-skip",
                                "awq",
                                4,
                                32,
                                18,
                                {"model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj",
                                 "model.layers.2.self_attn.o_proj"}},
                    Expectation{"awq-gemv-g64", "awq", 4, 64, 21, {}},
                    Expectation{"awq-gemv_fast-g128", "awq", 4, 128, 21, {}},
                    Expectation{"awq-marlin-g128", "awq", 4, 128, 21, {}},
                    Expectation{"bnb-nf4", "bitsandbytes", 4, 64, 21, {}},
                    Expectation{"bnb-nf4-dq-bf16-storage", "bitsandbytes", 4, 64, 21, {}},
                    Expectation{"bnb-fp4", "bitsandbytes", 4, 64, 21, {}},
                    Expectation{"bnb-int8", "bitsandbytes", 8, -1, 21, {}},
                    Expectation{"bnb-int8-outlier-skip",
                                "bitsandbytes",
                                8,
                                -1,
                                19,
                                {"model.layers.1.self_attn.o_proj", "model.layers.2.mlp.down_proj"}}),
    [](const auto& test) {
      std::string name = test.param.model;
      for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
      return name;
    });

TEST_P(Inspect, NumbersAreThoseOfTheFile) {
  const Expectation& expected = GetParam();
  const std::string folder = model(expected.model);
  const ProgramResult result = run_program({"inspect", folder, "--json"});
  ASSERT_EQ(result.status, 0) << result;
  const Json json = result.json();
  EXPECT_EQ(json["architecture"], "LlamaForCausalLM");
  EXPECT_EQ(json["model_type"], "llama");
  EXPECT_EQ(json["supported"], true);
  EXPECT_EQ(json["context_length"], 1024);
  EXPECT_EQ(json["kv_bytes_per_token"],
            3 * 4 * 32 * 2 * 2);  // layers, heads, head_dim, key and value, float16
  EXPECT_EQ(json["tokenizer"], "BPE");
  EXPECT_EQ(json["chat_template"], true);
  EXPECT_EQ(json["config"]["hidden_size"], 256);

  const Json& quantization = json["quantization"];
  EXPECT_EQ(quantization["method"], expected.method);
  EXPECT_EQ(quantization["bits"], expected.bits) << quantization;
  EXPECT_EQ(quantization["group_size"], expected.group_size == 0 ? Json() : Json(expected.group_size));
  EXPECT_EQ(quantization["modules"], expected.modules);
  std::vector<std::string> exceptions;
  for (const Json& exception : quantization["exceptions"]) exceptions.push_back(exception["module"]);
  EXPECT_EQ(exceptions, expected.exceptions);

  size_t linear = 0;
  size_t embedding = 0;
  size_t head = 0;
  size_t norm = 0;
  const auto file = SafetensorsFile::open(folder + "/model.safetensors");
  ASSERT_TRUE(file.has_value());
  for (const auto& [name, entry] : file->header().tensors) {
    const size_t bytes = entry.end - entry.begin;
    (name.find("_proj") != std::string::npos          ? linear
     : name.find("embed_tokens") != std::string::npos ? embedding
     : name.rfind("lm_head", 0) == 0                  ? head
                                                      : norm) += bytes;
  }
  EXPECT_EQ(json["bytes"]["linear"], linear);
  EXPECT_EQ(json["bytes"]["embedding"], embedding);
  EXPECT_EQ(json["bytes"]["head"], head);
  EXPECT_EQ(json["bytes"]["norm"], norm);
  EXPECT_EQ(json["bytes"]["other"], 0);
  EXPECT_EQ(json["bytes"]["total"], linear + embedding + head + norm);
  const size_t parameters = kLinearWeights + kEmbedding + kNorms + (head > 0 ? kEmbedding : 0);
  EXPECT_EQ(json["parameters"], parameters);
  EXPECT_DOUBLE_EQ(json["bits_per_weight"]["linear"].get<double>(),
                   8.0 * static_cast<double>(linear) / static_cast<double>(kLinearWeights));
  EXPECT_DOUBLE_EQ(
      json["bits_per_weight"]["model"].get<double>(),
      8.0 * static_cast<double>(linear + embedding + head + norm) / static_cast<double>(parameters));
}

TEST(InspectText, IsAPageForPeople) {
  const ProgramResult result = run_program({"inspect", model("gptq-4b-dynamic")});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out, HasSubstr("LlamaForCausalLM (llama)"));
  EXPECT_THAT(result.out, HasSubstr("4 bits, groups of 64"));
  EXPECT_THAT(result.out, HasSubstr("model.layers.1.mlp.down_proj: gptq, 8 bits, groups of 128"));
  EXPECT_THAT(result.out, HasSubstr("2.30 M"));
}

TEST(InspectUnknown, AnUnknownArchitectureIsJudgedByItsTensors) {
  const ProgramResult result =
      run_program({"inspect", (data_folder() / "malformed/config-unknown-model-type").string(), "--json"});
  ASSERT_EQ(result.status, 0) << result;
  const Json json = result.json();
  EXPECT_EQ(json["supported"], false);
  EXPECT_EQ(json["model_type"], "lllama");
  EXPECT_GT(json["bytes"]["linear"], 0);
  EXPECT_GT(json["bytes"]["embedding"], 0);
  EXPECT_GT(json["bytes"]["norm"], 0);
}

TEST(InspectArchitectures, EveryOneIsSupportedAndAddsUp) {
  for (const std::string& name : architecture_names()) {
    const std::filesystem::path folder = data_folder() / "architectures" / name;
    const ProgramResult result = run_program({"inspect", folder.string(), "--json"});
    ASSERT_EQ(result.status, 0) << name << "\n" << result;
    const Json json = result.json();
    EXPECT_EQ(json["supported"], true) << name;
    EXPECT_EQ(json["bytes"]["other"], 0) << name;
    const auto checkpoint = open_checkpoint({name, folder, {}, {}});
    ASSERT_TRUE(checkpoint.has_value()) << name;
    size_t total = 0;
    for (const auto& [tensor, info] : (*checkpoint)->tensors()) total += num_bytes(info).value();
    EXPECT_EQ(json["bytes"]["total"], total) << name;
  }
}

// Two of four experts for a token: half of their weights, and all of the rest with the shared ones.
TEST(InspectArchitectures, ATokenMeetsSomeOfTheExperts) {
  struct Mixture {
    const char* name;
    size_t parameters;
    size_t of_experts;
  };
  for (const Mixture& mixture : {Mixture{"mixtral", 254784, 196608}, Mixture{"qwen2_moe", 169152, 73728},
                                 Mixture{"deepseek_v2", 122496, 24576}, Mixture{"qwen3", 0, 0}}) {
    const std::string folder = (data_folder() / "architectures" / mixture.name).string();
    const ProgramResult result = run_program({"inspect", folder, "--json"});
    ASSERT_EQ(result.status, 0) << mixture.name << "\n" << result;
    const Json json = result.json();
    if (mixture.of_experts == 0) {
      EXPECT_EQ(json["active_parameters"], json["parameters"]) << mixture.name;
      continue;
    }
    EXPECT_EQ(json["parameters"], mixture.parameters) << mixture.name;
    EXPECT_EQ(json["active_parameters"], mixture.parameters - mixture.of_experts / 2) << mixture.name;
    EXPECT_THAT(run_program({"inspect", folder}).out, HasSubstr("of which a token meets")) << mixture.name;
  }
}

}  // namespace
}  // namespace nibble::test
