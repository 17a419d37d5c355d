#include "nibble/generation/generate.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/cancel.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string read_file(const std::string& name) {
  std::ifstream file(std::filesystem::path(NIBBLE_TEST_DATA) / "models/tiny-llama" / name, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

const Tokenizer& tokenizer() {
  static const Tokenizer instance =
      Tokenizer::from_json(read_file("tokenizer.json"),
                           parse_json(read_file("tokenizer_config.json")).value(), Json(), {})
          .value();
  return instance;
}

std::vector<int32_t> encode(std::string_view text) {
  return tokenizer().encode(text, {.add_special_tokens = false}).value().ids;
}

constexpr int32_t kEnd = 0;

// A model that says `script` after a prompt of `prompt_size` tokens, then end tokens.
class ScriptedModel final : public CausalLM {
 public:
  ScriptedModel(std::vector<int32_t> script, size_t prompt_size)
      : script_(std::move(script)), prompt_size_(prompt_size) {
    config_.vocab_size = 2048;
    config_.max_position_embeddings = 4096;
    config_.eos_token_id = {kEnd};
  }

  Status forward(std::span<const SequenceChunk> chunks, MatrixView<float> logits,
                 ExecutionContext&) const override {
    for (const SequenceChunk& chunk : chunks) {
      chunk_sizes.push_back(chunk.tokens.size());
      known_lengths.push_back(chunk.known_length);
      tokens_run.insert(tokens_run.end(), chunk.tokens.begin(), chunk.tokens.end());
      NIBBLE_RETURN_IF_ERROR(chunk.cache->reserve(chunk.tokens.size()));
      chunk.cache->advance(chunk.tokens.size());
      EXPECT_EQ(logits.rows(), chunk.num_logits);
      for (size_t row = 0; row < chunk.num_logits; ++row) {
        const size_t step = chunk.cache->size() - (chunk.num_logits - 1 - row) - prompt_size_;
        const int32_t next = step < script_.size() ? script_[step] : kEnd;
        for (size_t id = 0; id < logits.cols(); ++id) logits.row(row)[id] = 0.f;
        logits.row(row)[next] = step == nan_at ? std::numeric_limits<float>::quiet_NaN() : 10.f;
      }
    }
    return {};
  }
  Status forward_hidden(std::span<const SequenceChunk>, MatrixView<float>, ExecutionContext&) const override {
    return fail(ErrorCode::kUnsupported, "generate() wants logits");
  }
  void head_logits(MatrixView<const float>, MatrixView<float>, ExecutionContext&) const override {}
  size_t head_size() const override { return 0; }
  std::unique_ptr<KvCache> make_cache(size_t max_tokens) const override {
    return std::make_unique<KvCache>(KvCacheShape{1, 1, 8}, max_tokens);
  }
  Status save_pretrained(const std::filesystem::path&, size_t) const override { return {}; }
  const PretrainedConfig& config() const override { return config_; }
  const GenerationConfig& generation_config() const override { return generation_config_; }
  const std::optional<QuantizationConfig>& quantization_config() const override {
    return quantization_config_;
  }
  WeightBytes weight_bytes() const override { return {}; }
  size_t num_parameters() const override { return 0; }
  ComputeMode compute() const override { return ComputeMode::kF32; }
  size_t cache_reset_length() const override { return reset_length; }
  std::string kernels() const override { return ""; }

  mutable std::vector<size_t> chunk_sizes;
  mutable std::vector<size_t> known_lengths;
  mutable std::vector<int32_t> tokens_run;
  size_t reset_length = 0;
  size_t nan_at = SIZE_MAX;

 private:
  const std::vector<int32_t> script_;
  const size_t prompt_size_;
  PretrainedConfig config_;
  GenerationConfig generation_config_;
  std::optional<QuantizationConfig> quantization_config_;
};

class Generate : public testing::Test {
 protected:
  void SetUp() override { reset_cancel(); }
  void TearDown() override { reset_cancel(); }

  ScriptedModel model_saying(std::string_view text) { return {encode(text), prompt.size()}; }

  Expected<GenerateResult> run(const ScriptedModel& model, size_t max_tokens = 1000) {
    cache = model.make_cache(max_tokens);
    options.on_token = [this](int32_t token, std::string_view text) {
      shown_tokens.push_back(token);
      shown += text;
      return !on_token || on_token();
    };
    return generate(model, tokenizer(), prompt, config, options, *cache, context);
  }

  std::vector<int32_t> prompt = {5, 6, 7, 8, 9};
  GenerationConfig config;
  GenerateOptions options;
  std::unique_ptr<KvCache> cache;
  ThreadPool pool{1};
  Arena arena;
  ExecutionContext context{pool, arena};
  std::vector<int32_t> shown_tokens;
  std::string shown;
  std::function<bool()> on_token;
};

TEST_F(Generate, StopsAtTheEndToken) {
  const auto model = model_saying("Hello world");
  const auto result = run(model).value();
  auto expected = encode("Hello world");
  expected.push_back(kEnd);
  EXPECT_EQ(result.tokens, expected);
  EXPECT_EQ(result.text, "Hello world");
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.prompt_tokens, 5u);
  EXPECT_EQ(shown_tokens, expected);
  EXPECT_EQ(shown, "Hello world");
  EXPECT_GE(result.prompt_seconds, 0.0);
  EXPECT_GE(result.generation_seconds, 0.0);
  // The cache has all but the end token, in order.
  EXPECT_EQ(cache->size(), prompt.size() + expected.size() - 1);
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), expected.begin(), expected.end() - 1);
  EXPECT_EQ(model.tokens_run, all);
}

