#include "nibble/pipeline/awq_block.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>

#include "nibble/base/cancel.h"
#include "nibble/base/check.h"
#include "nibble/quantizers/all_finite.h"
#include "nibble/quantizers/quadratic_forms.h"

namespace nibble {
namespace {

constexpr size_t kRows = 1024;       // of a weight whose errors are held at once
constexpr size_t kRowsPerTask = 16;  // of a Gram matrix

// An exact fold changes a weight and a norm by half a unit of float32 each, and the order of magnitude in
// which a dot product of n terms is rounded: about sqrt(n) 2^-24 relative, 1e-5 for 30,000 inputs, times
// the half-dozen products of a block. A fold that forgets one channel of 4096 whose scale is 1.5 changes
// the output by 0.5 / sqrt(4096) = 8e-3.
constexpr double kProofTolerance = 1e-4;

// AutoAWQ clips no linear with one of these in its name inside the block. Every expert of Mixtral is
// among them ("block_sparse_moe").
constexpr std::array<std::string_view, 5> kNeverClipped = {"q_", "k_", "query", "key", "Wqkv"};

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A group with what was found for it.
struct GroupScales {
  ScaleGroup group;
  std::optional<AwqScales> found;  // nothing: it stays as it is
};

struct Block {
  const ModelSource& source;
  std::span<const AwqInput> inputs;
  const AwqBlockOptions& options;
  ThreadPool& pool;
  std::string prefix = {};  // "model.layers.3."
  std::vector<GroupScales> groups = {};
};

// mean |x| and Gram matrix of what a group reads. Experts see their own tokens each: of their inputs the
// mean over all tokens.
struct GroupInput {
  MatrixView<const float> gram;
  std::span<const float> mean_abs;
  std::vector<float> gram_sum = {}, mean_abs_sum = {};  // where there are several
};

std::optional<GroupInput> shared_input(const Block& block, const ScaleGroup& group) {
  std::vector<const AwqInput*> seen;
  size_t tokens = 0;
  for (const AwqInput& input : block.inputs) {
    if (!contains(group.layers, input.modules.front())) continue;
    for (const std::string& module : input.modules) NIBBLE_CHECK(contains(group.layers, module));
    if (input.tokens == 0) continue;
    seen.push_back(&input);
    tokens += input.tokens;
  }
  if (seen.empty()) return std::nullopt;
  if (seen.size() == 1) return GroupInput{seen.front()->gram, seen.front()->mean_abs};
  const size_t n = seen.front()->mean_abs.size();
  GroupInput shared;
  shared.gram_sum.resize(n * n);
  shared.mean_abs_sum.resize(n);
  for (const AwqInput* const input : seen) {
    const float share = static_cast<float>(input->tokens) / static_cast<float>(tokens);
    block.pool.parallel_for(n, kRowsPerTask, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        shared.mean_abs_sum[r] += share * input->mean_abs[r];
        for (size_t c = 0; c < n; ++c) shared.gram_sum[r * n + c] += share * input->gram.row(r)[c];
      }
    });
  }
  shared.gram = {shared.gram_sum.data(), n, n};
  shared.mean_abs = shared.mean_abs_sum;
  return shared;
}

