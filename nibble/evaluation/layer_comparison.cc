#include "nibble/evaluation/layer_comparison.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "nibble/base/arena.h"
#include "nibble/base/cancel.h"
#include "nibble/models/architecture.h"
#include "nibble/nn/kv_cache.h"

namespace nibble {
namespace {

constexpr size_t kMostBytes = size_t{64} << 20;  // of the reference's activations, kept at a time

// Sums over tokens, channel by channel, of two versions of one activation.
struct ChannelSums {
  std::vector<double> rr, cc, rc;  // reference^2, candidate^2, product

  void add(MatrixView<const float> reference, MatrixView<const float> candidate) {
    rr.resize(reference.cols());
    cc.resize(reference.cols());
    rc.resize(reference.cols());
    for (size_t t = 0; t < reference.rows(); ++t) {
      const float* const r = reference.row(t);
      const float* const c = candidate.row(t);
      for (size_t i = 0; i < reference.cols(); ++i) {
        rr[i] += double{r[i]} * r[i];
        cc[i] += double{c[i]} * c[i];
        rc[i] += double{r[i]} * c[i];
      }
    }
  }

  static double total(const std::vector<double>& values) {
    double sum = 0.0;
    for (const double v : values) sum += v;
    return sum;
  }

  double error(bool rescaled) const {
    double squares = 0.0;
    for (size_t i = 0; i < rr.size(); ++i) {
      // The best factor for the candidate's channel is rc / cc.
      squares += !rescaled ? rr[i] - 2 * rc[i] + cc[i] : cc[i] > 0 ? rr[i] - rc[i] * rc[i] / cc[i] : rr[i];
    }
    const double size = total(rr);
    return size > 0.0 ? std::sqrt(std::max(squares, 0.0) / size) : (squares > 0.0 ? 1.0 : 0.0);
  }

  double cosine() const {
    const double sizes = std::sqrt(total(rr) * total(cc));
    return sizes > 0.0 ? total(rc) / sizes : 1.0;
  }
};

struct Activation {
  std::vector<float> values;
  size_t cols = 0;

  MatrixView<const float> view() const { return {values.data(), values.size() / cols, cols}; }
};

Activation copy(MatrixView<const float> x) {
  Activation out;
  out.cols = x.cols();
  out.values.reserve(x.rows() * x.cols());
  for (size_t r = 0; r < x.rows(); ++r) out.values.insert(out.values.end(), x.row(r), x.row(r) + x.cols());
  return out;
}

// Keeps what the reference computes.
class Recorder final : public ForwardObserver {
 public:
  void linear(size_t, std::string_view, MatrixView<const float> x, MatrixView<const float> y) override {
    inputs.push_back(copy(x));
    outputs.push_back(copy(y));
  }
  void block(size_t, MatrixView<const float> hidden) override { blocks.push_back(copy(hidden)); }
  void clear() {
    inputs.clear();
    outputs.clear();
    blocks.clear();
  }

  std::vector<Activation> inputs, outputs;  // of the linears, in the order they ran
  std::vector<Activation> blocks;
};

struct LinearSums {
  size_t layer = 0;
  std::string name;
  ChannelSums input, output;
};

// Compares what the candidate computes with what was recorded, in the same order.
class Comparer final : public ForwardObserver {
 public:
  explicit Comparer(const Recorder& recorder) : recorder_(recorder) {}

  void linear(size_t layer, std::string_view name, MatrixView<const float> x,
              MatrixView<const float> y) override {
    const size_t i = next_linear_++;
    if (i >= recorder_.outputs.size() || recorder_.outputs[i].cols != y.cols() ||
        recorder_.inputs[i].cols != x.cols()) {
      mismatch = true;
      return;
    }
    if (i >= linears.size()) linears.push_back({layer, std::string(name), {}, {}});
    linears[i].input.add(recorder_.inputs[i].view(), x);
    linears[i].output.add(recorder_.outputs[i].view(), y);
  }
  void block(size_t layer, MatrixView<const float> hidden) override {
    if (layer >= recorder_.blocks.size() || recorder_.blocks[layer].cols != hidden.cols()) {
      mismatch = true;
      return;
    }
    if (layer >= blocks.size()) blocks.resize(layer + 1);
    blocks[layer].add(recorder_.blocks[layer].view(), hidden);
  }
  void rewind() { next_linear_ = 0; }

  bool mismatch = false;
  std::vector<LinearSums> linears;
  std::vector<ChannelSums> blocks;