TEST_F(Generate, EndTokensOfTheRequestReplaceTheModels) {
  const auto words = encode("Hello world");
  ASSERT_GE(words.size(), 2u);
  config.eos_token_id = {words.back()};
  const auto result = run(model_saying("Hello world")).value();
  EXPECT_EQ(result.tokens, words);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(result.text, tokenizer().decode(std::span(words).first(words.size() - 1)));
}

TEST_F(Generate, IgnoredEndTokenIsNotPrinted) {
  options.ignore_eos = true;
  config.max_new_tokens = encode("Hello").size() + 3;
  const auto result = run(model_saying("Hello")).value();
  EXPECT_EQ(result.tokens.size(), *config.max_new_tokens);
  EXPECT_EQ(result.text, "Hello");
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST_F(Generate, MaxNewTokensEndsTheCompletion) {
  config.max_new_tokens = 1;
  const auto model = model_saying("Hello world");
  const auto result = run(model).value();
  EXPECT_EQ(result.tokens.size(), 1u);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(model.tokens_run, prompt);  // the last token is not run
}

TEST_F(Generate, MaxLengthCountsThePrompt) {
  config.max_length = 7;
  EXPECT_EQ(run(model_saying("one two three four five")).value().tokens.size(), 2u);
  config.max_length = 5;
  const auto none = run(model_saying("one"));
  ASSERT_FALSE(none.has_value());
  EXPECT_THAT(none.error().what, HasSubstr("max_length is 5"));
}

TEST_F(Generate, PromptIsReadInChunks) {
  for (const size_t chunk : {1u, 2u, 5u, 100u}) {
    options.prefill_chunk = chunk;
    const auto model = model_saying("");
    const auto result = run(model).value();
    EXPECT_THAT(result.tokens, ElementsAre(kEnd));
    EXPECT_EQ(model.chunk_sizes.size(), (prompt.size() + chunk - 1) / chunk);
    EXPECT_EQ(model.tokens_run, prompt);
  }
}

TEST_F(Generate, FullContextEndsTheCompletion) {
  const auto result = run(model_saying("one two three four five six seven"), prompt.size() + 2).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kContextFull);
  EXPECT_EQ(result.tokens.size(), 3u);  // two more in the cache, and the one that follows them
  EXPECT_EQ(cache->size(), prompt.size() + 2);
}

TEST_F(Generate, MaxContextOfTheRequestCounts) {
  options.max_context = prompt.size() + 1;
  const auto result = run(model_saying("one two three four five six seven")).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kContextFull);
  EXPECT_EQ(result.tokens.size(), 2u);
}

