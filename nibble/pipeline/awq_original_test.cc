// A whole model quantized block by block next to the files that AutoAWQ and GPTQModel made of the same
// model with the same tokens.

#include <algorithm>

#include "nibble/calibration/block_walk.h"
#include "nibble/pipeline/awq_block.h"
#include "nibble/pipeline/test_model.h"
#include "nibble/quantization/formats/encode.h"
#include "tests/support/logits.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// The statistics of one input, kept beyond the walk.
struct KeptInput {
  std::vector<std::string> modules;
  std::vector<float> gram, mean_abs;
  size_t tokens = 0;

  AwqInput view() const {
    return {modules, {gram.data(), mean_abs.size(), mean_abs.size()}, mean_abs, tokens};
  }
};

// Float weights pass through: what every linear of block `layer` sees in the float model.
std::vector<KeptInput> gather(BlockWalk& walk, size_t layer) {
  std::vector<KeptInput> inputs;
  const auto keep = [&](const InputStatistics& seen, std::span<LinearTask> tasks) -> Status {
    KeptInput& input = inputs.emplace_back();
    for (const LinearTask& task : tasks) input.modules.push_back(task.module);
    for (size_t r = 0; r < seen.gram.rows(); ++r) {
      input.gram.insert(input.gram.end(), seen.gram.row(r), seen.gram.row(r) + seen.gram.cols());
    }
    input.mean_abs.assign(seen.mean_abs.begin(), seen.mean_abs.end());
    input.tokens = seen.tokens;
    return {};
  };
  EXPECT_TRUE(walk.walk(layer, {.known = {}, .quantize = keep}).has_value());
  return inputs;
}

// tiny-llama and what its linears see of the calibration tokens, gathered once for all files.
struct Gathered {
  fs::path folder = test::model_folder("tiny-llama").value();
  ModelSource source = test::open_model(folder);
  CalibrationData data;
  std::vector<std::vector<KeptInput>> layers;

  Gathered() {
    const fs::path tokens = test::data_folder() / "calibration-tokens.safetensors";
    data = load_calibration_data({{tokens, {}}}, {.num_samples = 64, .sequence_length = 512}, nullptr,
                                 nullptr, source.config.vocab_size)
               .value();
    ThreadPool pool;
    WalkOptions options;
    options.activations = DType::kF32;
    options.float_stream = false;
    BlockWalk walk(source, data, options, pool);
    EXPECT_TRUE(walk.start().has_value());
    for (size_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
      layers.push_back(gather(walk, layer));
    }
  }
};

const Gathered& gathered() {
  static const Gathered gathered;
  return gathered;
}

// The settings of a quantized model; what its file has in floating point stays so. (AutoAWQ looks for
// modules_to_not_convert in names inside the block: its file has codes for "layers.2.mlp" all the same.)
AwqBlockOptions options_of(const ModelSource& original) {
  const auto& config = std::get<AwqConfig>(*original.quantization);
  AwqBlockOptions options;
  options.search.group_size = static_cast<size_t>(config.group_size);
  options.search.zero_point = config.zero_point;
  for (const std::string& module : linear_modules(original.slots)) {
    if (!original.quantized.contains(module)) options.skipped.insert(module);
  }
  return options;
}

// Puts what quantize_awq_block() made of a block in place of the file's tensors.
void replace(const AwqBlockResult& result, std::map<std::string, Tensor>& tensors) {
  for (const auto& [name, values] : result.folded) {
    const TensorInfo info = tensors.at(name).info();
    tensors[name] = convert_tensor(Tensor::of(DType::kF32, info.shape, values), info.dtype).value();
  }
  for (const auto& [module, weight] : result.weights) {
    tensors.erase(module + ".weight");
    const auto encoded = encode_affine(weight, AffineLayout::kAwqGemm);
    ASSERT_TRUE(encoded.has_value()) << module << ": " << to_string(encoded.error());
    for (const auto& [suffix, tensor] : *encoded) tensors[module + "." + suffix] = tensor;
  }
}

// The whole model with the settings and the config.json of `original`.
void quantize(const fs::path& original, const fs::path& folder) {
  const ModelSource& source = gathered().source;
  const AwqBlockOptions options = options_of(test::open_model(original));
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, info] : source.checkpoint->tensors()) {
    tensors[name] = source.checkpoint->tensor(name).value();
  }
  ThreadPool pool;
  const std::vector<int32_t> tokens = test::some_tokens(source, 64);
  const std::vector<float> before = test::logits_with(source, {}, tokens);
  const auto prove = [&](const FloatTensors& changed) -> Expected<double> {
    return test::relative_difference(test::logits_with(source, changed, tokens), before);
  };
  for (size_t layer = 0; layer < gathered().layers.size(); ++layer) {
    std::vector<AwqInput> inputs;
    for (const KeptInput& input : gathered().layers[layer]) inputs.push_back(input.view());
    const auto result = quantize_awq_block(source, layer, inputs, options, prove, pool);
    ASSERT_TRUE(result.has_value()) << to_string(result.error());
    EXPECT_LT(result->proof, 1e-5);
    replace(*result, tensors);
  }
  ASSERT_TRUE(write_safetensors(folder / "model.safetensors", tensors).has_value());
  fs::copy_file(original / "config.json", folder / "config.json");
}

// KL(tiny-llama || quantized) in nats over some of the calibration data.
double kl_of(const fs::path& quantized) {
  const size_t vocab = gathered().source.config.vocab_size;
  double sum = 0.0;
  size_t count = 0;
  for (size_t s = 0; s < 64; s += 8) {
    const std::vector<int32_t>& tokens = gathered().data.sequences[s];
    const std::vector<float> p = test::logits_of(gathered().folder, tokens);
    const std::vector<float> q = test::logits_of(quantized, tokens);
    for (size_t i = 0; i < p.size(); i += vocab, ++count) {
      sum += test::kl_divergence(std::span(p).subspan(i, vocab), std::span(q).subspan(i, vocab));
    }
  }
  return sum / static_cast<double>(count);
}

class AwqOriginal : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Files, AwqOriginal,
                         testing::Values("awq-gemm-g128", "awq-gemm-g64", "awq-gemm-g32-skip",
                                         "awq-gptqmodel-gemm-sym"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(AwqOriginal, TheModelIsAsGood) {
  const fs::path original = test::model_folder(GetParam()).value();
  const test::TemporaryFolder ours;
  ASSERT_NO_FATAL_FAILURE(quantize(original, ours.path()));
  const double our_kl = kl_of(ours.path());
  const double their_kl = kl_of(original);
  RecordProperty("kl", fmt::format("{:.5f}, the original's {:.5f}", our_kl, their_kl));
  EXPECT_LT(our_kl, 1.05 * their_kl) << "the original's: " << their_kl;
  EXPECT_GT(our_kl, 0.8 * their_kl) << "too good to be the same algorithm: " << their_kl;
}

}  // namespace
}  // namespace nibble