 private:
  const Recorder& recorder_;
  size_t next_linear_ = 0;
};

Status run(const CausalLM& model, std::span<const int32_t> tokens, ForwardObserver& observer, KvCache& cache,
           ThreadPool& pool, Arena& arena) {
  ExecutionContext context{pool, arena, &observer};
  const SequenceChunk chunk = {tokens, &cache, /*num_logits=*/0, /*known_length=*/0};
  return model.forward_hidden({&chunk, 1}, {}, context);
}

size_t tokens_at_once(const PretrainedConfig& config) {
  const size_t attention = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
  const size_t width = 6 * config.hidden_size + 2 * attention + 4 * config.intermediate_size;
  const size_t bytes = std::max<size_t>(config.num_hidden_layers, 1) * width * sizeof(float);
  return std::clamp<size_t>(kMostBytes / bytes, 1, 256);
}

bool is_awq(const CausalLM& model) {
  return model.quantization_config() && quant_method(*model.quantization_config()) == "awq";
}

double median(std::vector<double> values) {
  const size_t half = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(half), values.end());
  return values[half];
}

// By comparison with the linears of the same name, some of which always lose more than others, and with all
// linears, since some kinds usually lose nothing at all.
std::string find_damage(const std::vector<LinearSums>& sums, const LayerComparison& comparison) {
  constexpr double kTimesItsKind = 5.0;
  constexpr double kTimesAll = 2.0;
  constexpr double kLeast = 0.1;
  std::map<std::string, std::vector<double>> kinds;
  std::vector<double> all;
  size_t i = 0;
  for (const LayerDifference& layer : comparison.layers) {
    for (const LinearDifference& linear : layer.linears) {
      kinds[sums[i++].name].push_back(linear.added());
      all.push_back(linear.added());
    }
  }
  if (all.empty()) return {};
  const double usual = std::max(kLeast, kTimesAll * median(all));
  i = 0;
  for (const LayerDifference& layer : comparison.layers) {
    for (const LinearDifference& linear : layer.linears) {
      const double limit = std::max(usual, kTimesItsKind * median(kinds[sums[i++].name]));
      if (linear.added() > limit) return linear.module;
    }
  }
  return {};
}

}  // namespace

double LinearDifference::added() const {
  return std::sqrt(std::max(0.0, error * error - input_error * input_error));
}

const LinearDifference* LayerDifference::worst() const {
  const auto worst = std::max_element(linears.begin(), linears.end(),
                                      [](const auto& a, const auto& b) { return a.added() < b.added(); });
  return worst == linears.end() ? nullptr : &*worst;
}

Expected<LayerComparison> compare_layers(const CausalLM& reference, const CausalLM& candidate,
                                         const TextWindows& text, size_t tokens, ThreadPool& pool) {
  Recorder recorder;
  Comparer comparer(recorder);
  Arena arena;
  const size_t at_once = tokens_at_once(reference.config());
  size_t left = tokens;
  for (const TextWindow& window : text.windows) {
    const size_t count = std::min(left, window.tokens.size());
    const auto reference_cache = reference.make_cache(count);
    const auto candidate_cache = candidate.make_cache(count);
    for (size_t begin = 0; begin < count; begin += at_once) {
      NIBBLE_RETURN_IF_ERROR(check_cancelled());
      const auto part = std::span(window.tokens).subspan(begin, std::min(at_once, count - begin));
      recorder.clear();
      comparer.rewind();
      NIBBLE_RETURN_IF_ERROR(run(reference, part, recorder, *reference_cache, pool, arena));
      NIBBLE_RETURN_IF_ERROR(run(candidate, part, comparer, *candidate_cache, pool, arena));
    }
    left -= count;
    if (left == 0) break;
  }
  if (comparer.mismatch || comparer.blocks.size() != recorder.blocks.size()) {
    return fail(ErrorCode::kInvalidArgument, "the two models have different blocks")
        .with_fix("Only models of one architecture and size can be compared layer by layer.");
  }

  NIBBLE_TRY(const DecoderSpec spec, make_decoder_spec(reference.config()));
  const bool rescaled = is_awq(candidate) != is_awq(reference);
  LayerComparison out;
  for (size_t layer = 0; layer < comparer.blocks.size(); ++layer) {
    const ChannelSums& block = comparer.blocks[layer];
    out.layers.push_back({layer, block.error(false), block.cosine(), {}});
  }
  for (const LinearSums& sums : comparer.linears) {
    LinearDifference linear;
    linear.module = fmt::format("{}.{}.{}", spec.names.layers, sums.layer, sums.name);
    linear.input_error = sums.input.error(rescaled);
    linear.error = sums.output.error(rescaled);
    out.layers[sums.layer].linears.push_back(std::move(linear));
  }
  out.damaged = find_damage(comparer.linears, out);
  return out;
}

Json to_json(const LayerComparison& comparison) {
  Json layers = Json::array();
  for (const LayerDifference& layer : comparison.layers) {
    Json row = {{"layer", layer.layer}, {"relative_error", layer.relative_error}, {"cosine", layer.cosine}};
    if (const LinearDifference* const worst = layer.worst()) {
      row["worst_linear"] = worst->module;
      row["worst_linear_error"] = worst->added();
    }
    Json linears = Json::array();
    for (const LinearDifference& linear : layer.linears) {
      linears.push_back({{"module", linear.module},
                         {"input_error", linear.input_error},
                         {"error", linear.error},
                         {"added", linear.added()}});
    }
    row["linears"] = std::move(linears);
    layers.push_back(std::move(row));
  }
  return layers;
}

}  // namespace nibble