TEST_F(Generate, PromptThatDoesNotFitNamesTheSizeToAskFor) {
  const auto result = run(model_saying("x"), prompt.size() - 1);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(result.error().what, HasSubstr("5 tokens do not fit the context of 4"));
  EXPECT_THAT(result.error().fix, HasSubstr("--ctx-size 6"));
}

TEST_F(Generate, StopStringIsCutOff) {
  config.stop_strings = {"three"};
  const auto result = run(model_saying("one two three four")).value();
  EXPECT_EQ(result.text, "one two ");
  EXPECT_EQ(shown, "one two ");
  EXPECT_EQ(result.finish_reason, FinishReason::kStopString);
}

TEST_F(Generate, StopStringAcrossTokensIsNeverShown) {
  config.stop_strings = {"wo thr"};
  const auto result = run(model_saying("one two three four")).value();
  EXPECT_EQ(shown, "one t");
  EXPECT_EQ(result.text, "one t");
}

TEST_F(Generate, HeldBackTextIsShownAtTheEnd) {
  config.stop_strings = {"fourteen"};
  EXPECT_EQ(run(model_saying("one two three four")).value().text, "one two three four");
  EXPECT_EQ(shown, "one two three four");
  shown.clear();
  config.max_new_tokens = encode("one two three four").size();
  EXPECT_EQ(run(model_saying("one two three four")).value().finish_reason, FinishReason::kLength);
  EXPECT_EQ(shown, "one two three four");
}

TEST_F(Generate, CharactersAreNeverShownInHalves) {
  const std::string text = "caf\xC3\xA9 \xF0\x9F\xA6\x99 \xE4\xBD\xA0\xE5\xA5\xBD";
  const auto model = model_saying(text);
  cache = model.make_cache(100);
  options.on_token = [&](int32_t, std::string_view piece) {
    // What is not UTF-8 is written as U+FFFD.
    EXPECT_EQ(Json(std::string(piece)).dump(-1, ' ', true, Json::error_handler_t::replace).find("\\ufffd"),
              std::string::npos);
    shown += piece;
    return true;
  };
  const auto result = generate(model, tokenizer(), prompt, config, options, *cache, context).value();
  EXPECT_EQ(result.text, text);
  EXPECT_EQ(shown, text);
}

TEST_F(Generate, CallbackMayStop) {
  on_token = [this] { return shown_tokens.size() < 2; };
  const auto result = run(model_saying("one two three four")).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(result.tokens.size(), 2u);
  EXPECT_EQ(result.text, shown);
}

TEST_F(Generate, InterruptStopsBetweenTokens) {
  on_token = [] {
    request_cancel();
    return true;
  };
  const auto result = run(model_saying("one two three four")).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(result.tokens.size(), 1u);
}

TEST_F(Generate, InterruptStopsWhileThePromptIsRead) {
  request_cancel();
  const auto result = run(model_saying("one")).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(result.tokens.empty());
}

TEST_F(Generate, DamagedLogitsAreAnError) {
  auto model = model_saying("one two three four");
  model.nan_at = 1;
  const auto result = run(model);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kDataLoss);
}

TEST_F(Generate, WrongRequestsAreRefused) {
  const auto model = model_saying("one");
  const auto refused = [&](std::string_view says) {
    const auto result = run(model);
    ASSERT_FALSE(result.has_value()) << says;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(result.error().what, HasSubstr(std::string(says)));
  };
  config.top_p = 2.0;
  refused("top_p is 2");
  config = {};
  config.logit_bias = {{2048, 1.0}};
  refused("token 2048");
  config = {};
  options.prefill_chunk = 0;
  refused("prefill_chunk");
  options.prefill_chunk = 8;
  prompt.clear();
  refused("prompt is empty");
}

TEST_F(Generate, ConversationGoesOnInTheSameCache) {
  const auto words = encode("one two three four");
  ASSERT_GE(words.size(), 4u);
  const auto model = model_saying("one two three four");
  config.max_new_tokens = 2;
  ASSERT_EQ(run(model).value().tokens.size(), 2u);
  const std::vector<int32_t> next = {words[1]};  // the last token was not run yet
  config.max_new_tokens = 1;
  const auto result = generate(model, tokenizer(), next, config, options, *cache, context).value();
  EXPECT_THAT(result.tokens, ElementsAre(words[2]));
  EXPECT_EQ(cache->size(), prompt.size() + 2);
}

