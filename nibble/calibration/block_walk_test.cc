// The streams of a BlockWalk, for every architecture.

#include "nibble/calibration/block_walk.h"

#include "nibble/calibration/test_walk.h"
#include "nibble/kernels/elementwise.h"
#include "nibble/models/auto_model.h"
#include "nibble/models/load_weights.h"
#include "nibble/nn/kv_cache.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

constexpr size_t kSequences = 6;

// Final norm, projection and head of rows of a stream; of the quantized one, head_input() and the head.
std::vector<float> logits_of_rows(WalkedModel& model, bool quantized, size_t first, size_t count) {
  const ModelSource& source = model.source;
  Arena arena;
  ExecutionContext context = {model.pool, arena};
  WeightLoader loader(source.checkpoint, source.slots, source.quantized, source.quantization,
                      {.linear = {.compute = ComputeMode::kF32},
                       .dtype = std::nullopt,
                       .norm_adds_one = source.spec.names.norm_adds_one},
                      model.pool);
  auto frame = load_frame(source.spec, source.config, source.prefix_missing, loader);
  EXPECT_TRUE(frame);
  const std::string name(source.spec.names.head);
  const std::string embedding = name_in_file(source.spec, source.spec.names.embed, source.prefix_missing);
  const std::unique_ptr<Linear> head =
      *loader.head(name, source.config.tie_word_embeddings ? embedding : name);
  std::vector<float> values(count * source.spec.embedding_size);
  MatrixView<float> x(values.data(), count, source.spec.embedding_size);
  if (quantized) {
    EXPECT_TRUE(model.walk->head_input(first, x));
  } else {
    values = model.rows(false, first, count);
    x = {values.data(), count, model.hidden()};
    if (frame->final_norm != nullptr) frame->final_norm->forward(x, x, context);
    if (frame->project_out != nullptr) {
      const MatrixView<float> projected = arena.take_matrix(count, source.spec.embedding_size);
      frame->project_out->forward(x, projected, context);
      x = projected;
    }
  }
  std::vector<float> logits(count * source.config.vocab_size);
  head->forward(x, {logits.data(), count, source.config.vocab_size}, context);
  for (float& logit : logits) logit *= source.spec.logit_scale;
  if (const float cap = source.spec.final_soft_cap; cap > 0) {
    kernels::soft_cap(logits.data(), cap, logits.size(), logits.data());
  }
  return logits;
}

std::vector<float> decoder_logits(const std::string& name, std::span<const int32_t> tokens,
                                  ThreadPool& pool) {
  FromPretrainedOptions options;
  options.compute = ComputeMode::kF32;
  const auto model =
      AutoModelForCausalLM::from_pretrained((data_folder() / "architectures" / name).string(), options, pool);
  EXPECT_TRUE(model) << to_string(model.error());
  const auto cache = (*model)->make_cache(tokens.size());
  const std::vector<SequenceChunk> chunks = {{tokens, cache.get(), tokens.size(), 0}};
  const size_t vocab_size = (*model)->config().vocab_size;
  std::vector<float> logits(tokens.size() * vocab_size);
  Arena arena;
  ExecutionContext context = {pool, arena};
  const Status done = (*model)->forward(chunks, {logits.data(), tokens.size(), vocab_size}, context);
  EXPECT_TRUE(done) << to_string(done.error());
  return logits;
}

class EveryArchitecture : public testing::TestWithParam<std::string> {
 protected:
  size_t vocab_size_ = 64;  // the smallest of them
};

INSTANTIATE_TEST_SUITE_P(Walk, EveryArchitecture, testing::ValuesIn(architecture_names()),
                         [](const auto& test) { return test.param; });

TEST_P(EveryArchitecture, StreamsOfUnchangedWeightsAreWhatTheDecoderComputes) {
  WalkedModel model(GetParam(), some_tokens(kSequences, vocab_size_), exact_options());
  model.walk_all(keep_weights);
  size_t row = 0;
  for (const std::vector<int32_t>& tokens : model.data.sequences) {
    const std::vector<float> expected = decoder_logits(GetParam(), tokens, model.pool);
    const double bound = 1e-4 * standard_deviation(expected);
    for (const bool quantized : {true, false}) {
      const std::vector<float> ours = logits_of_rows(model, quantized, row, tokens.size());
      EXPECT_LE(max_abs_difference(ours, expected), bound) << "row " << row << ", quantized " << quantized;
    }
    row += tokens.size();
  }
}

TEST_P(EveryArchitecture, StreamsOfUnchangedWeightsAreEqual) {
  WalkOptions rounded = exact_options();
  rounded.activations = DType::kBF16;
  WalkOptions fast = rounded;
  fast.arithmetic = linalg::fastest_arithmetic();
  for (const WalkOptions& options : {exact_options(), rounded, fast}) {
    WalkedModel model(GetParam(), some_tokens(kSequences, vocab_size_), options);
    for (size_t layer = 0; layer < model.num_layers(); ++layer) {
      const auto report = model.walk->walk(layer, {.known = {}, .quantize = keep_weights});
      ASSERT_TRUE(report) << to_string(report.error());
      EXPECT_EQ(report->stream_error, 0.0);
    }
    const size_t rows = model.data.num_tokens();
    EXPECT_EQ(model.rows(true, 0, rows), model.rows(false, 0, rows));
  }
}

