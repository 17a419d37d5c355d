// Nothing varies that should not: the same bytes of logits for any number of threads, any cuts of a text, any
// company in the batch, whatever happened to the cache before. For every architecture, every kind of
// quantized weight, both compute modes and all types of the cache. The exception is LLM.int8 in float32,
// which takes the tokens of a call together because the original does.
//
// Of single layers: kernels/*_test.cc, nn/linear_test.cc, nn/input_order_test.cc. After saving and loading:
// save_pretrained_test.cc. Of generate(): generation/generate_test.cc.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <ostream>
#include <random>
#include <tuple>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

using Tokens = std::vector<int32_t>;

struct Case {
  std::string model;  // of tests/data/models, or architectures/NAME
  ComputeMode compute;
  const char* kv_cache_type;

  bool is_architecture() const { return model.starts_with("architectures/"); }
  bool takes_calls_together() const { return compute == ComputeMode::kF32 && model.starts_with("bnb-int8"); }
};

std::string case_name(const Case& test) {
  return fmt::format("{}_{}_kv_{}", test_name(test.model), test.compute == ComputeMode::kF32 ? "f32" : "auto",
                     test.kv_cache_type);
}

void PrintTo(const Case& test, std::ostream* out) { *out << case_name(test); }

// Trained, one for each way that a weight can be stored.
std::vector<Case> model_cases() {
  std::vector<Case> all;
  for (const char* model : {"tiny-llama", "gptq-4b-g128-desc_act", "gptq-3b-g64", "awq-gemm-g32-skip",
                            "bnb-nf4", "bnb-int8", "bnb-int8-outlier-skip"}) {
    for (const char* type : {"f32", "f16", "int8"}) {
      all.push_back({model, ComputeMode::kF32, type});
      all.push_back({model, ComputeMode::kAuto, type});
    }
  }
  return all;
}

std::vector<Case> every_case() {
  std::vector<Case> all = model_cases();
  for (const std::string& name : architecture_names()) {
    all.push_back({"architectures/" + name, ComputeMode::kF32, "f32"});
    all.push_back({"architectures/" + name, ComputeMode::kAuto, "f16"});
    all.push_back({"architectures/" + name, ComputeMode::kAuto, "int8"});
  }
  return all;
}

std::vector<Case> token_by_token(std::vector<Case> all) {
  std::erase_if(all, [](const Case& test) { return test.takes_calls_together(); });
  return all;
}

