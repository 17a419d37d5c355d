// make_random_checkpoint FOLDER [--shape tinyllama-1.1b|mistral-7b|smollm2-135m]
//                               [--method gptq|awq|nf4|float16] [--group-size N]
// Writes a Llama checkpoint of the shape of a well-known model with random weights: 4 bits and groups of 128
// (64 for smollm2-135m, whose width is no multiple of 128) unless told otherwise, symmetric. Speed and memory
// do not depend on what the weights say. The tokenizer knows single bytes; the other tokens have no text.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "nibble/base/atomic_file.h"
#include "nibble/base/float16.h"
#include "nibble/base/json.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/quantization/bitsandbytes.h"
#include "nibble/quantization/formats/bnb_4bit.h"

namespace {

using namespace nibble;

struct ModelShape {
  const char* name;
  size_t hidden, intermediate, layers, heads, key_value_heads, vocab;
  double rope_theta;
  bool tied;         // the head is the embedding
  size_t positions;  // at least 8192, also where the original has less: depth is to be measured
  size_t group_size;
};

constexpr ModelShape kShapes[] = {
    {"tinyllama-1.1b", 2048, 5632, 22, 32, 4, 32000, 10000.0, false, 8192, 128},
    {"mistral-7b", 4096, 14336, 32, 32, 8, 32000, 10000.0, false, 32768, 128},
    {"smollm2-135m", 576, 1536, 30, 9, 3, 49152, 100000.0, true, 8192, 64},
};

enum class Method { kGptq, kAwq, kNf4, kFloat16 };
const std::map<std::string, Method> kMethods = {
    {"gptq", Method::kGptq}, {"awq", Method::kAwq}, {"nf4", Method::kNf4}, {"float16", Method::kFloat16}};

constexpr size_t kCodesPerWord = 8;
constexpr size_t kNf4Blocksize = 64;
constexpr float kScale = 0.004f;   // codes -8...7 times this: a deviation of 0.018, as models are initialised
constexpr float kAbsmax = 0.035f;  // of NF4's blocks, for about the same

// Sources fill themselves when the writer asks for them: one tensor is in memory at a time.
class RandomCheckpoint {
 public:
  RandomCheckpoint(const ModelShape& shape, Method method, size_t group_size)
      : shape_(shape), method_(method), group_size_(group_size) {}

  std::vector<TensorSource> sources() {
    const size_t hidden = shape_.hidden;
    const size_t kv_size = hidden / shape_.heads * shape_.key_value_heads;
    add_matrix("model.embed_tokens.weight", shape_.vocab, hidden);
    for (size_t i = 0; i < shape_.layers; ++i) {
      const std::string layer = fmt::format("model.layers.{}.", i);
      add_norm(layer + "input_layernorm.weight");
      add_linear(layer + "self_attn.q_proj", hidden, hidden);
      add_linear(layer + "self_attn.k_proj", kv_size, hidden);
      add_linear(layer + "self_attn.v_proj", kv_size, hidden);
      add_linear(layer + "self_attn.o_proj", hidden, hidden);
      add_norm(layer + "post_attention_layernorm.weight");
      add_linear(layer + "mlp.gate_proj", shape_.intermediate, hidden);
      add_linear(layer + "mlp.up_proj", shape_.intermediate, hidden);
      add_linear(layer + "mlp.down_proj", hidden, shape_.intermediate);
    }
    add_norm("model.norm.weight");
    if (!shape_.tied) add_matrix("lm_head.weight", shape_.vocab, hidden);
    return std::move(sources_);
  }

 private:
  template <class T, class Fill>
  void add(std::string name, DType dtype, Shape shape, Fill fill) {
    const uint64_t seed = sources_.size();
    const size_t count = num_elements(shape).value();
    sources_.push_back({std::move(name), {dtype, shape}, [=]() -> Expected<Tensor> {
                          std::mt19937_64 random(seed);
                          std::vector<T> values(count);
                          for (size_t i = 0; i < count; ++i) values[i] = fill(i, random);
                          return Tensor::of(dtype, shape, std::move(values));
                        }});
  }

