#include "nibble/pipeline/awq_block.h"

#include <algorithm>

#include <gmock/gmock.h>

#include "nibble/pipeline/test_model.h"
#include "nibble/quantization/formats/encode.h"

namespace nibble {
namespace {

using test::logits_with;
using test::open_architecture;
using test::relative_difference;
using testing::HasSubstr;

// Statistics of random inputs some of whose channels are much larger than others.
struct Inputs {
  std::vector<AwqInput> list;
  std::vector<std::unique_ptr<std::vector<float>>> owned;

  void add(const ModelSource& source, const std::vector<std::string>& names, std::mt19937& rng) {
    constexpr size_t kTokens = 96;
    AwqInput input;
    for (const std::string& name : names) {
      if (!name.empty()) input.modules.push_back(name);
    }
    const size_t n = source.slot(input.modules.front()).shape[1];
    std::normal_distribution<float> normal;
    std::vector<float> x(kTokens * n);
    std::vector<float> size(n);
    for (float& s : size) s = std::exp(1.2f * normal(rng));
    for (size_t i = 0; i < x.size(); ++i) x[i] = size[i % n] * normal(rng);
    std::vector<float>& gram = *owned.emplace_back(std::make_unique<std::vector<float>>(n * n));
    std::vector<float>& mean_abs = *owned.emplace_back(std::make_unique<std::vector<float>>(n));
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t i = 0; i < n; ++i) {
        mean_abs[i] += std::fabs(x[t * n + i]) / kTokens;
        for (size_t j = 0; j < n; ++j) gram[i * n + j] += x[t * n + i] * x[t * n + j] / kTokens;
      }
    }
    input.gram = {gram.data(), n, n};
    input.mean_abs = mean_abs;
    input.tokens = kTokens;
    list.push_back(std::move(input));
  }
};

Inputs inputs_of(const ModelSource& source, size_t layer) {
  const BlockModules modules = block_modules(source.spec, layer, source.prefix_missing);
  std::mt19937 rng(static_cast<uint32_t>(layer + 1));
  Inputs inputs;
  std::vector<std::string> first = {modules.qkv, modules.q, modules.k, modules.v, modules.q_a, modules.kv_a};
  const bool shared = source.spec.names.parallel && source.spec.names.block.mlp_in_norm.empty();  // Phi
  if (shared) {
    const MlpModules& mlp = modules.mlps.front();
    first.insert(first.end(), {mlp.gate_up, mlp.gate, mlp.up});
  }
  inputs.add(source, first, rng);
  for (const std::string& second : {modules.q_b, modules.kv_b}) {
    if (!second.empty()) inputs.add(source, {second}, rng);
  }
  inputs.add(source, {modules.o}, rng);
  for (const MlpModules& mlp : modules.mlps) {
    if (!shared) inputs.add(source, {mlp.gate_up, mlp.gate, mlp.up}, rng);
    inputs.add(source, {mlp.down}, rng);
  }
  return inputs;
}

// Compares logits through files: nothing of the code under test takes part but the tensors it made.
class Prover {
 public:
  explicit Prover(const ModelSource& source)
      : source_(source), tokens_(test::some_tokens(source, 24)), before_(logits_with(source, {}, tokens_)) {}

  double difference(const FloatTensors& changed) const {
    return relative_difference(logits_with(source_, changed, tokens_), before_);
  }
  ProveFold callback(std::string forgotten = {}) const {
    return [this, forgotten](const FloatTensors& changed) -> Expected<double> {
      FloatTensors written = changed;
      written.erase(forgotten);
      return difference(written);
    };
  }

 private:
  const ModelSource& source_;
  std::vector<int32_t> tokens_;
  std::vector<float> before_;
};

AwqBlockOptions small_groups() { return {.search = {.group_size = 32}}; }