TEST_F(Generate, EveryChunkKnowsTheLengthOfTheWholePrompt) {
  options.prefill_chunk = 2;
  config.max_new_tokens = 2;
  const auto model = model_saying("one two three four");
  ASSERT_TRUE(run(model).has_value());
  EXPECT_THAT(model.known_lengths, ElementsAre(5, 5, 5, 6));
}

TEST_F(Generate, SequenceIsReadAgainWhereItGrowsPastTheResetLength) {
  const auto words = encode("one two three four five six");
  ASSERT_GE(words.size(), 3u);
  auto model = model_saying("one two three four five six");
  model.reset_length = 6;
  config.max_new_tokens = 3;
  const auto result = run(model).value();
  EXPECT_EQ(result.tokens, std::vector<int32_t>(words.begin(), words.begin() + 3));
  // The prompt of 5, a 6th token, and with the 7th everything from the start.
  std::vector<int32_t> expected = prompt;
  expected.push_back(words[0]);
  expected.insert(expected.end(), prompt.begin(), prompt.end());
  expected.insert(expected.end(), words.begin(), words.begin() + 2);
  EXPECT_EQ(model.tokens_run, expected);
  EXPECT_THAT(model.chunk_sizes, ElementsAre(5, 1, 7));
}

TEST_F(Generate, TokensOfTheCacheAreNeededToReadThemAgain) {
  auto model = model_saying("one two three four five six");
  model.reset_length = 6;
  config.max_new_tokens = 1;
  ASSERT_TRUE(run(model).has_value());
  const std::vector<int32_t> first = prompt;
  const std::vector<int32_t> more = {11, 12};
  const auto refused = generate(model, tokenizer(), more, config, options, *cache, context);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().fix, HasSubstr("cached_tokens"));
  EXPECT_EQ(cache->size(), first.size());
  options.cached_tokens = first;
  ASSERT_TRUE(generate(model, tokenizer(), more, config, options, *cache, context).has_value());
  EXPECT_EQ(cache->size(), first.size() + more.size());
  EXPECT_THAT(model.chunk_sizes, ElementsAre(5, 7));
}

TEST_F(Generate, CachedTokensCountForTheRepetitionPenalty) {
  const auto words = encode("one two three four");
  const auto model = model_saying("one two three four");
  config.max_new_tokens = 1;
  ASSERT_TRUE(run(model).has_value());
  config.repetition_penalty = 4.0;
  config.logit_bias = {{prompt[0], 5.0}};
  const std::vector<int32_t> cached = {words[1], 2, 3, 4, 5};
  options.cached_tokens = cached;
  const std::vector<int32_t> next = {words[0]};
  // Said after the first word: words[1], whose 10 becomes 2.5 as the cache has it.
  EXPECT_THAT(generate(model, tokenizer(), next, config, options, *cache, context).value().tokens,
              ElementsAre(prompt[0]));
  options.cached_tokens = std::span(cached).first(2);
  EXPECT_FALSE(generate(model, tokenizer(), next, config, options, *cache, context).has_value());
}

// A draft of "one two" is right as long as the script repeats itself; everything is as without.
class GenerateWithLookup : public Generate {
 protected:
  void SetUp() override {
    Generate::SetUp();
    options.lookup_tokens = 4;
  }
  const std::string text = "one two three one two three one two three one two four";
};

TEST_F(GenerateWithLookup, SaysTheSameInFewerPasses) {
  const auto model = model_saying(text);
  const auto result = run(model).value();
  EXPECT_EQ(result.text, text);
  EXPECT_EQ(shown, text);
  EXPECT_EQ(shown_tokens, result.tokens);
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_GT(result.accepted_tokens, 3u);
  EXPECT_GE(result.drafted_tokens, result.accepted_tokens);
  // Each pass gives one token and those that were accepted.
  EXPECT_EQ(model.chunk_sizes.size() + result.accepted_tokens, result.tokens.size());
  EXPECT_EQ(cache->size(), prompt.size() + result.tokens.size() - 1);
}

