// make_seeds FOLDER: what the fuzzers begin with, FOLDER/TARGET/NAME, made of tests/data. Small files: a
// fuzzer learns most from inputs that it can change everywhere.

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "nibble/base/atomic_file.h"
#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/gguf_builder.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/quantization/formats/bnb_4bit.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

const fs::path kData = NIBBLE_TEST_DATA;

class Seeds {
 public:
  explicit Seeds(fs::path folder) : folder_(std::move(folder)) {}

  void add(std::string_view target, std::string_view name, std::string_view bytes) {
    std::error_code ignored;
    fs::create_directories(folder_ / target, ignored);
    if (const Status status = write_file(folder_ / target / name, bytes); !status) {
      std::fprintf(stderr, "make_seeds: %s\n", to_string(status.error()).c_str());
      failed_ = true;
    }
  }
  bool failed() const { return failed_; }

 private:
  fs::path folder_;
  bool failed_ = false;
};

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Empty where the file is not there.
std::string read(const fs::path& path) { return read_text_file(path).value_or(""); }

// A header alone: the target is told the size of the file.
void add_header(Seeds& seeds, const std::string& name, const fs::path& file) {
  constexpr size_t kMostBytes = 8000;
  const std::string bytes = read(file);
  if (bytes.empty()) return;
  const uint64_t size = bytes.size();
  const auto data_start = safetensors_data_start(std::as_bytes(std::span(bytes)), size);
  const size_t header = std::min(data_start ? *data_start : kMostBytes, kMostBytes);
  seeds.add("safetensors", name,
            std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + bytes.substr(0, header));
}

// tests/data/malformed: each a folder, right or wrong in one thing.
void add_malformed(Seeds& seeds) {
  for (const fs::path& folder : entries(kData / "malformed")) {
    const std::string name = folder.filename().string();
    const std::string config = read(folder / "config.json");
    add_header(seeds, name, folder / "model.safetensors");
    if (const std::string index = read(folder / "model.safetensors.index.json"); !index.empty())
      seeds.add("shard_index", name, index);
    if (name.starts_with("config-") || name == "valid-float") seeds.add("config", name, config);
    if (config.find("quantization_config") != config.npos) {
      const std::string old = read(folder / "quantize_config.json");
      seeds.add("quantization_config", name, old.empty() ? config : config + '\0' + old);
      seeds.add("quantized_tensors", name, config + '\0' + read(folder / "model.safetensors"));
    }
    if (const std::string tokenizer = read(folder / "tokenizer.json"); !tokenizer.empty())
      seeds.add("tokenizer_json", name, tokenizer);
    if (const std::string chat = read(folder / "chat_template.jinja"); !chat.empty())
      seeds.add("chat_template", name, chat);
  }
}

void add_configs(Seeds& seeds) {
  for (const fs::path& folder : entries(kData / "architectures")) {
    const std::string name = folder.filename().string();
    seeds.add("config", name, read(folder / "config.json"));
    seeds.add("config", name + ".v4", read(folder / "config.v4.json"));
  }
  for (const fs::path& folder : entries(kData / "models")) {
    const std::string name = folder.filename().string();
    const std::string old = read(folder / "quantize_config.json");
    const std::string config = read(folder / "config.json");
    seeds.add("quantization_config", name, old.empty() ? config : config + '\0' + old);
    seeds.add("config", name + ".generation", read(folder / "generation_config.json"));
  }
  // compressed-tensors, of which tests/data has no model.
  seeds.add("quantization_config", "auto-round", R"({"quantization_config": {
    "quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4, "group_size": 128,
    "sym": true, "data_type": "int", "extra_config": {
      "model.layers.0.mlp.down_proj": {"bits": 8, "group_size": 32}, ".*k_proj.*": {"bits": 16},
      "lm_head": {"bits": 8, "sym": false}}}})");
  seeds.add("quantization_config", "auto-round-awq", R"({"quantization_config": {
    "quant_method": "intel/auto-round", "backend": "auto_round:auto_awq", "bits": 4, "group_size": 32,
    "sym": false, "extra_config": {"model.layers.0.mlp.down_proj": {"bits": 16}}}})");
  seeds.add("quantization_config", "compressed-tensors", R"({"quantization_config": {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head", "re:.*gate$"],
    "quantization_status": "compressed", "kv_cache_scheme": null, "config_groups": {"group_0": {
    "targets": ["Linear"], "input_activations": null, "output_activations": null, "weights": {"num_bits": 4,
    "type": "int", "symmetric": false, "group_size": 32, "strategy": "group", "actorder": "group",
    "dynamic": false}}}}})");
}