void expect_folds_change_nothing(const ModelSource& source, const std::string& name) {
  ThreadPool pool(1);
  const Prover prover(source);
  for (size_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
    const Inputs inputs = inputs_of(source, layer);
    const auto result =
        quantize_awq_block(source, layer, inputs.list, small_groups(), prover.callback(), pool);
    ASSERT_TRUE(result.has_value()) << name << ": " << to_string(result.error());
    EXPECT_LT(result->proof, 1e-5) << name;
    EXPECT_GT(result->proof, 0.0) << name << ": nothing was folded";
    const auto linears = linear_modules(source.slots);
    const std::string prefix = block_modules(source.spec, layer, false).prefix;
    size_t expected = 0;
    for (const std::string& module : linears) expected += module.starts_with(prefix);
    EXPECT_EQ(result->weights.size(), expected) << name;
    EXPECT_EQ(result->modules.size(), expected) << name;
    for (const AwqModule& row : result->modules) {
      EXPECT_GT(row.relative_error, 0.0) << row.module;
      EXPECT_LT(row.relative_error, 0.02) << row.module;
      EXPECT_LE(row.loss, row.loss_unscaled) << row.module;  // both 0 without a group
    }
    for (const auto& [tensor, values] : result->folded) {
      EXPECT_FALSE(linears.contains(tensor.substr(0, tensor.rfind('.'))) && tensor.ends_with(".weight"))
          << tensor << " is quantized";
    }
  }
}

TEST(AwqBlock, FoldsOfEveryArchitectureChangeNothing) {
  for (const std::string& name : test::architecture_names()) {
    expect_folds_change_nothing(open_architecture(name), name);
  }
}

TEST(AwqBlock, TheLastRowsOfAFusedWeightFeedTheOutput) {
  const test::TemporaryFolder phi3, mpt, llama;
  expect_folds_change_nothing(test::random_model("phi3_longrope_long", {{"num_key_value_heads", 4}}, phi3),
                              "phi3");
  expect_folds_change_nothing(test::random_model("mpt", {{"attn_config", {{"clip_qkv", nullptr}}}}, mpt),
                              "mpt");
  expect_folds_change_nothing(
      test::random_model("llama_bias", {{"num_key_value_heads", 4}, {"head_dim", 16}}, llama), "llama");
}

TEST(AwqBlock, AFoldThatForgetsATensorIsFoundAndNamed) {
  struct Case {
    std::string architecture, forgotten, blamed;
  };
  const std::string prefix = "model.layers.1.";
  for (const Case& c :
       {Case{"qwen2", prefix + "input_layernorm.weight", prefix + "input_layernorm"},
        Case{"gemma", prefix + "post_attention_layernorm.weight", prefix + "post_attention_layernorm"},
        Case{"mixtral", prefix + "block_sparse_moe.gate.weight", prefix + "post_attention_layernorm"},
        Case{"phi", prefix + "mlp.fc1.weight", prefix + "input_layernorm"},
        Case{"phi3_longrope_long", prefix + "mlp.gate_up_proj.weight", prefix + "mlp.gate_up_proj"},
        Case{"gpt_neox", "gpt_neox.layers.1.mlp.act.scales", "gpt_neox.layers.1.mlp.act"},
        Case{"opt", "model.decoder.layers.1.self_attn.v_proj.bias",
             "model.decoder.layers.1.self_attn.v_proj"}}) {
    const ModelSource source = open_architecture(c.architecture);
    ThreadPool pool(1);
    const Prover prover(source);
    const Inputs inputs = inputs_of(source, 1);
    const auto result =
        quantize_awq_block(source, 1, inputs.list, small_groups(), prover.callback(c.forgotten), pool);
    ASSERT_FALSE(result.has_value()) << c.architecture;
    EXPECT_EQ(result.error().code, ErrorCode::kDataLoss);
    EXPECT_THAT(result.error().where, HasSubstr("layers.1")) << c.architecture;
    // A tensor of two groups may be blamed on either.
    if (c.architecture != "phi3_longrope_long") {
      EXPECT_THAT(result.error().what, HasSubstr("the group to blame: " + c.blamed)) << c.architecture;
    }
  }
}