  template <class T>
  void add_constant(std::string name, DType dtype, Shape shape, T value) {
    add<T>(std::move(name), dtype, std::move(shape), [value](size_t, std::mt19937_64&) { return value; });
  }

  void add_words(std::string name, Shape shape) {
    add<uint32_t>(std::move(name), DType::kI32, std::move(shape),
                  [](size_t, std::mt19937_64& random) { return static_cast<uint32_t>(random() >> 32); });
  }

  void add_norm(const std::string& name) {
    add_constant(name, DType::kF16, {shape_.hidden}, float_to_fp16(1.f));
  }

  void add_matrix(const std::string& name, size_t rows, size_t cols) {
    add<uint16_t>(name, DType::kF16, {rows, cols}, [](size_t, std::mt19937_64& random) {
      // 16 random bits, spread over -0.035...0.035: a deviation of 0.02.
      const auto bits = static_cast<float>(random() >> 48);
      return float_to_fp16((bits - 32767.5f) * (0.035f / 32768.f));
    });
  }

  void add_linear(const std::string& module, size_t out_features, size_t in_features) {
    switch (method_) {
      case Method::kGptq:
        return add_gptq(module, out_features, in_features);
      case Method::kAwq:
        return add_awq(module, out_features, in_features);
      case Method::kNf4:
        return add_nf4(module, out_features, in_features);
      case Method::kFloat16:
        return add_matrix(module + ".weight", out_features, in_features);
    }
  }

  void add_scales(const std::string& module, size_t groups, size_t out_features) {
    add_constant(module + ".scales", DType::kF16, {groups, out_features}, float_to_fp16(kScale));
  }

  // The format "gptq" stores zero points less one: eight times 8 - 1 in a word.
  void add_gptq(const std::string& module, size_t out_features, size_t in_features) {
    const size_t group_size = group_size_;
    const size_t groups = (in_features + group_size - 1) / group_size;
    add_words(module + ".qweight", {in_features / kCodesPerWord, out_features});
    add_constant(module + ".qzeros", DType::kI32, {groups, out_features / kCodesPerWord},
                 uint32_t{0x77777777});
    add_scales(module, groups, out_features);
    add<uint32_t>(module + ".g_idx", DType::kI32, {in_features},
                  [group_size](size_t i, std::mt19937_64&) { return static_cast<uint32_t>(i / group_size); });
  }

  void add_awq(const std::string& module, size_t out_features, size_t in_features) {
    const size_t groups = in_features / group_size_;
    add_words(module + ".qweight", {in_features, out_features / kCodesPerWord});
    add_constant(module + ".qzeros", DType::kI32, {groups, out_features / kCodesPerWord},
                 uint32_t{0x88888888});
    add_scales(module, groups, out_features);
  }

  void add_nf4(const std::string& module, size_t out_features, size_t in_features) {
    const size_t count = out_features * in_features;
    add<uint8_t>(module + ".weight", DType::kU8, {count / 2, 1},
                 [](size_t, std::mt19937_64& random) { return static_cast<uint8_t>(random() >> 56); });
    add_constant(module + ".weight.absmax", DType::kF32, {(count + kNf4Blocksize - 1) / kNf4Blocksize},
                 kAbsmax);
    const auto table = nf4_codebook();
    add<float>(module + ".weight.quant_map", DType::kF32, {table.size()},
               [table](size_t i, std::mt19937_64&) { return table[i]; });
    const std::string state = to_text(
        BnbQuantState{.blocksize = kNf4Blocksize, .out_features = out_features, .in_features = in_features});
    add<uint8_t>(module + "." + std::string(kQuantStatePrefix) + "nf4", DType::kU8, {state.size()},
                 [state](size_t i, std::mt19937_64&) { return static_cast<uint8_t>(state[i]); });
  }

