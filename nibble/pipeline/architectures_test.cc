// Every architecture by every method: quantized, written, read back, and close to the float model.

#include <ostream>
#include <set>
#include <span>

#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "nibble/config/dynamic_rules.h"
#include "nibble/pipeline/method.h"
#include "nibble/pipeline/quantize.h"
#include "nibble/pipeline/test_model.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

using test::logits_of;
using test::relative_difference;
using test::some_tokens;

constexpr size_t kSampleTokens = 24;

// How far the logits may be from the float model's, as a share of how far those of the model without its
// linears are. The largest measured: 0.43 with 4 bits (phi3_longrope_long_rtn), 0.041 with int8. With one
// linear alone set to zero it is at least 0.08, whichever it is, and more than 0.5 for nearly half.
constexpr double kFourBits = 0.5;
constexpr double kEightBits = 0.06;

struct ArchitectureCase {
  std::string architecture;
  std::string method;  // as parse_method() reads it
};

std::string architecture_case_name(const ArchitectureCase& test) {
  return test.architecture + "_" + test.method.substr(0, test.method.find(':'));
}

void PrintTo(const ArchitectureCase& test, std::ostream* out) { *out << architecture_case_name(test); }

std::vector<ArchitectureCase> every_architecture_case() {
  std::vector<ArchitectureCase> cases;
  for (const std::string& name : test::architecture_names()) {
    for (const char* const method : {"gptq:4:32:fast", "awq:4:32:fast", "rtn:4:32", "nf4", "int8"}) {
      cases.push_back({name, method});
    }
  }
  return cases;
}

struct Refusal {
  std::string_view architecture, config, sentence;
};

// What no file of a method can hold, by the quant_method of config.json.
constexpr Refusal kRefusals[] = {
    {"llama_bias", "gptq",
     "model.layers.0.self_attn.k_proj: 48 outputs and 64 inputs, but gptq needs multiples of 32\n"
     "  The layout gemm holds it where group_size divides the inputs; otherwise leave the module as it is."},
};

// What lets the small models of these families into the files of each method.
struct Fitting {
  std::string_view architecture;
  const char* gptq_skips = nullptr;  // linears whose sizes are no multiples of 32
  int64_t awq_group_size = 32;
  // A token goes to all experts: small differences choose others, which is a large one.
  bool all_experts = false;
};

constexpr Fitting kFittings[] = {
    {"deepseek_v2", ".*\\.kv_a_proj_with_mqa"},
    {"deepseek_v2_groups", ".*(q_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj|o_proj)", 16, true},
    {"deepseek_v3_halves", ".*(q_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj|o_proj)", 16, true},
    {"deepseek_v3", ".*(q_a_proj|q_b_proj|kv_a_proj_with_mqa|experts\\..*)", 8, true},
    {"qwen2_moe", ".*\\.experts\\..*", 16},
    {"qwen3_moe", ".*\\.experts\\..*", 16},
};

Fitting fitting_of(std::string_view architecture) {
  for (const Fitting& row : kFittings) {
    if (row.architecture == architecture) return row;
  }
  return {};
}

void fit(const Fitting& fitting, QuantizeOptions& options) {
  if (auto* const awq = std::get_if<AwqConfig>(&options.config)) awq->group_size = fitting.awq_group_size;
  auto* const gptq = std::get_if<GPTQConfig>(&options.config);
  if (gptq != nullptr && fitting.gptq_skips != nullptr) {
    gptq->dynamic.push_back({fitting.gptq_skips, true, Json::object()});
  }
}

bool is_left_out(const QuantizeOptions& options, const std::string& module) {
  const auto* const gptq = std::get_if<GPTQConfig>(&options.config);
  return gptq != nullptr && find_dynamic_rule(*gptq, module).value() != nullptr;
}

std::filesystem::path with_all_experts(const std::filesystem::path& model,
                                       const std::filesystem::path& copy) {
  std::filesystem::copy(model, copy);
  Json config = parse_json(read_text_file(copy / "config.json").value()).value();
  config["num_experts_per_tok"] = config.at("n_routed_experts");
  config["topk_group"] = config.at("n_group");
  EXPECT_TRUE(write_file(copy / "config.json", dump_json(config)));
  return copy;
}

std::string_view refusal_of(std::string_view architecture, std::string_view config) {
  for (const Refusal& row : kRefusals) {
    if (row.architecture == architecture && row.config == config) return row.sentence;
  }
  return {};
}

// 8 samples of 24 tokens: more of them than any of these linears has inputs.
std::filesystem::path write_tokens(const std::filesystem::path& folder, size_t vocab_size) {
  constexpr size_t kSamples = 8;
  std::mt19937 rng(3);
  std::vector<int32_t> ids(kSamples * kSampleTokens);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % vocab_size);
  const std::filesystem::path path = folder / "tokens.safetensors";
  EXPECT_TRUE(write_safetensors(
      path, {{"input_ids", Tensor::of(DType::kI32, {kSamples, kSampleTokens}, std::move(ids))}}));
  return path;
}

class EveryArchitecture : public testing::TestWithParam<ArchitectureCase> {};
INSTANTIATE_TEST_SUITE_P(Every, EveryArchitecture, testing::ValuesIn(every_architecture_case()),
                         [](const auto& test) { return architecture_case_name(test.param); });

TEST_P(EveryArchitecture, IsQuantizedAndReadBack) {
  const Fitting fitting = fitting_of(GetParam().architecture);
  const test::TemporaryFolder folder;
  std::filesystem::path original = test::data_folder() / "architectures" / GetParam().architecture;
  if (fitting.all_experts) original = with_all_experts(original, folder.path() / "original");
  const ModelSource source = test::open_model(original);
  auto method = parse_method(GetParam().method);
  ASSERT_TRUE(method) << to_string(method.error());
  QuantizeOptions options = method->options;
  fit(fitting, options);
  options.dataset = {{write_tokens(folder.path(), source.config.vocab_size), {}}};
  options.check = false;  // it needs text
  ThreadPool pool(1);
  const std::filesystem::path written = folder.path() / "quantized";
  const auto result = quantize_model(source.files, written, options, pool);
  const std::string_view config = quant_method(options.config);
  const std::string_view refusal = refusal_of(GetParam().architecture, config);
  if (!refusal.empty()) {
    ASSERT_FALSE(result);
    EXPECT_EQ(to_string(result.error()), refusal);
    return;
  }
  ASSERT_TRUE(result) << to_string(result.error());

  const ModelSource after = test::open_model(written);
  ASSERT_TRUE(after.config.json.contains("quantization_config"));
  EXPECT_EQ(after.config.json["quantization_config"]["quant_method"], config);

  std::set<std::string> codes;
  for (const std::string& module : quantized_modules(*after.checkpoint)) codes.insert(module);
  for (const ModuleSlot& slot : source.slots) {
    const bool quantized = slot.role == ModuleRole::kLinear && !is_left_out(options, slot.name);
    EXPECT_EQ(codes.contains(slot.name), quantized) << slot.name;
  }

  const std::vector<int32_t> tokens = some_tokens(source, kSampleTokens);
  const std::vector<float> expected = logits_of(original, tokens);
  const double nothing = relative_difference(test::logits_without_linears(source, tokens), expected);
  const double difference = relative_difference(logits_of(written, tokens), expected);
  EXPECT_LT(difference, (method->bits == 8 ? kEightBits : kFourBits) * nothing)
      << difference / nothing << " of the difference without linears";
}

}  // namespace
}  // namespace nibble
