#ifndef NIBBLE_PIPELINE_TEST_MODEL_H_
#define NIBBLE_PIPELINE_TEST_MODEL_H_

// Small models for the tests of this folder, and what they compute once some of their tensors are
// replaced: a whole forward pass through files, independent of the code that changed the tensors.

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/arena.h"
#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/models/auto_model.h"
#include "nibble/models/model_source.h"
#include "nibble/models/transposed_checkpoint.h"
#include "nibble/nn/kv_cache.h"
#include "nibble/pipeline/folded_block.h"
#include "tests/support/fixtures.h"

namespace nibble::test {

inline ModelSource open_model(const std::filesystem::path& folder) {
  auto source = ModelSource::open(find_model(folder.string()).value());
  EXPECT_TRUE(source.has_value()) << folder << ": " << (source ? "" : to_string(source.error()));
  return *std::move(source);
}

inline ModelSource open_architecture(const std::string& name) {
  return open_model(data_folder() / "architectures" / name);
}

// The configuration of tests/data/architectures/NAME with some keys changed, random weights in float32.
inline ModelSource random_model(const std::string& name, const Json& changes, const TemporaryFolder& folder) {
  const auto text = read_text_file(data_folder() / "architectures" / name / "config.json");
  Json json = parse_json(*text).value();
  json.merge_patch(changes);
  const PretrainedConfig config = PretrainedConfig::from_json(json).value();
  const DecoderSpec spec = make_decoder_spec(config).value();
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::map<std::string, Tensor> tensors;
  for (const ModuleSlot& slot : module_slots(spec, config, false)) {
    const bool norm = slot.role == ModuleRole::kNorm;
    std::vector<float> values(num_elements(slot.shape).value());
    for (float& v : values) v = (norm ? 1.f : 0.f) + 0.1f * normal(rng);
    tensors[slot.name + ".weight"] = Tensor::of(DType::kF32, slot.shape, std::move(values));
    if (!slot.correction.empty()) {
      tensors[fmt::format("{}.{}", slot.name, slot.correction)] =
          Tensor::of(DType::kF32, {slot.shape[0]}, std::vector<float>(slot.shape[0], 0.f));
    }
    if (!slot.bias_required) continue;
    tensors[slot.name + ".bias"] =
        Tensor::of(DType::kF32, {slot.shape[0]}, std::vector<float>(slot.shape[0], 0.1f));
  }
  EXPECT_TRUE(write_safetensors(folder.path() / "model.safetensors", tensors).has_value());
  EXPECT_TRUE(write_file(folder.path() / "config.json", dump_json(json)).has_value());
  return open_model(folder.path());
}

// Logits [tokens, vocab] in float32 of a folder.
inline std::vector<float> logits_of(const std::filesystem::path& folder, std::span<const int32_t> tokens) {
  ThreadPool pool(1);
  Arena arena;
  FromPretrainedOptions options;
  options.compute = ComputeMode::kF32;
  const auto model = AutoModelForCausalLM::from_pretrained(folder.string(), options, pool);
  EXPECT_TRUE(model.has_value()) << (model ? "" : to_string(model.error()));
  if (!model) return {};
  const size_t vocab = (*model)->config().vocab_size;
  const auto cache = (*model)->make_cache(tokens.size());
  std::vector<float> logits(tokens.size() * vocab);
  const SequenceChunk chunk{tokens, cache.get(), tokens.size(), tokens.size()};
  ExecutionContext context{pool, arena};
  EXPECT_TRUE((*model)->forward({&chunk, 1}, {logits.data(), tokens.size(), vocab}, context).has_value());
  return logits;
}

// The same of a model some of whose tensors are replaced, everything stored in float32. Scales of activations
// need not have been there.
inline std::vector<float> logits_with(const ModelSource& source, const FloatTensors& replaced,
                                      std::span<const int32_t> tokens) {
  const TemporaryFolder folder;
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, info] : source.checkpoint->tensors()) {
    const auto found = replaced.find(name);
    tensors[name] = found == replaced.end()
                        ? convert_tensor(source.checkpoint->tensor(name).value(), DType::kF32).value()
                        : Tensor::of(DType::kF32, info.shape, found->second);
  }
  for (const auto& [name, values] : replaced) {
    if (tensors.contains(name)) continue;
    const bool is_known =
        std::any_of(source.slots.begin(), source.slots.end(),
                    [&added = name](const ModuleSlot& slot) { return slot.input_scales == added; });
    EXPECT_TRUE(is_known) << name;
    tensors[name] = Tensor::of(DType::kF32, {values.size()}, values);
  }
  EXPECT_TRUE(write_safetensors(folder.path() / "model.safetensors", tensors).has_value());
  const std::string config = source.files.read_required("config.json").value();
  EXPECT_TRUE(write_file(folder.path() / "config.json", config).has_value());
  if (source.spec.names.transposed_linears) {  // of what was written, the view is what such files have
    const auto stored = transpose_linears(open_checkpoint(find_model(folder.path().string()).value()).value(),
                                          source.spec, source.prefix_missing);
    for (auto& [name, tensor] : tensors) tensor = stored->tensor(name).value();
    EXPECT_TRUE(write_safetensors(folder.path() / "model.safetensors", tensors).has_value());
  }
  return logits_of(folder.path(), tokens);
}

// What remains of the model without its linears: how far off a result is that has nothing of them right.
inline std::vector<float> logits_without_linears(const ModelSource& source, std::span<const int32_t> tokens) {
  FloatTensors zeros;
  for (const ModuleSlot& slot : source.slots) {
    if (slot.role != ModuleRole::kLinear) continue;
    zeros[slot.name + ".weight"] = std::vector<float>(num_elements(slot.shape).value());
  }
  return logits_with(source, zeros, tokens);
}

inline std::vector<int32_t> some_tokens(const ModelSource& source, size_t count) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>((17 * i * i + 5 * i + 3) % source.config.vocab_size));
  }
  return tokens;
}

// |a - b| / |b|
inline double relative_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(b[i], 2);
  }
  return std::sqrt(difference / size);
}

}  // namespace nibble::test

#endif  // NIBBLE_PIPELINE_TEST_MODEL_H_