  const ModelShape& shape_;
  const Method method_;
  const size_t group_size_;
  std::vector<TensorSource> sources_;
};

Json quantization_config(Method method, size_t group_size) {
  switch (method) {
    case Method::kGptq:
      return {{"quant_method", "gptq"},     {"bits", 4},   {"group_size", group_size},
              {"desc_act", false},          {"sym", true}, {"lm_head", false},
              {"checkpoint_format", "gptq"}};
    case Method::kAwq:
      return {{"quant_method", "awq"}, {"bits", 4},         {"group_size", group_size},
              {"zero_point", true},    {"version", "gemm"}, {"modules_to_not_convert", nullptr}};
    case Method::kNf4:
      return {{"quant_method", "bitsandbytes"},
              {"load_in_4bit", true},
              {"load_in_8bit", false},
              {"bnb_4bit_quant_type", "nf4"},
              {"bnb_4bit_use_double_quant", false},
              {"bnb_4bit_compute_dtype", "bfloat16"},
              {"bnb_4bit_quant_storage", "uint8"}};
    case Method::kFloat16:
      break;
  }
  return nullptr;
}

Json config(const ModelShape& shape, Method method, size_t group_size) {
  Json json = {{"architectures", Json::array({"LlamaForCausalLM"})},
               {"model_type", "llama"},
               {"torch_dtype", "float16"},
               {"hidden_size", shape.hidden},
               {"intermediate_size", shape.intermediate},
               {"num_hidden_layers", shape.layers},
               {"num_attention_heads", shape.heads},
               {"num_key_value_heads", shape.key_value_heads},
               {"vocab_size", shape.vocab},
               {"hidden_act", "silu"},
               {"rms_norm_eps", 1e-5},
               {"rope_theta", shape.rope_theta},
               {"max_position_embeddings", shape.positions},
               {"tie_word_embeddings", shape.tied},
               {"bos_token_id", 1},
               {"eos_token_id", 2}};
  const Json quantization = quantization_config(method, group_size);
  if (!quantization.is_null()) json["quantization_config"] = quantization;
  return json;
}

// The letters of byte-level BPE: printable bytes stand for themselves, the others for U+0100 and up.
std::vector<std::string> byte_letters() {
  std::vector<std::string> letters;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
    const uint32_t c = printable ? byte : next++;
    std::string utf8;
    if (c < 0x80) {
      utf8 = static_cast<char>(c);
    } else {
      utf8 = {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
    }
    letters.push_back(utf8);
  }
  return letters;
}

Json tokenizer() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (const std::string& letter : byte_letters()) vocab[letter] = vocab.size();
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", "<unk>"},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", Json::array()}}}};
}

Status write_model(const std::filesystem::path& folder, const ModelShape& shape, Method method,
                   size_t group_size) {
  for (const size_t inputs : {shape.hidden, shape.intermediate}) {
    if (method != Method::kAwq || inputs % group_size == 0) continue;
    return fail(ErrorCode::kInvalidArgument,
                "{} inputs are no whole number of groups of {}, as AWQ needs them", inputs, group_size);
  }
  NIBBLE_RETURN_IF_ERROR(create_folder(folder));
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "tokenizer.json", dump_json(tokenizer(), -1)));
  NIBBLE_RETURN_IF_ERROR(
      write_file(folder / "tokenizer_config.json", dump_json({{"bos_token", "<s>"}, {"eos_token", "</s>"}})));
  NIBBLE_RETURN_IF_ERROR(write_checkpoint(folder, RandomCheckpoint(shape, method, group_size).sources()));
  // Last: a folder with a config is complete.
  return write_file(folder / "config.json", dump_json(config(shape, method, group_size)));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes a Llama checkpoint of the shape of a well-known model with random weights");
  std::string folder;
  size_t shape = 0;
  Method method = Method::kGptq;
  std::optional<size_t> group_size;
  std::map<std::string, size_t> shapes;
  for (size_t i = 0; i < std::size(kShapes); ++i) shapes[kShapes[i].name] = i;
  app.add_option("FOLDER", folder)->required();
  app.add_option("--shape", shape)->transform(CLI::CheckedTransformer(shapes));
  app.add_option("--method", method)->transform(CLI::CheckedTransformer(kMethods));
  app.add_option("--group-size", group_size, "Inputs that share a scale (gptq, awq)")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  const Status done =
      write_model(folder, kShapes[shape], method, group_size.value_or(kShapes[shape].group_size));
  if (!done) {
    std::fprintf(stderr, "error: %s\n", to_string(done.error()).c_str());
    return exit_status(done.error().code);
  }
  return 0;
}
