#include "nibble/checkpoint/gguf_model.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <vector>

#include "nibble/base/float16.h"
#include "nibble/checkpoint/gguf_architectures.h"
#include "nibble/checkpoint/gguf_config.h"
#include "nibble/checkpoint/gguf_files.h"
#include "nibble/checkpoint/gguf_quants.h"
#include "nibble/checkpoint/gguf_tokenizer.h"

namespace nibble {
namespace {

constexpr std::array kModelNames = {
    std::pair<std::string_view, std::string_view>{"token_embd", "model.embed_tokens"},
    std::pair<std::string_view, std::string_view>{"output_norm", "model.norm"},
    std::pair<std::string_view, std::string_view>{"output", "lm_head"},
};

// Became rope_scaling in config.json.
constexpr std::array<std::string_view, 3> kRotaryFactors = {"rope_freqs.weight", "rope_factors_long.weight",
                                                            "rope_factors_short.weight"};

// A tensor as Transformers has it, and where it comes from.
struct ImportedTensor {
  std::string name;
  GgufHeads heads = GgufHeads::kNone;
};

// Nothing for a name that is not known.
std::optional<ImportedTensor> import_name(std::string_view name, const GgufConfig& config) {
  const size_t dot = name.rfind('.');
  if (dot == name.npos) return std::nullopt;
  const std::string_view suffix = name.substr(dot);  // ".weight"
  if (suffix != ".weight" && suffix != ".bias") return std::nullopt;
  std::string_view stem = name.substr(0, dot);
  for (const auto& [gguf, hf] : kModelNames) {
    if (gguf == stem) return ImportedTensor{fmt::format("{}{}", hf, suffix)};
  }
  constexpr std::string_view kBlock = "blk.";
  if (!stem.starts_with(kBlock)) return std::nullopt;
  stem.remove_prefix(kBlock.size());
  size_t layer = 0;
  const auto parsed = std::from_chars(stem.data(), stem.data() + stem.size(), layer);
  stem.remove_prefix(static_cast<size_t>(parsed.ptr - stem.data()));
  if (parsed.ec != std::errc() || layer >= config.num_hidden_layers || !stem.starts_with('.')) {
    return std::nullopt;
  }
  const GgufTensorName* const row = find_layer_tensor(*config.architecture, stem.substr(1));
  if (row == nullptr) return std::nullopt;
  return ImportedTensor{fmt::format("model.layers.{}.{}{}", layer, row->hf, suffix), row->heads};
}

struct Source {
  GgufTensor tensor;
  std::string gguf_name;
  size_t num_permuted_heads = 0;  // 0: the rows stay where they are
  float addend = 0;               // of every element
};

// Row `row` of the file, inside a head of `head_dim` rows, pairs element row/2 of the first half
// with that of the second half: 0, 1, 2, 3 -> 0, head_dim/2, 1, head_dim/2 + 1.
size_t unpermuted_row(size_t row, size_t head_dim) {
  const size_t head = row / head_dim;
  const size_t within = row % head_dim;
  return head * head_dim + within % 2 * (head_dim / 2) + within / 2;
}

// Expands `blocks`, the bytes of the tensor, row by row into elements of type T. `narrow` rounds; what it
// makes infinite is an error.
template <class T, class Narrow>
Expected<std::vector<T>> expand(const Source& source, std::span<const std::byte> blocks, Narrow narrow) {
  const GgufTensor& tensor = source.tensor;
  const GgmlTypeInfo& type = ggml_type_info(tensor.type);
  const size_t elements = num_elements(tensor.shape).value_or(0);
  if (elements == 0) return std::vector<T>();
  // Of a permuted vector each element is a row of its own.
  const bool permuted = source.num_permuted_heads > 0;
  const size_t row_elements = tensor.shape.size() > 1 ? tensor.shape.back() : permuted ? 1 : elements;
  if (row_elements % type.block_elements != 0) {
    return fail(ErrorCode::kUnsupported, "a quantized vector of heads ({})", type.name);
  }
  const size_t rows = elements / row_elements;
  const size_t row_bytes = row_elements / type.block_elements * type.block_bytes;
  const size_t head_dim = permuted ? rows / source.num_permuted_heads : 0;
  const DequantizeBlocks dequantize = find_dequantizer(tensor.type);

  std::vector<T> result(elements);
  std::vector<float> values(row_elements);
  for (size_t row = 0; row < rows; ++row) {
    dequantize(blocks.subspan(row * row_bytes, row_bytes), values.data());
    if (source.addend != 0) {
      for (float& value : values) value += source.addend;
    }
    T* const to = result.data() + (permuted ? unpermuted_row(row, head_dim) : row) * row_elements;
    for (size_t i = 0; i < row_elements; ++i) {
      to[i] = narrow(values[i]);
    }
  }
  return result;
}

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(GgufFiles files, const GgufConfig& config) : files_(std::move(files)), dtype_(config.dtype) {
    metadata_ = {{"format", "pt"}};
  }