// Not operator==: NaN must equal itself and -0 must not equal 0.
bool same_bytes(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// A text that is read piece by piece.
struct Reading {
  Tokens tokens;
  std::unique_ptr<KvCache> cache;
  std::vector<float> logits = {};  // of the tokens in the cache

  // The next `count` tokens. All that ever come are announced, as by a prompt that is read in chunks.
  SequenceChunk next(size_t count) const {
    return {std::span(tokens).subspan(cache->size(), count), cache.get(), count, tokens.size()};
  }
  size_t unread() const { return tokens.size() - cache->size(); }
  void truncate(size_t size, size_t vocab_size) {
    cache->truncate(size);
    logits.resize(size * vocab_size);
  }
};

std::vector<Reading> start_reading(Runner& runner, std::span<const Tokens> texts) {
  std::vector<Reading> readings;
  for (const Tokens& tokens : texts) readings.push_back({tokens, (*runner.model)->make_cache(tokens.size())});
  return readings;
}

// One forward pass with counts[i] more tokens of readings[i].
void read_together(Runner& runner, std::span<Reading> readings, std::span<const size_t> counts) {
  std::vector<SequenceChunk> chunks;
  size_t total = 0;
  for (size_t i = 0; i < readings.size(); ++i) {
    if (counts[i] == 0) continue;
    chunks.push_back(readings[i].next(counts[i]));
    total += counts[i];
  }
  const size_t vocab_size = runner.vocab_size();
  std::vector<float> logits(total * vocab_size);
  ExecutionContext context = runner.context();
  const Status status = (*runner.model)->forward(chunks, {logits.data(), total, vocab_size}, context);
  ASSERT_TRUE(status) << to_string(status.error());
  auto begin = logits.begin();
  for (size_t i = 0; i < readings.size(); ++i) {
    const auto end = begin + static_cast<std::ptrdiff_t>(counts[i] * vocab_size);
    readings[i].logits.insert(readings[i].logits.end(), begin, end);
    begin = end;
  }
}

// All of them to their ends, each by a random piece (or none) at a time.
void read_in_random_pieces(Runner& runner, std::span<Reading> readings, std::mt19937& rng) {
  const auto unread = [](const Reading& reading) { return reading.unread() > 0; };
  while (std::ranges::any_of(readings, unread)) {
    std::vector<size_t> counts;
    for (const Reading& reading : readings) {
      const size_t longest = rng() % 2 == 0 ? 3 : 20;
      counts.push_back(std::min<size_t>(reading.unread(), rng() % (longest + 1)));
    }
    if (std::ranges::all_of(counts, [](size_t n) { return n == 0; })) continue;
    ASSERT_NO_FATAL_FAILURE(read_together(runner, readings, counts));
  }
}

class Determinism : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string& model = GetParam().model;
    const bool is_architecture = GetParam().is_architecture();
    auto folder = is_architecture ? data_folder() / model : model_folder(model);
    ASSERT_TRUE(folder.has_value()) << to_string(folder.error());
    folder_ = *std::move(folder);
    auto golden = load_golden(is_architecture ? folder_ / "goldens.safetensors"
                                              : data_folder() / "goldens" / (model + ".safetensors"));
    ASSERT_TRUE(golden.has_value()) << to_string(golden.error());
    texts_ = golden->prompts;
    for (Tokens& text : texts_) text.resize(33);
    options_.compute = GetParam().compute;
    options_.kv_cache_type = GetParam().kv_cache_type;
  }

  // What each text gives when it is read at once and alone.
  void read_alone(Runner& runner) {
    ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
    for (const Tokens& text : texts_) {
      auto logits = runner.logits(text);
      ASSERT_TRUE(logits.has_value()) << to_string(logits.error());
      alone_.push_back(*std::move(logits));
    }
  }

  std::filesystem::path folder_;
  FromPretrainedOptions options_;
  std::vector<Tokens> texts_;
  std::vector<std::vector<float>> alone_;
  // Another seed: --gtest_random_seed=N. Not UnitTest::random_seed(), which is another one every time.
  std::mt19937 rng_{static_cast<unsigned>(GTEST_FLAG_GET(random_seed))};
};

std::string param_name(const testing::TestParamInfo<Case>& info) { return case_name(info.param); }

INSTANTIATE_TEST_SUITE_P(Every, Determinism, testing::ValuesIn(every_case()), param_name);

// The tokens of a call do not see each other.
class DeterminismOfRows : public Determinism {};
INSTANTIATE_TEST_SUITE_P(Every, DeterminismOfRows, testing::ValuesIn(token_by_token(every_case())),
                         param_name);

class DeterminismBesideExtremes : public Determinism {};
INSTANTIATE_TEST_SUITE_P(Models, DeterminismBesideExtremes, testing::ValuesIn(token_by_token(model_cases())),
                         param_name);

TEST_P(Determinism, AnyNumberOfThreads) {
  Runner loaded_by_one(folder_, options_, 1);
  ASSERT_NO_FATAL_FAILURE(read_alone(loaded_by_one));
  Runner loaded_by_eight(folder_, options_, 8);
  ASSERT_TRUE(loaded_by_eight.model.has_value()) << to_string(loaded_by_eight.model.error());
  for (size_t threads = 1; threads <= 8; ++threads) {
    ThreadPool pool(threads);
    ExecutionContext context{pool, loaded_by_eight.arena};
    const std::vector<Reading> reading = start_reading(loaded_by_eight, {&texts_[0], 1});
    const SequenceChunk text = reading[0].next(texts_[0].size());
    std::vector<float> logits(alone_[0].size());
    const MatrixView<float> rows(logits.data(), texts_[0].size(), loaded_by_eight.vocab_size());
    ASSERT_TRUE((*loaded_by_eight.model)->forward({&text, 1}, rows, context));
    EXPECT_TRUE(same_bytes(logits, alone_[0])) << threads << " threads";
  }
}