// Both streams and all statistics of a walk with coarse weights.
struct Walked {
  std::vector<Shown> shown;
  std::vector<float> quantized;
  double stream_error = 0.0;
};

Walked walk_coarsely(WalkedModel& model) {
  Walked walked;
  for (size_t layer = 0; layer < model.num_layers(); ++layer) {
    const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
      walked.shown.push_back(copy_shown(seen, tasks));
      return round_coarsely(seen, tasks);
    };
    const auto report = model.walk->walk(layer, {.known = {}, .quantize = quantize});
    EXPECT_TRUE(report) << to_string(report.error());
    walked.stream_error = report->stream_error;
  }
  walked.quantized = model.rows(true, 0, model.data.num_tokens());
  return walked;
}

void expect_same(const Walked& ours, const Walked& other) {
  ASSERT_EQ(ours.shown.size(), other.shown.size());
  for (size_t i = 0; i < ours.shown.size(); ++i) {
    const Shown& a = ours.shown[i];
    const Shown& b = other.shown[i];
    EXPECT_EQ(a.modules, b.modules);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.gram.values, b.gram.values) << a.modules.front();
    EXPECT_EQ(a.mean_abs.values, b.mean_abs.values) << a.modules.front();
    for (const auto& [module, shift] : a.shift) {
      EXPECT_EQ(shift.values, b.shift.at(module).values) << module;
    }
  }
}

TEST_P(EveryArchitecture, AnyNumberOfThreadsGivesTheSameBits) {
  std::vector<Walked> walks;
  for (const size_t threads : {1u, 2u, 3u}) {
    WalkedModel model(GetParam(), some_tokens(kSequences, vocab_size_), exact_options(), threads);
    walks.push_back(walk_coarsely(model));
    expect_same(walks.back(), walks.front());
    EXPECT_EQ(walks.back().quantized, walks.front().quantized);
    EXPECT_EQ(walks.back().stream_error, walks.front().stream_error);
  }
}

TEST_P(EveryArchitecture, ActivationsInFilesGiveTheSameBits) {
  WalkOptions options = exact_options();
  options.activations = DType::kBF16;
  WalkedModel in_memory(GetParam(), some_tokens(kSequences, vocab_size_), options);
  const TemporaryFolder folder;
  options.spill = folder.path();
  WalkedModel in_files(GetParam(), some_tokens(kSequences, vocab_size_), options);
  const Walked expected = walk_coarsely(in_memory);
  const Walked ours = walk_coarsely(in_files);
  expect_same(ours, expected);
  EXPECT_EQ(ours.quantized, expected.quantized);
}

// A run that stopped inside the second block: its streams are loaded, and what was done is known.
TEST_P(EveryArchitecture, GoesOnWithKnownModulesWhereARunStopped) {
  WalkOptions options = exact_options();
  options.activations = DType::kBF16;
  WalkedModel whole(GetParam(), some_tokens(kSequences, vocab_size_), options);
  const Walked expected = walk_coarsely(whole);

  const TemporaryFolder folder;
  WalkedModel stopped(GetParam(), some_tokens(kSequences, vocab_size_), options);
  size_t in_first_block = 0;
  const auto count = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
    ++in_first_block;
    return round_coarsely(seen, tasks);
  };
  ASSERT_TRUE(stopped.walk->walk(0, {.known = {}, .quantize = count}));
  ASSERT_TRUE(stopped.walk->save(folder.path()));

  WalkedModel resumed(GetParam(), some_tokens(kSequences, vocab_size_), options);
  ASSERT_TRUE(resumed.walk->load(folder.path()));
  constexpr size_t kKnown = 3;
  size_t done = 0;
  const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
    const Shown shown = copy_shown(seen, tasks);
    EXPECT_EQ(shown.modules, expected.shown[in_first_block + done].modules);
    EXPECT_EQ(shown.empty, done < kKnown);
    if (done++ >= kKnown) {
      EXPECT_EQ(shown.gram.values, expected.shown[in_first_block + done - 1].gram.values);
    }
    return round_coarsely(seen, tasks);
  };
  const auto known = [&](std::span<const std::string>) { return done < kKnown; };
  for (size_t layer = 1; layer < resumed.num_layers(); ++layer) {
    const auto report = resumed.walk->walk(layer, {.known = known, .quantize = quantize});
    ASSERT_TRUE(report) << to_string(report.error());
  }
  EXPECT_EQ(resumed.rows(true, 0, resumed.data.num_tokens()), expected.quantized);
}

TEST(BlockWalk, NeedsTokens) {
  const auto files = find_model((data_folder() / "architectures" / "qwen2").string());
  const auto source = ModelSource::open(*files);
  ThreadPool pool(1);
  const CalibrationData data;
  BlockWalk walk(*source, data, exact_options(), pool);
  const Status started = walk.start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace nibble::test
