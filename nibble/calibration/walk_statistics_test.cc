// What a BlockWalk shows of a linear's input, against the formulas written out in double precision: H, M and
// D of docs/quantizers.md.

#include "nibble/calibration/test_walk.h"

namespace nibble::test {
namespace {

constexpr double kClose = 2e-4;  // float32 sums of a few dozen tokens, through one block
constexpr size_t kWalkedVocab = 256;

// Everything that one block's modules were shown, and the streams when they were.
struct BlockShown {
  Table before, float_before;  // the streams before the block
  std::map<std::string, Shown> shown;
  std::map<std::string, Table> stream, float_stream;  // when quantize() was called, by its first module

  const Shown& of(const std::string& module) const {
    for (const auto& [first, s] : shown) {
      if (std::find(s.modules.begin(), s.modules.end(), module) != s.modules.end()) return s;
    }
    ADD_FAILURE() << module;
    return shown.begin()->second;
  }
};

// Walks to the second block with coarse weights and shows that one.
BlockShown show_second_block(WalkedModel& model) {
  BlockShown block;
  const size_t tokens = model.data.num_tokens();
  EXPECT_TRUE(model.walk->walk(0, {.known = {}, .quantize = round_coarsely}));
  block.before = model.stream(true, tokens);
  block.float_before = model.stream(false, tokens);
  const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) -> Status {
    const std::string first = tasks.front().module;
    block.stream[first] = model.stream(true, tokens);
    block.float_stream[first] = model.stream(false, tokens);
    NIBBLE_RETURN_IF_ERROR(round_coarsely(seen, tasks));
    block.shown[first] = copy_shown(seen, tasks);
    return {};
  };
  const auto report = model.walk->walk(1, {.known = {}, .quantize = quantize});
  EXPECT_TRUE(report) << to_string(report.error());
  return block;
}

const std::string kBlock = "model.layers.1.";

Table norm_of(const WalkedModel& model, const std::string& name, const Table& stream) {
  return rms_norm(stream, model.tensor(kBlock + name + ".weight"), model.source.config.norm_eps);
}

Table mean_magnitudes(const Table& x) {
  Table mean(1, x.cols);
  for (size_t r = 0; r < x.rows; ++r) {
    for (size_t c = 0; c < x.cols; ++c) mean.at(0, c) += std::fabs(x.at(r, c)) / double(x.rows);
  }
  return mean;
}

// H, mean |x| and D = alpha W M for modules that read x, and x_float in the float model.
void expect_input(const Shown& shown, const Table& x, const Table& x_float, double alpha) {
  EXPECT_EQ(shown.tokens, x.rows);
  expect_close(shown.gram, mean_products(x, x), kClose, "H of " + shown.modules.front());
  expect_close(shown.mean_abs, mean_magnitudes(x), kClose, "mean of " + shown.modules.front());
  const Table mismatch = mean_products(minus(x_float, x), x);
  for (const std::string& module : shown.modules) {
    Table shift(shown.weight.at(module).rows, x.cols);
    for (size_t o = 0; o < shift.rows; ++o) {
      for (size_t i = 0; i < x.cols; ++i) {
        for (size_t c = 0; c < x.cols; ++c) {
          shift.at(o, c) += alpha * shown.weight.at(module).at(o, i) * mismatch.at(i, c);
        }
      }
    }
    expect_close(shown.shift.at(module), shift, 10 * kClose, "D of " + module);
  }
}

// Rows times 1 / root mean square of the stream's.
Table weighted(const Table& x, const Table& stream) {
  Table y = x;
  for (size_t r = 0; r < x.rows; ++r) {
    double sum = 0.0;
    for (size_t c = 0; c < stream.cols; ++c) sum += stream.at(r, c) * stream.at(r, c);
    for (size_t c = 0; c < x.cols; ++c) y.at(r, c) /= std::sqrt(sum / double(stream.cols));
  }
  return y;
}

struct Strength {
  double alpha, residual;
  bool token_weights;
};

class LlamaStatistics : public testing::TestWithParam<Strength> {};

INSTANTIATE_TEST_SUITE_P(Walk, LlamaStatistics,
                         testing::Values(Strength{1.0, 1.0, false}, Strength{0.5, 0.25, false},
                                         Strength{1.0, 1.0, true}));

TEST_P(LlamaStatistics, AreTheFormulas) {
  const Strength strength = GetParam();
  WalkOptions options = exact_options();
  options.alpha = strength.alpha;
  options.alpha_residual = strength.residual;
  options.token_weights = strength.token_weights;
  WalkedModel model("mistral_sliding", some_tokens(6, kWalkedVocab), options);
  const BlockShown block = show_second_block(model);

  expect_input(block.of(kBlock + "self_attn.q_proj"), norm_of(model, "input_layernorm", block.before),
               norm_of(model, "input_layernorm", block.float_before), strength.alpha);
  EXPECT_EQ(block.of(kBlock + "self_attn.q_proj").modules.size(), 3u);

  // The MLP reads the streams behind attention, which are there when gate and up are quantized.
  const std::string gate = kBlock + "mlp.gate_proj";
  const Table x = norm_of(model, "post_attention_layernorm", block.stream.at(gate));
  const Table x_float = norm_of(model, "post_attention_layernorm", block.float_stream.at(gate));
  expect_input(block.of(gate), x, x_float, strength.alpha);

  const Shown& first = block.of(gate);
  const std::string up = kBlock + "mlp.up_proj";
  const std::string down = kBlock + "mlp.down_proj";
  const Shown& last = block.of(down);
  Table inner = gated(x, first.result.at(gate), first.result.at(up));
  const Table inner_float = gated(x_float, first.weight.at(gate), first.weight.at(up));
  const Table ours = times_transposed(inner, last.weight.at(down));
  const Table theirs = times_transposed(inner_float, last.weight.at(down));
  Table target(ours.rows, ours.cols);
  for (size_t i = 0; i < target.values.size(); ++i) {
    target.values[i] =
        strength.alpha * (theirs.values[i] - ours.values[i]) +
        strength.residual * (block.float_stream.at(gate).values[i] - block.stream.at(gate).values[i]);
  }
  expect_close(last.mean_abs, mean_magnitudes(inner), kClose, "mean of down_proj");
  if (strength.token_weights) {
    inner = weighted(inner, block.float_stream.at(down));
    target = weighted(target, block.float_stream.at(down));
  }
  expect_close(last.gram, mean_products(inner, inner), kClose, "H of down_proj");
  expect_close(last.shift.at(down), mean_products(target, inner), 10 * kClose, "D of down_proj");
}

TEST(WalkStatistics, HaveNoShiftWithoutAFloatStream) {
  WalkOptions options = exact_options();
  options.float_stream = false;
  WalkedModel model("mistral_sliding", some_tokens(4, kWalkedVocab), options);
  const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
    for (const LinearTask& task : tasks) EXPECT_EQ(task.shift.data(), nullptr);
    return round_coarsely(seen, tasks);
  };
  const auto report = model.walk->walk(0, {.known = {}, .quantize = quantize});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->stream_error, 0.0) << "there is nothing to compare with";
}