TEST(AwqBlock, SkippedLinearsAreFoldedInFloat) {
  const ModelSource source = open_architecture("mistral_sliding");
  ThreadPool pool(1);
  const Prover prover(source);
  const Inputs inputs = inputs_of(source, 0);
  const std::string prefix = "model.layers.0.";
  AwqBlockOptions options = small_groups();
  options.skipped = {prefix + "mlp.gate_proj", prefix + "self_attn.o_proj"};
  const auto result = quantize_awq_block(source, 0, inputs.list, options, prover.callback(), pool);
  ASSERT_TRUE(result.has_value()) << to_string(result.error());
  EXPECT_EQ(result->weights.size(), 5u);
  EXPECT_FALSE(result->weights.contains(prefix + "mlp.gate_proj"));
  EXPECT_TRUE(result->folded.contains(prefix + "mlp.gate_proj.weight"));
  EXPECT_FALSE(result->folded.contains(prefix + "self_attn.o_proj.weight"));  // no group reaches it
  EXPECT_TRUE(result->folded.contains(prefix + "post_attention_layernorm.weight"));

  for (const char* const name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj"}) {
    options.skipped.insert(prefix + name);
  }
  const auto less = quantize_awq_block(source, 0, inputs.list, options, prover.callback(), pool);
  ASSERT_TRUE(less.has_value()) << to_string(less.error());
  // down_proj alone is left: no norm changes for it.
  EXPECT_EQ(less->weights.size(), 1u);
  EXPECT_EQ(less->folded.size(), 1u);
  EXPECT_TRUE(less->folded.contains(prefix + "mlp.up_proj.weight"));
}

// Against the same steps by hand: folding, then clips or none, then rounding.
TEST(AwqBlock, AutoAwqsNamesAreNotClipped) {
  const ModelSource source = open_architecture("mixtral");
  ThreadPool pool(1);
  const Prover prover(source);
  const Inputs inputs = inputs_of(source, 0);
  const auto result = quantize_awq_block(source, 0, inputs.list, small_groups(), prover.callback(), pool);
  ASSERT_TRUE(result.has_value()) << to_string(result.error());
  const std::string norm = "model.layers.0.input_layernorm";
  const std::vector<float> before = source.weight(norm).value();
  const std::vector<float>& after = result->folded.at(norm + ".weight");
  const AwqSettings settings = {.group_size = 32};
  for (const char* const name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    const std::string module = std::string("model.layers.0.self_attn.") + name;
    const bool scaled = std::string_view(name) != "o_proj";
    std::vector<float> weight = source.weight(module).value();
    const size_t columns = source.slot(module).shape[1];
    const AwqInput& input = inputs.list[scaled ? 0 : 1];
    std::vector<float> gram(columns * columns);
    const auto scale = [&](size_t i) { return scaled ? before[i] / after[i] : 1.f; };
    for (size_t i = 0; i < weight.size(); ++i) {
      weight[i] = rounded_to(DType::kF16, weight[i] * scale(i % columns));
    }
    for (size_t i = 0; i < gram.size(); ++i) {
      gram[i] = input.gram.data()[i] / (scale(i / columns) * scale(i % columns));
    }
    const MatrixView<float> view(weight.data(), weight.size() / columns, columns);
    const std::vector<uint8_t> plain = quantize_awq(view, settings, pool).codes;
    const std::vector<uint8_t>& codes = result->weights.at(module).codes;
    apply_awq_clips(view, search_awq_clips(view, {gram.data(), columns, columns}, settings, pool), 32, pool);
    const std::vector<uint8_t> clipped = quantize_awq(view, settings, pool).codes;
    ASSERT_NE(clipped, plain) << name << ": nothing to tell apart";
    EXPECT_EQ(codes, name[0] == 'q' || name[0] == 'k' ? plain : clipped) << name;
  }
}