TEST_P(DeterminismOfRows, AnyCuts) {
  Runner runner(folder_, options_);
  ASSERT_NO_FATAL_FAILURE(read_alone(runner));
  EXPECT_TRUE(same_bytes(runner.logits(texts_[0], 1).value(), alone_[0])) << "token by token";
  for (int round = 0; round < 3; ++round) {
    std::vector<Reading> reading = start_reading(runner, {&texts_[0], 1});
    ASSERT_NO_FATAL_FAILURE(read_in_random_pieces(runner, reading, rng_));
    EXPECT_TRUE(same_bytes(reading[0].logits, alone_[0])) << "round " << round;
  }
}

TEST_P(DeterminismOfRows, AloneOrInABatch) {
  texts_[1].resize(13);
  texts_.push_back({texts_[0].begin() + 20, texts_[0].begin() + 21});
  Runner runner(folder_, options_, 2);
  ASSERT_NO_FATAL_FAILURE(read_alone(runner));
  const auto together = runner.batch_logits(texts_);
  ASSERT_TRUE(together.has_value()) << to_string(together.error());
  std::vector<Reading> readings = start_reading(runner, texts_);
  ASSERT_NO_FATAL_FAILURE(read_in_random_pieces(runner, readings, rng_));
  for (size_t i = 0; i < texts_.size(); ++i) {
    EXPECT_TRUE(same_bytes((*together)[i], alone_[i])) << "all at once, text " << i;
    EXPECT_TRUE(same_bytes(readings[i].logits, alone_[i])) << "some reading, some writing, text " << i;
  }
}

// A conversation: its cache is cut back, takes another answer, is cut back to where that began, and goes on.
TEST_P(DeterminismOfRows, WhateverTheCacheHeldBefore) {
  Runner runner(folder_, options_);
  ASSERT_NO_FATAL_FAILURE(read_alone(runner));
  std::vector<Reading> reading = start_reading(runner, {&texts_[0], 1});
  Reading& kept = reading[0];
  for (int round = 0; round < 6; ++round) {
    const size_t count = 1 + rng_() % kept.unread();
    ASSERT_NO_FATAL_FAILURE(read_together(runner, reading, {{count}}));
    EXPECT_TRUE(same_bytes(kept.logits, std::span(alone_[0]).first(kept.logits.size()))) << "round " << round;
    kept.truncate(rng_() % kept.cache->size(), runner.vocab_size());  // something is left to read
    const size_t other = rng_() % (kept.unread() + 1);
    const Tokens answer(texts_[1].end() - static_cast<std::ptrdiff_t>(other), texts_[1].end());
    const size_t size = kept.cache->size();
    if (other > 0) {
      ASSERT_TRUE(runner.logits_after(answer, *kept.cache, 5).has_value());
    }
    kept.cache->truncate(size);
  }
  ASSERT_NO_FATAL_FAILURE(read_in_random_pieces(runner, reading, rng_));
  EXPECT_TRUE(same_bytes(kept.logits, alone_[0]));
}

// Beside a token whose embedding is one number, the largest of float16, and zeros: its logits are finite, its
// activations far from all others, and in LLM.int8 outliers where nobody else has some.
TEST_P(DeterminismBesideExtremes, AnyCutsAndCompany) {
  constexpr int32_t kExtreme = 7;
  const TemporaryFolder copy;
  std::filesystem::copy(folder_, copy.path());
  const std::filesystem::path path = copy.path() / "model.safetensors";
  const auto entry = SafetensorsFile::open(path).value().header();
  const SafetensorsEntry& embedding = entry.tensors.at("model.embed_tokens.weight");
  ASSERT_EQ(embedding.info.dtype, DType::kF16);
  std::vector<uint16_t> row(embedding.info.shape[1], 0);
  row[3] = float_to_fp16(65504.f);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(entry.data_start + embedding.begin + kExtreme * row.size() * 2));
  file.write(reinterpret_cast<const char*>(row.data()), static_cast<std::streamsize>(row.size() * 2));
  ASSERT_TRUE(file.flush());

  texts_ = {texts_[0], Tokens(11, kExtreme), {texts_[1].begin(), texts_[1].begin() + 9}};
  Runner runner(copy.path(), options_, 2);
  ASSERT_NO_FATAL_FAILURE(read_alone(runner));
  EXPECT_TRUE(std::ranges::all_of(alone_[1], [](float value) { return std::isfinite(value); }));
  std::vector<Reading> readings = start_reading(runner, texts_);
  const auto together = runner.batch_logits(texts_).value();
  ASSERT_NO_FATAL_FAILURE(read_in_random_pieces(runner, readings, rng_));
  for (size_t i = 0; i < texts_.size(); ++i) {
    EXPECT_TRUE(same_bytes(together[i], alone_[i])) << "all at once, text " << i;
    EXPECT_TRUE(same_bytes(readings[i].logits, alone_[i])) << "in pieces, text " << i;
  }
}

