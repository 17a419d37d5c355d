// Whole blocks under a BlockWalk, for methods that fold scales.

#include <algorithm>

#include "nibble/calibration/test_walk.h"
#include "nibble/models/load_weights.h"

namespace nibble::test {
namespace {

constexpr size_t kGatheredVocab = 256;
constexpr size_t kGathered = 6;

WalkOptions one_stream() {
  WalkOptions options = exact_options();
  options.float_stream = false;
  return options;
}

class EveryGather : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Walk, EveryGather, testing::ValuesIn(architecture_names()),
                         [](const auto& test) { return test.param; });

struct Gathered {
  size_t tokens = 0;
  Table gram, mean_abs;
};

// The same inputs as walk() shows with unchanged weights, and the same stream behind each block.
TEST_P(EveryGather, SeesWhatTheWalkSees) {
  WalkedModel walked(GetParam(), some_tokens(kGathered, kGatheredVocab), one_stream());
  std::map<std::vector<std::string>, Gathered> expected;
  walked.walk_all([&](const InputStatistics& seen, std::span<LinearTask> tasks) -> Status {
    const Shown shown = copy_shown(seen, tasks);
    expected[shown.modules] = {shown.tokens, shown.gram, shown.mean_abs};
    return {};
  });
  WalkedModel model(GetParam(), some_tokens(kGathered, kGatheredVocab), one_stream());
  size_t routers = 0;
  for (size_t layer = 0; layer < model.num_layers(); ++layer) {
    const Status done = model.walk->gather_block(layer, [&](std::span<const BlockInput> inputs) -> Status {
      for (const BlockInput& input : inputs) {
        const bool router = model.source.slot(input.modules.front()).role == ModuleRole::kRouter;
        routers += router ? 1 : 0;
        if (router) {
          EXPECT_EQ(input.seen.tokens, model.data.num_tokens());
          continue;
        }
        const auto found = expected.find(input.modules);
        if (found == expected.end()) {
          ADD_FAILURE() << input.modules.front();
          continue;
        }
        EXPECT_EQ(input.seen.tokens, found->second.tokens);
        expect_close(Table(input.seen.gram), found->second.gram, 1e-5, input.modules.front());
        const MatrixView<const float> mean(input.seen.mean_abs.data(), 1, input.seen.mean_abs.size());
        expect_close(Table(mean), found->second.mean_abs, 1e-5, input.modules.front());
        expected.erase(found);
      }
      return {};
    });
    ASSERT_TRUE(done) << to_string(done.error());
  }
  EXPECT_TRUE(expected.empty()) << "an input was not gathered";
  const std::vector<bool>& sparse = model.source.spec.sparse;
  EXPECT_EQ(routers, static_cast<size_t>(std::count(sparse.begin(), sparse.end(), true)));
  const size_t rows = model.data.num_tokens();
  EXPECT_EQ(model.rows(true, 0, rows), walked.rows(true, 0, rows));
}

// A fold of scales into the norm before the first input, and out of all that read it; or of one alone.
BlockReplacement fold_into_norm(const WalkedModel& model, size_t layer, std::span<const BlockInput> inputs,
                                bool right) {
  const ModelSource& source = model.source;
  const std::string norm = block_modules(source.spec, layer, source.prefix_missing).prefix +
                           std::string(source.spec.names.block.attention_in_norm);
  const auto scale = [](size_t i) { return 1.f + 0.25f * static_cast<float>(i % 4); };
  const float one = source.spec.names.norm_adds_one ? 1.f : 0.f;
  BlockReplacement fold;
  std::vector<float>& weight = fold.tensors[norm + ".weight"] = model.tensor(norm + ".weight");
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = (weight[i] + one) / scale(i) - one;
  if (source.checkpoint->find(norm + ".bias") != nullptr) {
    std::vector<float>& bias = fold.tensors[norm + ".bias"] = model.tensor(norm + ".bias");
    for (size_t i = 0; i < bias.size(); ++i) bias[i] /= scale(i);
  }
  for (const std::string& module : inputs.front().modules) {
    std::vector<float> values = *source.weight(module);
    for (size_t i = 0; i < values.size(); ++i) values[i] *= scale(i % weight.size());
    fold.tensors[module + ".weight"] = std::move(values);
    if (!right) break;  // the other readers are forgotten
  }
  return fold;
}

TEST_P(EveryGather, AFoldIntoTheFirstNormChangesNothing) {
  WalkedModel model(GetParam(), some_tokens(kGathered, kGatheredVocab), one_stream());
  const DecoderSpec& spec = model.source.spec;
  const bool folds =
      spec.norm_before_branch && spec.names.norm_weight && !spec.names.block.attention_in_norm.empty();
  for (size_t layer = 0; layer < model.num_layers(); ++layer) {
    const Status done = model.walk->gather_block(layer, [&](std::span<const BlockInput> inputs) -> Status {
      NIBBLE_TRY(const double unchanged, model.walk->block_difference({}));
      EXPECT_EQ(unchanged, 0.0);
      if (!folds) return {};
      NIBBLE_TRY(const double right,
                 model.walk->block_difference(fold_into_norm(model, layer, inputs, true)));
      EXPECT_LT(right, 1e-6);
      if (inputs.front().modules.size() == 1) return {};
      NIBBLE_TRY(const double wrong,
                 model.walk->block_difference(fold_into_norm(model, layer, inputs, false)));
      EXPECT_GT(wrong, 1e-5);
      return {};
    });
    ASSERT_TRUE(done) << to_string(done.error());
  }
}

TEST(GatherBlock, SaysWhichTensorIsWrong) {
  WalkedModel model("qwen3", some_tokens(kGathered, kGatheredVocab), one_stream());
  const std::string unknown = "model.layers.1.mlp.up_proj.weight";
  const std::string known = "model.layers.0.mlp.up_proj.weight";
  const Status done = model.walk->gather_block(0, [&](std::span<const BlockInput>) -> Status {
    const auto other = model.walk->block_difference({{{unknown, std::vector<float>(8)}}});
    const auto size = model.walk->block_difference({{{known, std::vector<float>(8)}}});
    EXPECT_EQ(other.error().where, unknown);
    EXPECT_EQ(size.error().where, known);
    EXPECT_EQ(other.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(size.error().code, ErrorCode::kInvalidArgument);
    return {};
  });
  EXPECT_TRUE(done);
  EXPECT_EQ(model.walk->block_difference({}).error().code, ErrorCode::kInvalidArgument)
      << "outside of fn there is no block";
}

TEST(GatherBlock, EndsWithTheErrorOfItsFunction) {
  WalkedModel model("qwen3", some_tokens(kGathered, kGatheredVocab), one_stream());
  const Status done = model.walk->gather_block(
      0, [](std::span<const BlockInput>) -> Status { return fail(ErrorCode::kUnavailable, "full"); });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().what, "full");
}

}  // namespace
}  // namespace nibble::test
