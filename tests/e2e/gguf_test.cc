// `nibble convert`, and .gguf files wherever a MODEL is wanted. The file holds tiny-llama's own float16
// weights, so that everything must come out as it does for tiny-llama.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/gguf_builder.h"
#include "nibble/checkpoint/safetensors.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr uint32_t kF16 = 1;

// blk.0.NAME in GGUF, model.layers.0.NAME in Transformers.
const std::pair<const char*, const char*> kBlockNames[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};

// llama.cpp rotates neighbours, Transformers the halves of a head: row 2i + h of a GGUF head is row
// h * head_dim / 2 + i here.
std::string permuted(const Tensor& weight, size_t heads) {
  const size_t row_bytes = weight.bytes.size() / weight.shape[0];
  const size_t head_dim = weight.shape[0] / heads;
  std::string out;
  for (size_t head = 0; head < heads; ++head) {
    for (size_t row = 0; row < head_dim; ++row) {
      const size_t from = head * head_dim + row % 2 * (head_dim / 2) + row / 2;
      out.append(reinterpret_cast<const char*>(weight.bytes.data()) + from * row_bytes, row_bytes);
    }
  }
  return out;
}

void add_tensor(GgufBuilder& builder, const std::string& name, const Tensor& tensor, std::string bytes = {}) {
  const std::vector<uint64_t> shape(tensor.shape.rbegin(), tensor.shape.rend());
  if (bytes.empty()) bytes.assign(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  builder.add_tensor(name, kF16, shape, bytes);
}

void add_tokenizer(GgufBuilder& builder, const fs::path& folder) {
  const Json json = parse_json(read_text_file(folder / "tokenizer.json").value()).value();
  std::vector<std::string> tokens(json["model"]["vocab"].size());
  for (const auto& [token, id] : json["model"]["vocab"].items()) {
    tokens.resize(std::max(tokens.size(), id.get<size_t>() + 1));
    tokens[id.get<size_t>()] = token;
  }
  constexpr int32_t kNormal = 1;
  constexpr int32_t kControl = 3;
  std::vector<int32_t> kinds(tokens.size(), kNormal);
  for (const Json& added : json["added_tokens"]) {
    tokens[added["id"].get<size_t>()] = added["content"];
    kinds[added["id"].get<size_t>()] = kControl;
  }
  std::vector<std::string> merges;
  for (const Json& merge : json["model"]["merges"]) {
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  builder.add("tokenizer.ggml.model", std::string("gpt2"));
  builder.add("tokenizer.ggml.pre", std::string("llama-bpe"));
  builder.add_list("tokenizer.ggml.tokens", tokens);
  builder.add_list("tokenizer.ggml.token_type", kinds);
  builder.add_list("tokenizer.ggml.merges", merges);
  builder.add<uint32_t>("tokenizer.ggml.bos_token_id", 0);
  builder.add<uint32_t>("tokenizer.ggml.eos_token_id", 0);
  builder.add("tokenizer.ggml.add_bos_token", false);
  builder.add("tokenizer.chat_template", read_text_file(folder / "chat_template.jinja").value());
}

// tiny-llama as a GGUF file; `layers` of it, the three that it has again and again.
std::string gguf_file(const fs::path& folder, uint32_t layers = 3) {
  const fs::path source = model("tiny-llama");
  const auto file = SafetensorsFile::open(source / "model.safetensors");
  GgufBuilder builder;
  builder.add("general.architecture", std::string("llama"));
  builder.add<uint32_t>("llama.block_count", layers);
  for (const auto& [key, value] :
       {std::pair("embedding_length", 256u), std::pair("feed_forward_length", 512u),
        std::pair("context_length", 1024u), std::pair("attention.head_count", 8u),
        std::pair("attention.head_count_kv", 4u), std::pair("rope.dimension_count", 32u)}) {
    builder.add<uint32_t>(std::string("llama.") + key, value);
  }
  builder.add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  builder.add("llama.rope.freq_base", 10000.0f);
  add_tokenizer(builder, source);
  add_tensor(builder, "token_embd.weight", file->tensor("model.embed_tokens.weight").value());
  add_tensor(builder, "output_norm.weight", file->tensor("model.norm.weight").value());
  for (uint32_t layer = 0; layer < layers; ++layer) {
    for (const auto& [ours, theirs] : kBlockNames) {
      const Tensor tensor =
          file->tensor("model.layers." + std::to_string(layer % 3) + "." + theirs + ".weight").value();
      const std::string name = "blk." + std::to_string(layer) + "." + ours + ".weight";
      const size_t heads = std::string(ours) == "attn_q" ? 8 : std::string(ours) == "attn_k" ? 4 : 0;
      add_tensor(builder, name, tensor, heads > 0 ? permuted(tensor, heads) : std::string());
    }
  }
  const fs::path path = folder / "tiny.gguf";
  EXPECT_TRUE(write_file(path, builder.build()).has_value());
  return path.string();
}

std::string answer(const std::string& name, std::vector<std::string> more) {
  more.insert(more.begin(),
              {"run", name, "-p", "The first bridge was built", "-n", "12", "--temperature", "0"});
  const ProgramResult result = run_program(more);
  EXPECT_EQ(result.status, 0) << result;
  return result.out;
}

TEST(Gguf, RunsAsTheModelItWasMadeFrom) {
  const TemporaryFolder folder;
  const std::string gguf = gguf_file(folder.path());
  for (const std::vector<std::string>& more : {std::vector<std::string>{},
                                               {"--raw"},
                                               {"--raw", "--compute", "f32"},
                                               {"--raw", "--quantize", "nf4"}}) {
    EXPECT_EQ(answer(gguf, more), answer(model("tiny-llama"), more));
  }
  EXPECT_EQ(run_program({"tokenize", gguf, "--text", "Hello, 12345 world! <|im_end|>"}).out,
            run_program({"tokenize", model("tiny-llama"), "--text", "Hello, 12345 world! <|im_end|>"}).out);
  const ProgramResult inspected = run_program({"inspect", gguf, "--json"});
  ASSERT_EQ(inspected.status, 0) << inspected;
  const Json original = run_program({"inspect", model("tiny-llama"), "--json"}).json();
  for (const char* const key :
       {"architecture", "parameters", "quantization", "context_length", "chat_template"}) {
    EXPECT_EQ(inspected.json()[key], original[key]) << key;
  }
}

TEST(Gguf, ConvertedFolderHasTheOriginalsBytes) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  const ProgramResult result = run_program({"convert", gguf_file(folder.path()), "-o", out, "--json"});
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_EQ(result.json()["tensors"], 29);
  const auto original = SafetensorsFile::open(model("tiny-llama") + "/model.safetensors");
  const auto written = SafetensorsFile::open(out + "/model.safetensors");
  ASSERT_TRUE(original.has_value() && written.has_value());
  for (const auto& [name, entry] : original->header().tensors) {
    const auto tensor = written->tensor(name);
    ASSERT_TRUE(tensor.has_value()) << name;
    EXPECT_EQ(copy_elements<uint16_t>(*tensor), copy_elements<uint16_t>(original->tensor(name).value()))
        << name;
  }
  EXPECT_EQ(answer(out, {}), answer(model("tiny-llama"), {}));
}

TEST(Gguf, ConvertRefusesWhatItCannotDo) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "out").string();
  const ProgramResult not_gguf = run_program({"convert", model("tiny-llama"), "-o", out});
  EXPECT_EQ(not_gguf.status, 2) << not_gguf;
  EXPECT_TRUE(is_one_error(not_gguf.err)) << not_gguf;

  const std::string gguf = gguf_file(folder.path());
  fs::resize_file(gguf, fs::file_size(gguf) / 2);
  const ProgramResult cut = run_program({"convert", gguf, "-o", out});
  EXPECT_EQ(cut.status, 1) << cut;
  EXPECT_TRUE(is_one_error(cut.err)) << cut;
  EXPECT_THAT(cut.err, HasSubstr("tiny.gguf"));
  EXPECT_FALSE(fs::exists(out));
}

TEST(Interrupt, ConvertLeavesNothingHalf) {
  const TemporaryFolder folder;
  const std::string gguf = gguf_file(folder.path(), 96);
  const fs::path out = folder.path() / "out";
  const ProgramResult result =
      run_program({"convert", gguf, "-o", out.string()},
                  {.interrupt_when = [&](const std::string&) { return fs::exists(out); }});
  EXPECT_EQ(result.status, 130) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace nibble::test