// Beyond one piece of attention, whose pieces threads share when a token comes alone, and far beyond a
// window of 16 tokens.
class LongText : public testing::TestWithParam<std::tuple<std::string, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Every, LongText,
                         testing::Combine(testing::Values("tiny-llama", "architectures/mistral_sliding",
                                                          "architectures/qwen2_sliding",
                                                          "architectures/gemma2",
                                                          "architectures/gemma3_text"),
                                          testing::Values("f32", "f16", "int8")),
                         [](const auto& test) {
                           return test_name(
                               fmt::format("{}_{}", std::get<0>(test.param), std::get<1>(test.param)));
                         });

TEST_P(LongText, AnyNumberOfThreadsAndCuts) {
  const auto& [model, type] = GetParam();
  const bool is_architecture = model.starts_with("architectures/");
  FromPretrainedOptions options;
  options.kv_cache_type = type;
  Runner one(is_architecture ? data_folder() / model : model_folder(model).value(), options, 1);
  Runner five(is_architecture ? data_folder() / model : model_folder(model).value(), options, 5);
  ASSERT_TRUE(one.model.has_value()) << to_string(one.model.error());
  const size_t length = is_architecture ? 400 : 600;
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < length; ++i) {
    tokens.push_back(static_cast<int32_t>(i * i * 31 % 2039 % one.vocab_size()));
  }
  const auto expected = one.logits(tokens).value();
  const auto cache = (*five.model)->make_cache(tokens.size());
  const auto begin = std::span<const int32_t>(tokens).first(length - 20);
  auto got = five.logits_after(begin, *cache, 70).value();
  for (size_t t = begin.size(); t < tokens.size(); ++t) {
    const auto row = five.logits_after(std::span<const int32_t>(tokens).subspan(t, 1), *cache).value();
    got.insert(got.end(), row.begin(), row.end());
  }
  EXPECT_TRUE(same_bytes(got, expected));
}

// Both layers of this model see 16 tokens, the token itself among them: the last one's logits hang on the 31
// last tokens, and not on a bit of what came before.
TEST(SlidingWindow, WhatHasLeftItChangesNothing) {
  constexpr size_t kReach = 2 * (16 - 1) + 1;
  for (const char* type : {"f32", "f16", "int8"}) {
    FromPretrainedOptions options;
    options.kv_cache_type = type;
    Runner runner(data_folder() / "architectures/mistral_sliding", options);
    ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 100; ++i) tokens.push_back(i * i * 31 % 101);
    const auto last_row = [&] {
      const std::vector<float> logits = runner.logits(tokens).value();
      const auto row = row_of(logits, tokens.size() - 1, runner.vocab_size());
      return std::vector<float>(row.begin(), row.end());
    };
    const std::vector<float> expected = last_row();
    const auto change = [&](size_t position) { tokens[position] = (tokens[position] + 1) % 101; };
    for (size_t i = 0; i < tokens.size() - kReach; ++i) change(i);
    EXPECT_TRUE(same_bytes(last_row(), expected)) << type;
    change(tokens.size() - kReach);
    EXPECT_FALSE(same_bytes(last_row(), expected)) << type;
  }
}

}  // namespace
}  // namespace nibble::test