// The first block's inputs are the same in both streams: nothing is to be repaired. What is left is the
// rounding of sums in float32, since a branch's last linear has its shift as the difference of two.
TEST(WalkStatistics, HaveNoShiftWhereTheStreamsAreEqual) {
  WalkedModel model("mistral_sliding", some_tokens(4, kWalkedVocab), exact_options());
  size_t calls = 0;
  const auto quantize = [&](const InputStatistics& seen, std::span<LinearTask> tasks) {
    const Shown shown = copy_shown(seen, tasks);
    for (const auto& [module, shift] : shown.shift) {
      for (const double v : shift.values) EXPECT_NEAR(v, 0.0, 1e-6) << module;
    }
    ++calls;
    return keep_weights(seen, tasks);
  };
  ASSERT_TRUE(model.walk->walk(0, {.known = {}, .quantize = quantize}));
  EXPECT_EQ(calls, 4u);
}

// phi: attention and MLP behind one norm; the MLP's last linear repairs what attention left.
TEST(ParallelStatistics, AreTheFormulas) {
  WalkOptions options = exact_options();
  options.token_weights = false;
  WalkedModel model("phi", some_tokens(6, kWalkedVocab), options);
  const BlockShown block = show_second_block(model);
  const Shown& first = block.of(kBlock + "self_attn.q_proj");
  const std::string fc1 = kBlock + "mlp.fc1";
  const std::string fc2 = kBlock + "mlp.fc2";
  EXPECT_THAT(first.modules, testing::ElementsAre(kBlock + "self_attn.q_proj", kBlock + "self_attn.k_proj",
                                                  kBlock + "self_attn.v_proj", fc1));
  const auto normed = [&](const Table& stream) {
    return layer_norm(stream, model.tensor(kBlock + "input_layernorm.weight"),
                      model.tensor(kBlock + "input_layernorm.bias"), model.source.config.norm_eps);
  };
  const Table x = normed(block.before);
  const Table x_float = normed(block.float_before);
  expect_input(first, x, x_float, 1.0);

  const auto inner_of = [&](const Table& in, const Table& weight) {
    return gelu_tanh(plus_bias(times_transposed(in, weight), model.tensor(fc1 + ".bias")));
  };
  const Table inner = inner_of(x, first.result.at(fc1));
  const Shown& last = block.of(fc2);
  expect_close(last.gram, mean_products(inner, inner), kClose, "H of fc2");
  // The float stream behind the block less the quantized one behind attention and fc2 as it was.
  const Table output = plus_bias(times_transposed(inner, last.weight.at(fc2)), model.tensor(fc2 + ".bias"));
  const Table target = minus(minus(block.float_stream.at(fc2), block.stream.at(fc2)), output);
  expect_close(last.shift.at(fc2), mean_products(target, inner), 10 * kClose, "D of fc2");
}