  Status add(const std::string& gguf_name, const GgufTensor& tensor, const GgufConfig& config) {
    const auto imported = import_name(gguf_name, config);
    if (!imported) {
      return fail(ErrorCode::kUnsupported, "this tensor has no place in a {} of {} layers",
                  config.architecture->class_name, config.num_hidden_layers)
          .at(gguf_name)
          .with_fix("Use the model's safetensors files.");
    }
    Source source{tensor, gguf_name};
    // Every norm, those of queries and keys, too.
    if (config.architecture->norms_have_one_more && imported->name.ends_with("norm.weight")) {
      source.addend = -1;
    }
    if (config.architecture->has_permuted_heads && imported->heads != GgufHeads::kNone) {
      source.num_permuted_heads =
          imported->heads == GgufHeads::kQuery ? config.num_attention_heads : config.num_key_value_heads;
      const size_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
      if (rows != source.num_permuted_heads * config.head_dim) {
        return fail(ErrorCode::kDataLoss, "{} rows, but {} heads of {} need {}", rows,
                    source.num_permuted_heads, config.head_dim, source.num_permuted_heads * config.head_dim)
            .at(gguf_name);
      }
    }
    tensors_.emplace(imported->name, TensorInfo{config.dtype, tensor.shape});
    sources_.emplace(imported->name, std::move(source));
    return {};
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    const auto found = sources_.find(name);
    if (found == sources_.end()) return fail(ErrorCode::kNotFound, "the checkpoint has no tensor {}", name);
    const Source& source = found->second;
    NIBBLE_RETURN_IF_ERROR(files_.file_of(source.tensor).check_size());
    auto tensor = at(file_of(name), at(source.gguf_name, import(source)));
    // They are read once, as a rule, and would count twice beside what was made of them.
    drop_pages(files_.bytes_of(source.tensor));
    return tensor;
  }

  std::string file_of(std::string_view name) const override {
    const auto found = sources_.find(name);
    if (found == sources_.end()) return {};
    return files_.file_of(found->second.tensor).path().filename().string();
  }

  size_t file_bytes() const override {
    size_t bytes = 0;
    for (const auto& part : files_.parts) bytes += part->bytes().size();
    return bytes;
  }

 private:
  Expected<Tensor> import(const Source& source) const {
    const Shape& shape = source.tensor.shape;
    const auto blocks = files_.bytes_of(source.tensor);
    if (dtype_ == DType::kF32) {
      NIBBLE_TRY(auto values, expand<float>(source, blocks, [](float value) { return value; }));
      return Tensor::of(dtype_, shape, std::move(values));
    }
    if (dtype_ == DType::kBF16) {
      NIBBLE_TRY(auto values, expand<uint16_t>(source, blocks, float_to_bf16));
      return Tensor::of(dtype_, shape, std::move(values));
    }
    bool overflows = false;
    NIBBLE_TRY(auto values, expand<uint16_t>(source, blocks, [&overflows](float value) {
                 const uint16_t half = float_to_fp16(value);
                 overflows = overflows || ((half & 0x7FFFu) == 0x7C00u && std::isfinite(value));
                 return half;
               }));
    if (overflows) {
      return fail(ErrorCode::kUnsupported, "a value above 65504, the largest float16")
          .with_fix("Use the model's safetensors files, which are bfloat16 or float32.");
    }
    return Tensor::of(dtype_, shape, std::move(values));
  }

  const GgufFiles files_;
  const DType dtype_;
  std::map<std::string, Source, std::less<>> sources_;
};

Expected<std::map<std::string, std::string>> make_texts(const GgufFiles& files) {
  NIBBLE_TRY(const GgufConfig config, make_gguf_config(files));
  NIBBLE_TRY(auto texts, make_gguf_tokenizer(files.header, config));
  texts["config.json"] = dump_json(config.config) + "\n";
  texts["generation_config.json"] = dump_json(config.generation_config) + "\n";
  return texts;
}

Status add_tensors(const GgufHeader& header, const GgufConfig& config, GgufCheckpoint& checkpoint) {
  for (const auto& [name, tensor] : header.tensors) {
    if (std::find(kRotaryFactors.begin(), kRotaryFactors.end(), name) != kRotaryFactors.end()) continue;
    NIBBLE_RETURN_IF_ERROR(checkpoint.add(name, tensor, config));
  }
  return {};
}

}  // namespace

Expected<std::map<std::string, std::string>> read_gguf_texts(const std::filesystem::path& path) {
  NIBBLE_TRY(const GgufFiles files, open_gguf_files(path));
  return make_texts(files);
}

Expected<std::shared_ptr<const Checkpoint>> open_gguf_checkpoint(const std::filesystem::path& path) {
  NIBBLE_TRY(GgufFiles files, at(path.string(), open_gguf_files(path)));
  NIBBLE_TRY(const GgufConfig config, at(path.string(), make_gguf_config(files)));
  // The checkpoint needs the files alone: a vocabulary is large.
  const GgufHeader header = std::move(files.header);
  auto checkpoint = std::make_shared<GgufCheckpoint>(std::move(files), config);
  NIBBLE_RETURN_IF_ERROR(at(path.string(), add_tensors(header, config, *checkpoint)));
  return checkpoint;
}

}  // namespace nibble