double sum_of_forms(MatrixView<const float> rows, MatrixView<const float> gram, ThreadPool& pool) {
  std::vector<double> sums(rows.rows());
  quadratic_forms(rows, gram, sums, pool);
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// One over the mean square of each linear's outputs, so that their errors count relative to them. What a
// block computes does not change when v is halved and o doubled, or q and k: with plain squares the
// choice of scales would.
std::vector<double> importance_of(std::span<const MatrixView<const float>> weights,
                                  MatrixView<const float> gram, ThreadPool& pool) {
  std::vector<double> importance;
  for (const MatrixView<const float>& weight : weights) {
    const double size = sum_of_forms(weight, gram, pool);
    importance.push_back(size > 0.0 ? static_cast<double>(weight.rows()) / size : 0.0);
  }
  return importance;
}

// Nothing where no linear of the group is quantized or none saw a token.
Expected<std::optional<AwqScales>> search_scales(const Block& block, const ScaleGroup& group,
                                                 FoldedBlock& tensors) {
  std::vector<MatrixView<const float>> weights;
  for (const std::string& module : group.layers) {
    if (block.options.skipped.contains(module)) continue;
    NIBBLE_TRY(weights.emplace_back(), tensors.weight(module));
  }
  if (weights.empty()) return std::optional<AwqScales>();
  const std::optional<GroupInput> input = shared_input(block, group);
  if (!input) return std::optional<AwqScales>();
  const std::vector<double> importance = importance_of(weights, input->gram, block.pool);
  NIBBLE_TRY(AwqScales scales,
             at(group.layers.front(), search_awq_scales(weights, input->gram, input->mean_abs,
                                                        block.options.search, block.pool, importance)));
  return std::optional(std::move(scales));
}

std::string_view name_of(const ScaleGroup& group) {
  if (!group.norm.empty()) return group.norm;
  return group.producer.empty() ? group.activation : group.producer;
}

// Which group is to blame for a fold that changed the block: the worst one alone.
Failure fold_failed(const Block& block, double difference, const ProveFold& prove) {
  std::string_view worst = "all of them together";
  double most = kProofTolerance;
  for (const GroupScales& group : block.groups) {
    if (!group.found) continue;
    FoldedBlock alone(block.source);
    if (!alone.fold(group.group, group.found->scales, block.pool)) continue;
    const Expected<double> own = prove(alone.changed());
    const double change = !own ? 0.0 : std::isnan(*own) ? std::numeric_limits<double>::infinity() : *own;
    if (change <= most) continue;
    most = change;
    worst = name_of(group.group);
  }
  return fail(ErrorCode::kDataLoss,
              "folding AWQ's scales changes the block's output by {:.2g} of its size, more than {:.0e}; the "
              "group to blame: {}",
              difference, kProofTolerance, worst)
      .at(std::string_view(block.prefix).substr(0, block.prefix.size() - 1))
      .with_fix(
          "The block does not compute what Nibble thinks it does, or the model overflows: please report "
          "it, and quantize with --method gptq, which folds nothing.");
}

// Folds all groups in order; found->scales become those that were taken.
Expected<double> fold_all(Block& block, FoldedBlock& tensors, const ProveFold& prove) {
  for (GroupScales& group : block.groups) {
    if (!group.found) continue;
    NIBBLE_TRY(group.found->scales, tensors.fold(group.group, group.found->scales, block.pool));
  }
  if (tensors.changed().empty()) return 0.0;
  NIBBLE_TRY(const double difference, prove(tensors.changed()));
  if (!(difference <= kProofTolerance)) return fold_failed(block, difference, prove);
  return difference;
}

const GroupScales* group_of(const Block& block, const std::string& module) {
  for (const GroupScales& group : block.groups) {
    if (group.found && contains(group.group.layers, module)) return &group;
  }
  return nullptr;
}

// The Gram matrix of inputs that were divided by scales.
std::vector<float> scaled_gram(MatrixView<const float> gram, std::span<const float> scales,
                               ThreadPool& pool) {
  const size_t n = scales.size();
  std::vector<float> scaled(n * n);
  pool.parallel_for(n, kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < n; ++c) scaled[r * n + c] = gram.row(r)[c] / (scales[r] * scales[c]);
    }
  });
  return scaled;
}

double relative_error(const QuantizedWeight& quantized, MatrixView<const float> weight,
                      MatrixView<const float> gram, ThreadPool& pool) {
  std::vector<float> errors(std::min(kRows, weight.rows()) * weight.cols());
  double error = 0.0;
  double size = 0.0;
  for (size_t first = 0; first < weight.rows(); first += kRows) {
    const MatrixView<const float> part = weight.rows(first, std::min(kRows, weight.rows() - first));
    pool.parallel_for(part.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
      float* const out = errors.data() + begin * weight.cols();
      dequantize_rows(quantized, first + begin, first + end, out);
      for (size_t r = begin; r < end; ++r) {
        for (size_t c = 0; c < weight.cols(); ++c) errors[r * weight.cols() + c] -= part.row(r)[c];
      }
    });
    error += sum_of_forms({errors.data(), part.rows(), part.cols()}, gram, pool);
    size += sum_of_forms(part, gram, pool);
  }
  return size > 0.0 ? error / size : 0.0;
}

bool is_clipped(const Block& block, const std::string& module) {
  const std::string_view inside = std::string_view(module).substr(block.prefix.size());
  return std::none_of(kNeverClipped.begin(), kNeverClipped.end(),
                      [&](std::string_view part) { return inside.find(part) != std::string_view::npos; });
}

