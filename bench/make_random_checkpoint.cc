// make_random_checkpoint FOLDER: writes a Llama checkpoint of the shape of TinyLlama-1.1B with random
// weights, GPTQ 4-bit, group size 128, symmetric. Speed and memory do not depend on what the weights
// say. The tokenizer knows single bytes; the other tokens of the vocabulary have no text.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/float16.h"
#include "nibble/base/json.h"
#include "nibble/checkpoint/checkpoint_writer.h"

namespace {

using namespace nibble;

constexpr size_t kHiddenSize = 2048;
constexpr size_t kIntermediateSize = 5632;
constexpr size_t kNumLayers = 22;
constexpr size_t kNumHeads = 32;
constexpr size_t kNumKeyValueHeads = 4;
constexpr size_t kVocabSize = 32000;
constexpr size_t kGroupSize = 128;
constexpr size_t kCodesPerWord = 8;

// qzeros of symmetric 4-bit weights in the "gptq" format, which stores zero - 1: eight times 8 - 1.
constexpr uint32_t kZerosWord = 0x77777777;
constexpr float kScale = 0.004f;  // codes -8...7 times this: a deviation of 0.018, as models are initialised

// Sources fill themselves when the writer asks for them: one tensor is in memory at a time.
class RandomCheckpoint {
 public:
  std::vector<TensorSource> sources() {
    const size_t kv_size = kHiddenSize / kNumHeads * kNumKeyValueHeads;
    add_matrix("model.embed_tokens.weight", kVocabSize, kHiddenSize);
    for (size_t i = 0; i < kNumLayers; ++i) {
      const std::string layer = fmt::format("model.layers.{}.", i);
      add_norm(layer + "input_layernorm.weight");
      add_gptq(layer + "self_attn.q_proj", kHiddenSize, kHiddenSize);
      add_gptq(layer + "self_attn.k_proj", kv_size, kHiddenSize);
      add_gptq(layer + "self_attn.v_proj", kv_size, kHiddenSize);
      add_gptq(layer + "self_attn.o_proj", kHiddenSize, kHiddenSize);
      add_norm(layer + "post_attention_layernorm.weight");
      add_gptq(layer + "mlp.gate_proj", kIntermediateSize, kHiddenSize);
      add_gptq(layer + "mlp.up_proj", kIntermediateSize, kHiddenSize);
      add_gptq(layer + "mlp.down_proj", kHiddenSize, kIntermediateSize);
    }
    add_norm("model.norm.weight");
    add_matrix("lm_head.weight", kVocabSize, kHiddenSize);
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

  void add_norm(const std::string& name) {
    add<uint16_t>(name, DType::kF16, {kHiddenSize},
                  [](size_t, std::mt19937_64&) { return float_to_fp16(1.f); });
  }

  void add_matrix(const std::string& name, size_t rows, size_t cols) {
    add<uint16_t>(name, DType::kF16, {rows, cols}, [](size_t, std::mt19937_64& random) {
      // 16 random bits, spread over -0.035...0.035: a deviation of 0.02.
      const auto bits = static_cast<float>(random() >> 48);
      return float_to_fp16((bits - 32767.5f) * (0.035f / 32768.f));
    });
  }

  void add_gptq(const std::string& module, size_t out_features, size_t in_features) {
    const size_t groups = in_features / kGroupSize;
    add<uint32_t>(module + ".qweight", DType::kI32, {in_features / kCodesPerWord, out_features},
                  [](size_t, std::mt19937_64& random) { return static_cast<uint32_t>(random() >> 32); });
    add<uint32_t>(module + ".qzeros", DType::kI32, {groups, out_features / kCodesPerWord},
                  [](size_t, std::mt19937_64&) { return kZerosWord; });
    add<uint16_t>(module + ".scales", DType::kF16, {groups, out_features},
                  [](size_t, std::mt19937_64&) { return float_to_fp16(kScale); });
    add<uint32_t>(module + ".g_idx", DType::kI32, {in_features},
                  [](size_t i, std::mt19937_64&) { return static_cast<uint32_t>(i / kGroupSize); });
  }

  std::vector<TensorSource> sources_;
};

Json config() {
  const Json quantization = {{"quant_method", "gptq"},     {"bits", 4},   {"group_size", kGroupSize},
                             {"desc_act", false},          {"sym", true}, {"lm_head", false},
                             {"checkpoint_format", "gptq"}};
  return {{"architectures", Json::array({"LlamaForCausalLM"})},
          {"model_type", "llama"},
          {"torch_dtype", "float16"},
          {"hidden_size", kHiddenSize},
          {"intermediate_size", kIntermediateSize},
          {"num_hidden_layers", kNumLayers},
          {"num_attention_heads", kNumHeads},
          {"num_key_value_heads", kNumKeyValueHeads},
          {"vocab_size", kVocabSize},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"max_position_embeddings", 2048},
          {"tie_word_embeddings", false},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"quantization_config", quantization}};
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

Status write_model(const std::filesystem::path& folder) {
  NIBBLE_RETURN_IF_ERROR(create_folder(folder));
  NIBBLE_RETURN_IF_ERROR(write_file(folder / "tokenizer.json", dump_json(tokenizer(), -1)));
  NIBBLE_RETURN_IF_ERROR(
      write_file(folder / "tokenizer_config.json", dump_json({{"bos_token", "<s>"}, {"eos_token", "</s>"}})));
  NIBBLE_RETURN_IF_ERROR(write_checkpoint(folder, RandomCheckpoint().sources()));
  // Last: a folder with a config is complete.
  return write_file(folder / "config.json", dump_json(config()));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_random_checkpoint FOLDER\n");
    return 2;
  }
  const Status done = write_model(argv[1]);
  if (!done) {
    std::fprintf(stderr, "error: %s\n", to_string(done.error()).c_str());
    return exit_status(done.error().code);
  }
  return 0;
}