TEST_F(GenerateWithLookup, NothingIsDraftedBehindTheLastToken) {
  const size_t length = encode(text).size();
  for (size_t limit = 1; limit <= length; ++limit) {
    config.max_new_tokens = limit;
    const auto model = model_saying(text);
    const auto result = run(model).value();
    EXPECT_EQ(result.tokens.size(), limit);
    EXPECT_EQ(result.finish_reason, FinishReason::kLength);
    EXPECT_EQ(cache->size(), prompt.size() + limit - 1);
    EXPECT_LE(model.tokens_run.size(), prompt.size() + limit - 1 + result.drafted_tokens);
  }
}

TEST_F(GenerateWithLookup, DraftsEndWithTheContext) {
  const size_t length = encode(text).size();
  for (size_t room = 0; room < length; ++room) {
    const auto result = run(model_saying(text), prompt.size() + room).value();  // a larger pass would fail
    EXPECT_EQ(result.finish_reason, FinishReason::kContextFull);
    EXPECT_EQ(result.tokens.size(), room + 1);
    EXPECT_EQ(cache->size(), prompt.size() + room);
  }
}

TEST_F(GenerateWithLookup, EndTokenWithinADraftEndsTheCompletion) {
  // The prompt has "one two three END", which is then said again.
  const auto words = encode("one two three");
  prompt = words;
  prompt.push_back(kEnd);
  const auto result = run(model_saying("one two three")).value();
  EXPECT_EQ(result.text, "one two three");
  EXPECT_EQ(result.finish_reason, FinishReason::kStop);
  EXPECT_GT(result.accepted_tokens, 0u);
  EXPECT_EQ(cache->size(), prompt.size() + words.size());
}

TEST_F(GenerateWithLookup, StopStringWithinADraftEndsTheCompletion) {
  config.stop_strings = {"three one two three o"};
  const auto result = run(model_saying(text)).value();
  EXPECT_EQ(result.text, "one two ");
  EXPECT_EQ(shown, "one two ");
  EXPECT_EQ(result.finish_reason, FinishReason::kStopString);
  EXPECT_GT(result.accepted_tokens, 0u);
  EXPECT_EQ(cache->size(), prompt.size() + result.tokens.size() - 1);
}

TEST_F(GenerateWithLookup, CallbackMayStopWithinADraft) {
  for (size_t stop = 1; stop < 8; ++stop) {
    shown_tokens.clear();
    on_token = [&] { return shown_tokens.size() < stop; };
    const auto result = run(model_saying(text)).value();
    EXPECT_EQ(result.finish_reason, FinishReason::kCancelled);
    EXPECT_EQ(result.tokens.size(), stop);
    EXPECT_EQ(cache->size(), prompt.size() + stop - 1);
  }
}

TEST_F(GenerateWithLookup, InterruptStopsWithinADraft) {
  on_token = [this] {
    if (shown_tokens.size() == 6) request_cancel();
    return true;
  };
  const auto result = run(model_saying(text)).value();
  EXPECT_EQ(result.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(result.tokens.size(), 6u);
  EXPECT_EQ(cache->size(), prompt.size() + 5);
}

TEST_F(GenerateWithLookup, DamagedLogitsOfARejectedDraftDoNoHarm) {
  const auto words = encode(text);
  const auto plain = run(model_saying(text)).value();
  auto model = model_saying(text);
  model.nan_at = words.size() + 1;  // behind the end token
  EXPECT_EQ(run(model).value().tokens, plain.tokens);
}

TEST(FinishReasons, HaveNames) {
  EXPECT_EQ(finish_reason_name(FinishReason::kStop), "stop");
  EXPECT_EQ(finish_reason_name(FinishReason::kStopString), "stop_string");
  EXPECT_EQ(finish_reason_name(FinishReason::kLength), "length");
  EXPECT_EQ(finish_reason_name(FinishReason::kContextFull), "context_full");
  EXPECT_EQ(finish_reason_name(FinishReason::kCancelled), "cancelled");
}

}  // namespace
}  // namespace nibble
