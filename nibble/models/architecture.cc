#include "nibble/models/architecture.h"

#include <array>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/ranges.h>

#include "nibble/base/suggest.h"

namespace nibble {
namespace {

constexpr std::array kActivations = {
    std::pair{std::string_view("silu"), kernels::Activation::kSilu},
    std::pair{std::string_view("swish"), kernels::Activation::kSilu},
    std::pair{std::string_view("gelu"), kernels::Activation::kGelu},
    std::pair{std::string_view("gelu_pytorch_tanh"), kernels::Activation::kGeluTanh},
    std::pair{std::string_view("gelu_new"), kernels::Activation::kGeluTanh},
    std::pair{std::string_view("gelu_fast"), kernels::Activation::kGeluTanh},
    std::pair{std::string_view("relu"), kernels::Activation::kRelu},
    std::pair{std::string_view("relu2"), kernels::Activation::kRelu2},
    std::pair{std::string_view("gelu_python"), kernels::Activation::kGelu},
};

template <class Table, class Name>
std::string names_of(const Table& table, Name name) {
  std::string names;
  for (const auto& row : table) names += fmt::format("{}{}", names.empty() ? "" : ", ", name(row));
  return names;
}

Failure unknown_model_type(std::string_view model_type) {
  std::vector<std::string> known;
  for (const Architecture& row : architectures()) known.emplace_back(row.model_type);
  const std::vector<std::string> similar = most_similar(model_type, known, 3);
  const std::string nearest =
      similar.empty() ? "" : fmt::format("The nearest that Nibble runs: {}. ", fmt::join(similar, ", "));
  return fail(ErrorCode::kUnsupported, "model_type \"{}\" is not known", model_type)
      .at("config.json")
      .with_fix(fmt::format("{}All: {}.", nearest, fmt::join(known, ", ")));
}

}  // namespace

Expected<kernels::Activation> activation_from_name(std::string_view name) {
  for (const auto& [known, activation] : kActivations) {
    if (known == name) return activation;
  }
  return fail(ErrorCode::kUnsupported, "hidden_act \"{}\"; known are {}", name,
              names_of(kActivations, [](const auto& row) { return row.first; }))
      .at("config.json");
}

Expected<DecoderSpec> make_decoder_spec(const PretrainedConfig& config) {
  const Architecture* architecture = nullptr;
  for (const Architecture& row : architectures()) {
    if (row.model_type == config.model_type) architecture = &row;
  }
  if (architecture == nullptr) {
    return unknown_model_type(config.model_type);
  }
  DecoderSpec spec;
  spec.names = *architecture;
  NIBBLE_TRY(spec.activation, activation_from_name(config.hidden_act));
  spec.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config.head_dim)));
  spec.embedding_size = config.hidden_size;
  spec.qkv_bias = architecture->qkv_bias;
  for (size_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool sliding = config.layer_types[layer] == "sliding_attention";
    spec.window.push_back(sliding ? config.sliding_window.value_or(0) : 0);
    spec.sliding_rope.push_back(sliding && config.rope_sliding.has_value());
    spec.rotates.push_back(architecture->rotary);
  }
  if (architecture->configure != nullptr) NIBBLE_RETURN_IF_ERROR(architecture->configure(config, spec));
  return spec;
}

}  // namespace nibble