// mixtral: experts see the tokens that the quantized stream's router sends to them.
TEST(ExpertStatistics, AreTheFormulasOverRoutedTokens) {
  WalkOptions options = exact_options();
  options.alpha = 0.75;
  WalkedModel model("mixtral", some_tokens(8, kWalkedVocab), options);
  const BlockShown block = show_second_block(model);
  const std::string experts = kBlock + "block_sparse_moe.experts.";
  // All experts read the streams behind attention.
  const Table x = norm_of(model, "post_attention_layernorm", block.stream.at(experts + "0.w1"));
  const Table x_float = norm_of(model, "post_attention_layernorm", block.float_stream.at(experts + "0.w1"));
  const std::vector<float> router = model.tensor(kBlock + "block_sparse_moe.gate.weight");
  const Table scores =
      times_transposed(x, Table(MatrixView<const float>(router.data(), router.size() / x.cols, x.cols)));
  size_t tokens = 0;
  for (size_t e = 0; e < scores.cols; ++e) {
    std::vector<size_t> rows;
    for (size_t r = 0; r < scores.rows; ++r) {
      size_t better = 0;
      for (size_t other = 0; other < scores.cols; ++other) better += scores.at(r, other) > scores.at(r, e);
      if (better < model.source.spec.experts_per_token) rows.push_back(r);
    }
    ASSERT_FALSE(rows.empty());
    tokens += rows.size();
    const std::string in = experts + std::to_string(e);
    const Table routed = choose_rows(x, rows);
    const Table routed_float = choose_rows(x_float, rows);
    const Shown& first = block.of(in + ".w1");
    EXPECT_EQ(first.modules.size(), 2u);
    expect_input(first, routed, routed_float, options.alpha);
    const Table inner = gated(routed, first.result.at(in + ".w1"), first.result.at(in + ".w3"));
    const Table inner_float = gated(routed_float, first.weight.at(in + ".w1"), first.weight.at(in + ".w3"));
    expect_input(block.of(in + ".w2"), inner, inner_float, options.alpha);
  }
  EXPECT_EQ(tokens, scores.rows * model.source.spec.experts_per_token);
}

}  // namespace
}  // namespace nibble::test
