// Files of llama.cpp's own converter against the models of Transformers that they were made from
// (tests/data/gguf): configuration, tensors, logits and tokens.

#include <algorithm>

#include <gtest/gtest.h>

#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/tokenizer/tokenizer.h"
#include "tests/golden/agreement.h"
#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

std::vector<std::string> gguf_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(data_folder() / "gguf")) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// model.gguf, or the first of its parts.
std::filesystem::path first_gguf(const std::filesystem::path& folder) {
  std::filesystem::path first;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf" && (first.empty() || entry.path() < first)) first = entry.path();
  }
  return first;
}

class GgufGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto golden = load_golden(source_ / "goldens.safetensors");
    ASSERT_TRUE(golden.has_value()) << to_string(golden.error());
    golden_.emplace(*std::move(golden));
    tolerance_ = kFloatTolerance * golden_->logits_std;
  }

  ModelFiles files() const { return find_model(gguf_.string()).value(); }

  const std::filesystem::path source_ = data_folder() / "gguf" / GetParam();
  const std::filesystem::path gguf_ = first_gguf(source_);
  std::optional<Golden> golden_;
  double tolerance_ = 0.0;
};

INSTANTIATE_TEST_SUITE_P(Every, GgufGolden, testing::ValuesIn(gguf_names()),
                         [](const auto& test) { return test_name(test.param); });

TEST_P(GgufGolden, ConfigurationIsThatOfTheOriginal) {
  const auto text = files().read_required("config.json");
  ASSERT_TRUE(text.has_value()) << to_string(text.error());
  const auto ours = PretrainedConfig::from_json(parse_json(*text).value());
  ASSERT_TRUE(ours.has_value()) << to_string(ours.error());
  const auto theirs =
      PretrainedConfig::from_json(parse_json(read_text_file(source_ / "config.json").value()).value())
          .value();
  EXPECT_EQ(ours->model_type, theirs.model_type);
  EXPECT_EQ(ours->architectures, theirs.architectures);
  EXPECT_EQ(ours->vocab_size, theirs.vocab_size);
  EXPECT_EQ(ours->hidden_size, theirs.hidden_size);
  EXPECT_EQ(ours->intermediate_size, theirs.intermediate_size);
  EXPECT_EQ(ours->num_hidden_layers, theirs.num_hidden_layers);
  EXPECT_EQ(ours->num_attention_heads, theirs.num_attention_heads);
  EXPECT_EQ(ours->num_key_value_heads, theirs.num_key_value_heads);
  EXPECT_EQ(ours->head_dim, theirs.head_dim);
  EXPECT_EQ(ours->max_position_embeddings, theirs.max_position_embeddings);
  EXPECT_EQ(ours->hidden_act, theirs.hidden_act);
  EXPECT_EQ(ours->norm_eps, theirs.norm_eps);
  EXPECT_EQ(ours->tie_word_embeddings, theirs.tie_word_embeddings);
  EXPECT_EQ(ours->rope, theirs.rope);
  EXPECT_EQ(ours->rope_sliding, theirs.rope_sliding);
  EXPECT_EQ(ours->sliding_window, theirs.sliding_window);
  EXPECT_EQ(ours->layer_types, theirs.layer_types);
  EXPECT_EQ(ours->bos_token_id, theirs.bos_token_id);
  EXPECT_EQ(ours->eos_token_id, theirs.eos_token_id);
  EXPECT_EQ(ours->pad_token_id, theirs.pad_token_id);
  for (const char* const key :
       {"query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"}) {
    EXPECT_EQ(ours->get_optional_number(key).value(), theirs.get_optional_number(key).value()) << key;
  }
}

TEST_P(GgufGolden, TensorsAreThoseOfTheOriginal) {
  const auto original = SafetensorsFile::open(source_ / "model.safetensors");
  ASSERT_TRUE(original.has_value()) << to_string(original.error());
  const auto imported = open_checkpoint(files());
  ASSERT_TRUE(imported.has_value()) << to_string(imported.error());
  // Of a quantized model the fixture has the first rows.
  const bool first_rows = GetParam().ends_with("_q4_k_m");
  std::vector<std::string> names;
  for (const auto& [name, info] : (*imported)->tensors()) {
    names.push_back(name);
    const auto theirs = original->tensor(name);
    const auto ours = (*imported)->tensor(name);
    ASSERT_TRUE(theirs.has_value() && ours.has_value()) << name;
    ASSERT_EQ(ours->shape.back(), theirs->shape.back()) << name;
    std::vector<float> values = to_floats(*ours).value();
    if (first_rows) {
      values.resize(num_elements(theirs->shape).value());
    } else {
      ASSERT_EQ(ours->shape, theirs->shape) << name;
    }
    // Nothing but what w + 1 in float32, or a small value in float16, may lose.
    EXPECT_LE(max_abs_difference(values, to_floats(*theirs).value()), 0x1p-24) << name;
  }
  EXPECT_EQ(names.size(), original->header().tensors.size());
}

TEST_P(GgufGolden, LogitsAgree) {
  Runner runner(gguf_, in_float32());
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  const double share = expect_logits(runner, *golden_, tolerance_) / golden_->logits_std;
  report(fmt::format("{}.gguf: logits differ by {:.1e} of their standard deviation", GetParam(), share));

  // A short text: no window slides, and longrope has its short factors.
  const auto logits = runner.logits(golden_ints(*golden_, "few_input_ids"));
  ASSERT_TRUE(logits.has_value()) << to_string(logits.error());
  EXPECT_LE(max_abs_difference(*logits, golden_floats(*golden_, "few_logits")), tolerance_);
}

TEST_P(GgufGolden, GreedyContinuationIsTheSame) {
  Runner runner(gguf_, in_float32());
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  expect_greedy(runner, *golden_, tolerance_);
}

TEST_P(GgufGolden, TokensAreTheSame) {
  const auto tokenizer = AutoTokenizer::from_files(files());
  ASSERT_TRUE(tokenizer.has_value()) << to_string(tokenizer.error());
  const Json cases = parse_json(read_text_file(source_ / "tokens.json").value()).value();
  ASSERT_GE(cases.size(), 5u);
  for (const Json& test : cases) {
    const auto encoded = tokenizer->encode(test["text"].get<std::string>());
    ASSERT_TRUE(encoded.has_value()) << to_string(encoded.error());
    EXPECT_EQ(encoded->ids, test["ids"].get<std::vector<int32_t>>()) << test["text"];
    EXPECT_EQ(tokenizer->decode(test["ids"].get<std::vector<int32_t>>(), /*skip_special_tokens=*/true),
              test["decoded"].get<std::string>())
        << test["text"];
  }
}

}  // namespace
}  // namespace nibble::test