TEST(AwqBlock, AnExpertWithoutTokensIsRoundedAndNamed) {
  const ModelSource source = open_architecture("mixtral");
  ThreadPool pool(1);
  const Prover prover(source);
  Inputs inputs = inputs_of(source, 1);
  for (AwqInput& input : inputs.list) {
    if (input.modules.front().find("experts.2.") == std::string::npos) continue;
    input.gram = {};
    input.mean_abs = {};
    input.tokens = 0;
  }
  const auto result = quantize_awq_block(source, 1, inputs.list, small_groups(), prover.callback(), pool);
  ASSERT_TRUE(result.has_value()) << to_string(result.error());
  EXPECT_LT(result->proof, 1e-5);
  std::vector<std::string> unseen;
  for (const AwqModule& row : result->modules) {
    if (row.tokens == 0) unseen.push_back(row.module);
  }
  const std::string expert = "model.layers.1.block_sparse_moe.experts.2.";
  EXPECT_THAT(unseen, testing::UnorderedElementsAre(expert + "w1", expert + "w2", expert + "w3"));
  EXPECT_EQ(result->weights.size(), 4u + 12u);
  EXPECT_TRUE(result->folded.contains("model.layers.1.block_sparse_moe.gate.weight"));

  // w2 alone has no group left; w1 still takes the scales of the norm that all experts share.
  const AwqSettings settings = {.group_size = 32};
  std::vector<float> w2 = source.weight(expert + "w2").value();
  const Shape& shape = source.slot(expert + "w2").shape;
  EXPECT_EQ(result->weights.at(expert + "w2").codes,
            quantize_awq({w2.data(), shape[0], shape[1]}, settings, pool).codes);
}

TEST(AwqBlock, SymmetricWeightsAreThoseOfGptqModel) {
  const ModelSource source = open_architecture("qwen3");
  ThreadPool pool(1);
  const Prover prover(source);
  const Inputs inputs = inputs_of(source, 0);
  AwqBlockOptions options = small_groups();
  options.search.zero_point = false;
  const auto result = quantize_awq_block(source, 0, inputs.list, options, prover.callback(), pool);
  ASSERT_TRUE(result.has_value()) << to_string(result.error());
  for (const auto& [module, weight] : result->weights) {
    const auto tensors = encode_affine(weight, AffineLayout::kAwqGemm);
    ASSERT_TRUE(tensors.has_value()) << to_string(tensors.error());
    for (const uint32_t word : copy_elements<uint32_t>(tensors->at("qzeros"))) EXPECT_EQ(word, 0x88888888u);
  }
}

TEST(AwqBlock, TheSameBytesForAnyNumberOfThreads) {
  const ModelSource source = open_architecture("mixtral");
  const Inputs inputs = inputs_of(source, 0);
  const auto run = [&](size_t threads) {
    ThreadPool pool(threads);
    return quantize_awq_block(
               source, 0, inputs.list, small_groups(),
               [](const FloatTensors&) -> Expected<double> { return 0.0; }, pool)
        .value();
  };
  const AwqBlockResult one = run(1);
  const AwqBlockResult three = run(3);
  EXPECT_EQ(one.folded, three.folded);
  for (const auto& [module, weight] : one.weights) {
    EXPECT_EQ(weight.codes, three.weights.at(module).codes) << module;
    EXPECT_EQ(weight.scales, three.weights.at(module).scales) << module;
  }
}

TEST(AwqBlock, AProofThatFailsOrIsNotANumberStops) {
  const ModelSource source = open_architecture("qwen3");
  const Inputs inputs = inputs_of(source, 0);
  ThreadPool pool(1);
  const auto run = [&](const ProveFold& prove) {
    return quantize_awq_block(source, 0, inputs.list, small_groups(), prove, pool);
  };
  const auto nan = run([](const FloatTensors&) -> Expected<double> { return std::nan(""); });
  ASSERT_FALSE(nan.has_value());
  EXPECT_EQ(nan.error().code, ErrorCode::kDataLoss);
  const auto error =
      run([](const FloatTensors&) -> Expected<double> { return fail(ErrorCode::kUnavailable, "no space"); });
  ASSERT_FALSE(error.has_value());
  EXPECT_EQ(error.error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace nibble