// Of a vocabulary, the single characters, bytes and special tokens, and some tokens that merges make of them.
void shrink_bpe(Json& model, const std::set<std::string>& special) {
  constexpr size_t kMerges = 24;
  std::set<std::string> kept = special;
  for (const auto& [token, id] : model["vocab"].items()) {
    if (token.size() == 1 || token.starts_with("<0x") ||
        (token.size() < 4 && static_cast<uint8_t>(token[0]) >= 0x80))
      kept.insert(token);
  }
  Json merges = Json::array();
  for (const Json& merge : model["merges"]) {
    if (merges.size() == kMerges) break;
    std::string left, right;
    if (merge.is_array()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else {
      const std::string text = merge.get<std::string>();
      left = text.substr(0, text.find(' '));
      right = text.substr(text.find(' ') + 1);
    }
    if (kept.count(left) == 0 || kept.count(right) == 0) continue;
    kept.insert(left + right);
    merges.push_back(merge);
  }
  Json vocab = Json::object();
  for (const auto& [token, id] : model["vocab"].items()) {
    if (kept.count(token) > 0) vocab[token] = id;
  }
  model["vocab"] = std::move(vocab);
  model["merges"] = std::move(merges);
}

// The tokenizer with a small vocabulary and the same pipeline.
std::string shrunk_tokenizer(const fs::path& file) {
  constexpr size_t kTokens = 150;
  Json json = parse_json(read(file)).value();
  std::set<std::string> special;
  for (const Json& token : json["added_tokens"]) special.insert(token["content"].get<std::string>());
  Json& model = json["model"];
  if (model["type"] == "BPE") {
    shrink_bpe(model, special);
  } else if (model["vocab"].is_array()) {
    auto& list = model["vocab"].get_ref<Json::array_t&>();
    list.resize(std::min(list.size(), kTokens));
  } else {
    Json vocab = Json::object();
    for (const auto& [token, id] : model["vocab"].items()) {
      if (vocab.size() < kTokens || special.count(token) > 0) vocab[token] = id;
    }
    model["vocab"] = std::move(vocab);
  }
  return json.dump();
}

void add_tokenizers(Seeds& seeds) {
  for (const fs::path& folder : entries(kData / "tokenizers")) {
    const std::string name = folder.filename().string();
    if (fs::exists(folder / "tokenizer.json")) {
      const std::string text = shrunk_tokenizer(folder / "tokenizer.json");
      seeds.add("tokenizer_json", name, text + '\0' + "Hello world 12 <s>");
    }
    // The large ones carry normalization tables, which say nothing new.
    constexpr size_t kMostBytes = 40'000;
    const std::string model = read(folder / "tokenizer.model");
    if (!model.empty() && model.size() < kMostBytes) seeds.add("sentencepiece", name, model);
  }
  constexpr const char* kTexts[] = {"Hello, world's 1234",
                                    "  two  spaces\n\n\ttabs ",
                                    "na\u00efve \u4f60\u597d",
                                    "\U0001F468\u200D\U0001F469\u200D\U0001F467",
                                    "<s>a</s><|endoftext|>[CLS] [MASK]",
                                    "\xff\xfe\xc3\x28",
                                    "e\u0301\u1100\u1161\u11a8 \ufb01"};
  for (char which = 0; which < 9; ++which) {
    for (size_t i = 0; i < std::size(kTexts); ++i)
      seeds.add("tokenizer_text", fmt::format("{}-{}", static_cast<int>(which), i),
                which + std::string(kTexts[i]));
  }
}

// tokenizer.model in a few bytes: pieces of every type, and both specifications behind them.
void add_sentencepiece(Seeds& seeds) {
  const auto field = [](char tag, std::string_view bytes) {
    return std::string(1, tag) + static_cast<char>(bytes.size()) + std::string(bytes);
  };
  for (const char kind : {'\1', '\2'}) {
    std::string model;
    char type = 1;
    for (const char* const piece :
         {"\xe2\x96\x81", "<unk>", "<s>", "user", "gone", "<0x0A>", "a", "b", "ab"}) {
      std::string bytes = field('\x0a', piece);
      bytes += std::string("\x15\0\0\x80\xbf", 5);
      if (type <= 6) bytes += std::string{'\x18', type};
      ++type;
      model += field('\x0a', bytes);
    }
    // trainer_spec: model_type, unk_id, bos_id, eos_id; byte_fallback
    model +=
        field('\x12', std::string{'\x18', kind, '\xc0', '\x02', 1, '\xc8', '\x02', 2, '\xd0', '\x02', 2} +
                          std::string("\x98\x02\x01", 3));
    model += field('\x1a', std::string("\x18\x01\x20\x01\x28\x01", 6));
    seeds.add("sentencepiece", fmt::format("small-{}", static_cast<int>(kind)), model);
  }
}

void add_templates(Seeds& seeds) {
  for (const fs::path& file : entries(kData / "chat-templates")) {
    if (file.extension() == ".jinja") seeds.add("chat_template", file.stem().string(), read(file));
  }
}

void add_quant_states(Seeds& seeds) {
  BnbQuantState state;
  state.out_features = 32;
  state.in_features = 64;
  seeds.add("quant_state", "nf4", to_text(state));
  state.quant_type = "fp4";
  state.dtype = DType::kBF16;
  state.nested = true;
  state.nested_offset = 0.0314159f;
  seeds.add("quant_state", "fp4-nested", to_text(state));
}

// A model of one layer, with matrices of the given type.
GgufBuilder small_gguf(const std::string& architecture, uint32_t type, size_t block_bytes, bool spm) {
  constexpr uint64_t kHidden = 256;
  GgufBuilder builder;
  const std::string prefix = architecture + ".";
  builder.add("general.architecture", architecture)
      .add(prefix + "embedding_length", static_cast<uint32_t>(kHidden))
      .add(prefix + "feed_forward_length", static_cast<uint32_t>(kHidden))
      .add(prefix + "block_count", uint32_t{1})
      .add(prefix + "context_length", uint32_t{64})
      .add(prefix + "attention.head_count", uint32_t{128})
      .add(prefix + "attention.head_count_kv", uint32_t{1})
      .add(prefix + "attention.layer_norm_rms_epsilon", 1e-5f)
      .add("tokenizer.ggml.model", std::string(spm ? "llama" : "gpt2"))
      .add("tokenizer.ggml.bos_token_id", uint32_t{1})
      .add("tokenizer.chat_template", std::string("{{ messages[0]['content'] }}"));
  if (spm) {
    builder.add_list<std::string>("tokenizer.ggml.tokens", {"<unk>", "<s>", "<0x0A>", "\xe2\x96\x81"})
        .add_list<float>("tokenizer.ggml.scores", {0, 0, 0, -1})
        .add_list<int32_t>("tokenizer.ggml.token_type", {2, 3, 6, 1});
  } else {
    builder.add("tokenizer.ggml.pre", std::string("llama-bpe"))
        .add_list<std::string>("tokenizer.ggml.tokens", {"a", "<s>", "b", "ab"})
        .add_list<int32_t>("tokenizer.ggml.token_type", {1, 3, 1, 1})
        .add_list<std::string>("tokenizer.ggml.merges", {"a b"});
  }
  builder.add_tensor("token_embd.weight", type, {kHidden, 4}, std::string(4 * block_bytes, '\x3c'));
  builder.add_tensor("blk.0.attn_k.weight", type, {kHidden, 2}, std::string(2 * block_bytes, '\x11'));
  builder.add_floats("blk.0.attn_norm.weight", {4}, {1, 2, 3, 4});
  return builder;
}

void add_ggufs(Seeds& seeds) {
  for (const GgmlType type :
       {GgmlType::kF32, GgmlType::kF16, GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1,
        GgmlType::kQ8_0, GgmlType::kQ2_K, GgmlType::kQ3_K, GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K,
        GgmlType::kIQ4_NL, GgmlType::kIQ4_XS}) {
    const GgmlTypeInfo& info = ggml_type_info(type);
    const size_t row_bytes = 256 / info.block_elements * info.block_bytes;
    const auto id = static_cast<uint32_t>(type);
    seeds.add("gguf", std::string(info.name), small_gguf("llama", id, row_bytes, id % 2 == 0).build());
  }
  for (const std::string architecture : {"gemma", "gemma2", "gemma3", "phi3"}) {
    GgufBuilder builder = small_gguf(architecture, /*type: F32*/ 0, 256 * sizeof(float), true);
    builder.add(architecture + ".attention.sliding_window", uint32_t{8});
    if (architecture == "phi3") {
      builder.add("phi3.rope.scaling.original_context_length", uint32_t{16});
      builder.add("phi3.rope.scaling.attn_factor", 1.2f);
      builder.add_floats("rope_factors_long.weight", {1}, {2});
      builder.add_floats("rope_factors_short.weight", {1}, {1});
      builder.add_floats("blk.0.attn_qkv.weight", {256, 1}, std::vector<float>(256));
    } else {
      builder.add(architecture + ".final_logit_softcapping", 30.0f);
      builder.add_floats("blk.0.post_ffw_norm.weight", {2}, {1, 2});
    }
    seeds.add("gguf", architecture, builder.build());
  }
}

// Sizes and choices as strips_fuzz.cc reads them, two bytes each, and random values.
void add_strips(Seeds& seeds) {
  std::mt19937 rng(1);
  for (uint16_t formula = 0; formula < 4; ++formula) {
    for (uint16_t i = 0; i < 8; ++i) {
      const uint16_t choices[] = {i,
                                  static_cast<uint16_t>(3 * i),
                                  static_cast<uint16_t>(i / 2),
                                  formula,
                                  static_cast<uint16_t>(i + 2),
                                  static_cast<uint16_t>(5 * i + 3),
                                  static_cast<uint16_t>(37 * i + 31),
                                  i,
                                  i,
                                  i};
      std::string bytes;
      for (const uint16_t choice : choices) {
        bytes += {static_cast<char>(choice >> 8), static_cast<char>(choice & 0xFF)};
      }
      for (size_t k = 0; k < 400; ++k) bytes += static_cast<char>(rng() & 0xFF);
      seeds.add("strips", fmt::format("{}-{}", formula, i), bytes);
    }
  }
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds FOLDER\n");
    return 2;
  }
  nibble::Seeds seeds(argv[1]);
  nibble::add_malformed(seeds);
  nibble::add_configs(seeds);
  nibble::add_tokenizers(seeds);
  nibble::add_sentencepiece(seeds);
  nibble::add_templates(seeds);
  nibble::add_quant_states(seeds);
  nibble::add_ggufs(seeds);
  nibble::add_strips(seeds);
  return seeds.failed() ? 1 : 0;
}