// AutoAWQ holds scaled weights in float16.
Expected<std::vector<float>> half_weight(MatrixView<const float> weight, ThreadPool& pool) {
  std::vector<float> values(weight.rows() * weight.cols());
  pool.parallel_for(weight.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < weight.cols(); ++c) {
        values[r * weight.cols() + c] = rounded_to(DType::kF16, weight.row(r)[c]);
      }
    }
  });
  if (all_finite({values.data(), weight.rows(), weight.cols()}, pool)) return values;
  return fail(ErrorCode::kDataLoss, "with AWQ's scales a weight is more than float16 holds")
      .with_fix("AWQ stores float16: add the module to modules_to_not_convert.");
}

// gram: of the (scaled) input; empty where it saw no token.
Expected<QuantizedWeight> clip_and_round(const Block& block, const std::string& module,
                                         MatrixView<const float> weight, MatrixView<const float> gram) {
  NIBBLE_TRY(std::vector<float> values, at(module, half_weight(weight, block.pool)));
  const MatrixView<float> view(values.data(), weight.rows(), weight.cols());
  const AwqSettings& settings = block.options.search;
  if (gram.data() != nullptr && is_clipped(block, module)) {
    const std::vector<float> clips = search_awq_clips(view, gram, settings, block.pool);
    apply_awq_clips(view, clips, settings.group_size, block.pool);
  }
  return quantize_awq(view, settings, block.pool);
}

Status quantize_input(const Block& block, const AwqInput& input, FoldedBlock& tensors,
                      AwqBlockResult& result) {
  const GroupScales* const group = group_of(block, input.modules.front());
  MatrixView<const float> gram = input.tokens > 0 ? input.gram : MatrixView<const float>();
  std::vector<float> scaled;
  if (group != nullptr && input.tokens > 0) {
    scaled = scaled_gram(gram, group->found->scales, block.pool);
    gram = {scaled.data(), gram.rows(), gram.cols()};
  }
  for (const std::string& module : input.modules) {
    if (block.options.skipped.contains(module)) continue;
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    NIBBLE_TRY(const MatrixView<const float> weight, tensors.weight(module));
    NIBBLE_TRY(QuantizedWeight quantized, clip_and_round(block, module, weight, gram));
    AwqModule row = {module, weight.rows(), weight.cols(), input.tokens};
    if (group != nullptr) {
      row.scaled = true;
      row.ratio = group->found->ratio;
      row.loss = group->found->loss;
      row.loss_unscaled = group->found->loss_unscaled;
    }
    if (gram.data() != nullptr) row.relative_error = relative_error(quantized, weight, gram, block.pool);
    result.modules.push_back(std::move(row));
    result.weights.emplace(module, std::move(quantized));
  }
  return {};
}

// What stays in floating point of what the folds have changed.
Expected<FloatTensors> float_tensors(const Block& block, FloatTensors changed,
                                     const std::map<std::string, QuantizedWeight>& quantized) {
  for (const auto& [module, weight] : quantized) changed.erase(module + ".weight");
  for (const auto& [name, values] : changed) {
    const TensorInfo* const info = block.source.checkpoint->find(name);
    const DType dtype = info != nullptr ? info->dtype : DType::kF16;  // of a weight that was codes
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isfinite(rounded_to(dtype, values[i]))) continue;
      return fail(ErrorCode::kDataLoss, "with AWQ's scales element {} is {:.3g}, more than {} holds", i,
                  values[i], dtype_name(dtype))
          .at(name)
          .with_fix("Take the model's BF16 or F32 files, or quantize with --method gptq.");
    }
  }
  return changed;
}

}  // namespace

Expected<AwqBlockResult> quantize_awq_block(const ModelSource& source, size_t layer,
                                            std::span<const AwqInput> inputs, const AwqBlockOptions& options,
                                            const ProveFold& prove, ThreadPool& pool) {
  Block block = {source, inputs, options, pool};
  const BlockModules modules = block_modules(source.spec, layer, source.prefix_missing);
  block.prefix = modules.prefix;
  FoldedBlock tensors(source);
  for (ScaleGroup& group : scale_groups(source.spec, modules, source.slots)) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    NIBBLE_TRY(std::optional<AwqScales> found, search_scales(block, group, tensors));
    block.groups.push_back({std::move(group), std::move(found)});
  }
  AwqBlockResult result;
  NIBBLE_TRY(result.proof, fold_all(block, tensors, prove));
  for (const AwqInput& input : inputs) {
    NIBBLE_RETURN_IF_ERROR(quantize_input(block, input, tensors, result));
  }
  NIBBLE_TRY(result.folded, float_tensors(block, std::move(tensors).take_changed(), result.weights));
  return result;
}

}  // namespace nibble
