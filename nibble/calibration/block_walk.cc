#include "nibble/calibration/block_walk.h"

#include <algorithm>
#include <cmath>

#include "nibble/base/cancel.h"
#include "nibble/base/check.h"

namespace nibble {
namespace {

using linalg::gemm;

constexpr size_t kRowsPerTask = 8;

// Statistics of a residual stream that is all zeros would divide by it.
constexpr double kSmallestMeanSquare = 1e-20;

double sum_of_squares(MatrixView<const float> x) {
  double sum = 0.0;
  for (size_t r = 0; r < x.rows(); ++r) {
    for (const float v : x.row_span(r)) sum += double{v} * double{v};
  }
  return sum;
}

}  // namespace

// What the linears of one input have seen so far.
struct BlockWalk::Gathered {
  Gathered(size_t width, size_t mismatch_rows)
      : gram(width * width * sizeof(float)),
        mismatch(mismatch_rows * width * sizeof(float)),
        mean_abs(width),
        in(width),
        rows(mismatch_rows) {}

  MatrixView<float> gram_view() { return {gram.as<float>(), in, in}; }
  MatrixView<float> mismatch_view() { return {mismatch.as<float>(), rows, in}; }

  AlignedBuffer gram;      // [in, in], lower triangle until it is finished
  AlignedBuffer mismatch;  // M [in, in] of a first layer of a branch, D [out, in] of its last; or empty
  std::vector<float> mean_abs;
  size_t in;
  size_t rows;
  bool mismatch_is_shift = false;
  size_t tokens = 0;
};

struct BlockWalk::Block {
  BlockModules modules;
  DecoderBlock parts;     // norms, window
  ActivationStore inner;  // input of a branch's last linear, of the quantized stream
};

BlockWalk::BlockWalk(const ModelSource& source, const CalibrationData& data, const WalkOptions& options,
                     ThreadPool& pool)
    : source_(source), data_(data), options_(options), pool_(pool), context_{pool_, arena_} {
  for (size_t s = 0; s < data.sequences.size(); ++s) {
    if (groups_.empty() || groups_.back().rows >= options.tokens_at_once)
      groups_.push_back({num_tokens_, 0, s, 0});
    groups_.back().rows += data.sequences[s].size();
    ++groups_.back().sequences;
    num_tokens_ += data.sequences[s].size();
    longest_ = std::max(longest_, data.sequences[s].size());
  }
}

Expected<ActivationStore> BlockWalk::make_store(size_t width) const {
  const ActivationShape shape = {num_tokens_, width, options_.activations};
  if (options_.spill.empty()) return ActivationStore::in_memory(shape);
  return ActivationStore::in_file(shape, options_.spill);
}

WeightLoader BlockWalk::make_loader() const {
  return WeightLoader(source_.checkpoint, source_.slots, source_.quantized, source_.quantization,
                      {.linear = {.compute = ComputeMode::kF32},
                       .dtype = std::nullopt,
                       .norm_adds_one = source_.spec.names.norm_adds_one},
                      pool_);
}

std::vector<SequenceChunk> BlockWalk::chunks_of(const Group& group) const {
  std::vector<SequenceChunk> chunks;
  for (size_t i = 0; i < group.sequences; ++i) {
    chunks.push_back({data_.sequences[group.first_sequence + i], caches_[i].get(), 0, 0});
  }
  return chunks;
}

Status BlockWalk::for_groups(const std::function<Status(const Group&)>& fn) {
  for (const Group& group : groups_) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const Arena::Scope scope(arena_);
    NIBBLE_RETURN_IF_ERROR(fn(group));
  }
  return {};
}

Status BlockWalk::start() {
  WeightLoader loader = make_loader();
  NIBBLE_TRY(frame_, load_frame(source_.spec, source_.config, source_.prefix_missing, loader));
  size_t most = 0;
  for (const Group& group : groups_) most = std::max(most, group.sequences);
  const PretrainedConfig& config = source_.config;
  for (size_t i = 0; i < most; ++i) {
    caches_.push_back(
        std::make_unique<KvCache>(KvCacheShape{1, config.num_key_value_heads, config.head_dim}, longest_));
  }
  NIBBLE_TRY(quantized_, make_store(config.hidden_size));
  if (options_.float_stream) {
    NIBBLE_TRY(float_, make_store(config.hidden_size));
  }
  return for_groups([&](const Group& group) -> Status {
    const std::vector<SequenceChunk> chunks = chunks_of(group);
    const TokenBatch batch = make_token_batch(chunks, frame_.rope, frame_.rope_sliding, context_);
    const MatrixView<float> hidden = arena_.take_matrix(group.rows, config.hidden_size);
    embed_tokens(source_.spec, frame_, batch, hidden, context_);
    NIBBLE_RETURN_IF_ERROR(quantized_.write(group.first_row, hidden));
    if (options_.float_stream) NIBBLE_RETURN_IF_ERROR(float_.write(group.first_row, hidden));
    return {};
  });
}

Expected<BlockWalk::Linears> BlockWalk::load_linears(const std::vector<std::string>& modules) const {
  Linears linears;
  bool any_bias = false;
  std::vector<std::vector<float>> biases;
  for (const std::string& module : modules) {
    if (module.empty()) continue;
    NIBBLE_TRY(const std::vector<float> weight, source_.weight(module));
    NIBBLE_TRY(std::vector<float> bias, source_.bias(module));
    const Shape& shape = source_.slot(module).shape;
    linears.modules.push_back(module);
    linears.rows.push_back(shape[0]);
    linears.in = shape[1];
    linears.out += shape[0];
    linears.original.insert(linears.original.end(), weight.begin(), weight.end());
    any_bias = any_bias || !bias.empty();
    bias.resize(shape[0]);
    biases.push_back(std::move(bias));
  }
  linears.quantized = linears.original;
  if (any_bias) {
    for (const auto& bias : biases) linears.bias.insert(linears.bias.end(), bias.begin(), bias.end());
  }
  return linears;
}

void BlockWalk::apply(const Linears& linears, bool use_quantized, MatrixView<const float> x,
                      MatrixView<float> y) {
  gemm({x}, {linears.weight(use_quantized), true}, y, {.arithmetic = options_.arithmetic}, pool_);
  if (linears.bias.empty()) return;
  for (size_t r = 0; r < y.rows(); ++r) {
    for (size_t c = 0; c < y.cols(); ++c) y.row(r)[c] += linears.bias[c];
  }
}

Status BlockWalk::quantize(Linears& linears, Gathered& seen, const QuantizeLinears& quantize_linears) {
  const MatrixView<float> gram = seen.gram_view();
  const float scale = seen.tokens > 0 ? 1.f / static_cast<float>(seen.tokens) : 0.f;
  pool_.parallel_for(seen.in, kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c <= r; ++c) gram.row(r)[c] *= scale;
    }
  });
  linalg::mirror_lower(gram, pool_);
  for (float& v : seen.mean_abs) v *= scale;
  for (size_t i = 0; i < seen.in; ++i) {
    if (!std::isfinite(gram.row(i)[i])) {
      return fail(ErrorCode::kDataLoss, "its input {} is not finite for the calibration data", i)
          .at(linears.modules.front())
          .with_fix(
              "The model overflows: check that it gives sensible text, or calibrate with --compute f32.");
    }
  }
  std::vector<float> shift;
  if (seen.rows > 0) {
    shift.resize(linears.out * seen.in);
    const MatrixView<float> view(shift.data(), linears.out, seen.in);
    if (seen.mismatch_is_shift) {
      std::copy_n(seen.mismatch.as<float>(), shift.size(), shift.data());
    } else {
      gemm({linears.weight(false)}, {seen.mismatch_view()}, view, {}, pool_);
    }
    const float strength = scale * (seen.mismatch_is_shift ? 1.f : static_cast<float>(options_.alpha));
    for (float& v : shift) v *= strength;
  }
  std::vector<LinearTask> tasks;
  size_t row = 0;
  for (size_t i = 0; i < linears.modules.size(); ++i) {
    const size_t offset = row * linears.in;
    const size_t rows = linears.rows[i];
    MatrixView<const float> own_shift;
    if (!shift.empty()) own_shift = MatrixView<const float>(shift.data() + offset, rows, linears.in);
    tasks.push_back({linears.modules[i],
                     MatrixView<const float>(linears.original.data() + offset, rows, linears.in), own_shift,
                     MatrixView<float>(linears.quantized.data() + offset, rows, linears.in)});
    row += rows;
  }
  return quantize_linears({gram, seen.mean_abs, seen.tokens}, tasks);
}

void BlockWalk::branch_input(const Norm* norm, MatrixView<const float> residual, MatrixView<float> x) {
  if (source_.spec.norm_before_branch && norm != nullptr) {
    norm->forward(residual, x, context_);
  } else {
    for (size_t r = 0; r < x.rows(); ++r) std::copy_n(residual.row(r), x.cols(), x.row(r));
  }
}

// residual + out(branch), or in(residual + branch) for models that normalise after the addition.
void BlockWalk::finish_branch(const Norm* in, const Norm* out, MatrixView<float> branch,
                              MatrixView<float> residual) {
  if (out != nullptr) out->forward(branch, branch, context_);
  add_rows(branch, residual, context_);
  if (!source_.spec.norm_before_branch) in->forward(residual, residual, context_);
}

void BlockWalk::attend(const Block& block, const Group& group, MatrixView<float> qkv, MatrixView<float> out) {
  const Arena::Scope scope(arena_);
  const std::vector<SequenceChunk> chunks = chunks_of(group);
  for (const SequenceChunk& chunk : chunks) {
    chunk.cache->truncate(0);
    // max_tokens is the longest sequence: there is room.
    NIBBLE_CHECK(chunk.cache->reserve(chunk.tokens.size()).has_value());
  }
  const TokenBatch batch = make_token_batch(chunks, frame_.rope, frame_.rope_sliding, context_);
  attend_tokens({source_.spec, source_.config, block.parts, 0, false}, batch, qkv, out, context_);
}

namespace {

// Adds tokens to a Gram matrix; the rows of x have been weighted already.
void add_gram(MatrixView<const float> x, MatrixView<float> gram, linalg::Arithmetic arithmetic,
              ThreadPool& pool) {
  gemm({x, true}, {x}, gram, {.accumulate = true, .lower_triangle = true, .arithmetic = arithmetic}, pool);
}

// sums += aᵀ x over the tokens.
void add_products(MatrixView<const float> a, MatrixView<const float> x, MatrixView<float> sums,
                  linalg::Arithmetic arithmetic, ThreadPool& pool) {
  gemm({a, true}, {x}, sums, {.accumulate = true, .arithmetic = arithmetic}, pool);
}

void add_magnitudes(MatrixView<const float> x, std::span<float> sums) {
  std::vector<double> here(sums.size());
  for (size_t r = 0; r < x.rows(); ++r) {
    for (size_t c = 0; c < sums.size(); ++c) here[c] += std::fabs(x.row(r)[c]);
  }
  for (size_t c = 0; c < sums.size(); ++c) sums[c] += static_cast<float>(here[c]);
}

void subtract_rows(MatrixView<const float> x, MatrixView<float> y) {
  for (size_t r = 0; r < y.rows(); ++r) {
    for (size_t c = 0; c < y.cols(); ++c) y.row(r)[c] -= x.row(r)[c];
  }
}

// Rows of x and e times 1 / root mean square of the stream's row.
void weigh_rows(MatrixView<const float> stream, MatrixView<float> x, MatrixView<float> e) {
  for (size_t r = 0; r < x.rows(); ++r) {
    const double mean = sum_of_squares(stream.rows(r, 1)) / static_cast<double>(stream.cols());
    const auto weight = static_cast<float>(1.0 / std::sqrt(std::max(mean, kSmallestMeanSquare)));
    for (float& v : x.row_span(r)) v *= weight;
    for (float& v : e.row_span(r)) v *= weight;
  }
}

}  // namespace

// The first linears of a branch (q, k, v; gate and up) read the same normalised stream.
Status BlockWalk::first_linears(const Norm* norm, Linears& linears, const QuantizeLinears& quantize_linears) {
  Gathered seen(linears.in, options_.float_stream && options_.alpha > 0 ? linears.in : 0);
  const Status walked = for_groups([&](const Group& group) -> Status {
    const MatrixView<float> residual = arena_.take_matrix(group.rows, linears.in);
    const MatrixView<float> x = arena_.take_matrix(group.rows, linears.in);
    NIBBLE_RETURN_IF_ERROR(quantized_.read(group.first_row, residual));
    branch_input(norm, residual, x);
    add_gram(x, seen.gram_view(), options_.arithmetic, pool_);
    add_magnitudes(x, seen.mean_abs);
    seen.tokens += group.rows;
    if (seen.rows == 0) return {};
    const MatrixView<float> difference = arena_.take_matrix(group.rows, linears.in);
    NIBBLE_RETURN_IF_ERROR(float_.read(group.first_row, residual));
    branch_input(norm, residual, difference);
    subtract_rows(x, difference);
    add_products(difference, x, seen.mismatch_view(), options_.arithmetic, pool_);
    return {};
  });
  if (!walked) return Failure(walked.error());
  return quantize(linears, seen, quantize_linears);
}

// From the input of a branch to the input of its last linear, in place of it where they overlap.
void BlockWalk::inner_values(const Block& block, const Linears& first, bool attention, bool use_quantized,
                             const Group& group, MatrixView<const float> x, MatrixView<float> inner) {
  const Arena::Scope scope(arena_);
  const MatrixView<float> y = arena_.take_matrix(group.rows, first.out);
  apply(first, use_quantized, x, y);
  if (attention) {
    attend(block, group, y, inner);
    return;
  }
  const size_t width = inner.cols();
  const bool gated = first.out == 2 * width;
  const MatrixView<float> values = gated ? y.cols(width, width) : y;
  activate_rows(source_.spec.activation, gated ? y.cols(0, width) : MatrixView<float>(), values, context_);
  for (size_t r = 0; r < group.rows; ++r) std::copy_n(values.row(r), width, inner.row(r));
}

// The last linear of a branch (o_proj, down_proj) writes into the residual stream: its target is what the
// float stream is after the addition.
Status BlockWalk::last_linear(Block& block, const BranchNorms& norms, const Linears& first, bool attention,
                              Linears& last, const QuantizeLinears& quantize_linears) {
  const size_t hidden = source_.config.hidden_size;
  const bool shifted = options_.float_stream;
  // Behind a norm of the branch's output the sum with the residual is not linear in the weight.
  const bool with_residual = norms.out == nullptr;
  Gathered seen(last.in, shifted ? last.out : 0);
  seen.mismatch_is_shift = true;
  NIBBLE_TRY(block.inner, make_store(last.in));
  const Status walked = for_groups([&](const Group& group) -> Status {
    const MatrixView<float> residual = arena_.take_matrix(group.rows, hidden);
    const MatrixView<float> x = arena_.take_matrix(group.rows, hidden);
    const MatrixView<float> inner = arena_.take_matrix(group.rows, last.in);
    NIBBLE_RETURN_IF_ERROR(quantized_.read(group.first_row, residual));
    branch_input(norms.in, residual, x);
    inner_values(block, first, attention, true, group, x, inner);
    NIBBLE_RETURN_IF_ERROR(block.inner.write(group.first_row, inner));
    add_magnitudes(inner, seen.mean_abs);
    seen.tokens += group.rows;
    if (shifted) {
      const MatrixView<float> difference = arena_.take_matrix(group.rows, hidden);
      const MatrixView<float> stream = arena_.take_matrix(group.rows, hidden);
      NIBBLE_RETURN_IF_ERROR(float_.read(group.first_row, stream));
      {
        const Arena::Scope scope(arena_);
        const MatrixView<float> float_inner = arena_.take_matrix(group.rows, last.in);
        branch_input(norms.in, stream, x);
        inner_values(block, first, attention, false, group, x, float_inner);
        apply(last, false, float_inner, difference);
      }
      // difference: the float branch's output; minus what the quantized stream gives with this weight.
      apply(last, false, inner, x);
      const auto strength = static_cast<float>(with_residual ? options_.alpha_residual : 0.0);
      const auto alpha = static_cast<float>(options_.alpha);
      for (size_t r = 0; r < group.rows; ++r) {
        for (size_t c = 0; c < hidden; ++c) {
          const float branch = difference.row(r)[c];
          x.row(r)[c] = alpha * (branch - x.row(r)[c]) + strength * (stream.row(r)[c] - residual.row(r)[c]);
        }
      }
      finish_branch(norms.in, norms.out, difference, stream);
      NIBBLE_RETURN_IF_ERROR(float_.write(group.first_row, stream));
      if (options_.token_weights && with_residual) weigh_rows(stream, inner, x);
      add_products(x, inner, seen.mismatch_view(), options_.arithmetic, pool_);
    }
    add_gram(inner, seen.gram_view(), options_.arithmetic, pool_);
    return {};
  });
  if (!walked) return Failure(walked.error());
  NIBBLE_RETURN_IF_ERROR(quantize(last, seen, quantize_linears));
  return for_groups([&](const Group& group) -> Status {
    const MatrixView<float> residual = arena_.take_matrix(group.rows, hidden);
    const MatrixView<float> inner = arena_.take_matrix(group.rows, last.in);
    const MatrixView<float> branch = arena_.take_matrix(group.rows, hidden);
    NIBBLE_RETURN_IF_ERROR(quantized_.read(group.first_row, residual));
    NIBBLE_RETURN_IF_ERROR(block.inner.read(group.first_row, inner));
    apply(last, true, inner, branch);
    finish_branch(norms.in, norms.out, branch, residual);
    return quantized_.write(group.first_row, residual);
  });
}

Status BlockWalk::branch(Block& block, const BranchNorms& norms,
                         const std::vector<std::string>& first_modules, const std::string& last_module,
                         bool attention, const QuantizeLinears& quantize_linears) {
  NIBBLE_TRY(Linears first, load_linears(first_modules));
  NIBBLE_RETURN_IF_ERROR(first_linears(norms.in, first, quantize_linears));
  NIBBLE_TRY(Linears last, load_linears({last_module}));
  return last_linear(block, norms, first, attention, last, quantize_linears);
}

Expected<BlockReport> BlockWalk::walk(size_t layer, const WalkSteps& steps) {
  const QuantizeLinears& quantize_linears = steps.quantize;
  Block block;
  block.modules = block_modules(source_.spec, layer, source_.prefix_missing);
  if (source_.spec.names.parallel || source_.spec.num_experts > 0) {
    return fail(ErrorCode::kUnsupported, "model_type \"{}\" cannot be calibrated yet: {}",
                source_.config.model_type,
                source_.spec.names.parallel ? "its branches are parallel" : "it has experts")
        .with_fix("Methods without calibration data work: nf4, fp4, int8, rtn.");
  }
  WeightLoader loader = make_loader();
  NIBBLE_RETURN_IF_ERROR(
      load_block_norms(source_.spec, source_.config, layer, block.modules, loader, block.parts));
  const BlockModules& names = block.modules;
  const DecoderBlock& parts = block.parts;
  NIBBLE_RETURN_IF_ERROR(branch(block, {parts.attention_in_norm.get(), parts.attention_out_norm.get()},
                                {names.qkv, names.q, names.k, names.v}, names.o, true, quantize_linears));
  const MlpModules& mlp = names.mlps.front();
  NIBBLE_RETURN_IF_ERROR(branch(block, {parts.mlp_in_norm.get(), parts.mlp_out_norm.get()},
                                {mlp.gate_up, mlp.gate, mlp.up}, mlp.down, false, quantize_linears));
  return report();
}

Status BlockWalk::walk_head(const WalkSteps&) {
  return fail(ErrorCode::kUnsupported, "the head cannot be calibrated yet");
}
Expected<WalkCheck> BlockWalk::check() { return fail(ErrorCode::kUnsupported, "no check yet"); }
Status BlockWalk::gather_block(size_t, const std::function<Status(std::span<const BlockInput>)>&) {
  return fail(ErrorCode::kUnsupported, "whole blocks cannot be gathered yet");
}
Expected<double> BlockWalk::block_difference(const BlockReplacement&) {
  return fail(ErrorCode::kUnsupported, "whole blocks cannot be gathered yet");
}
Status BlockWalk::use_in_check(BlockReplacement) {
  return fail(ErrorCode::kUnsupported, "whole blocks cannot be gathered yet");
}

Expected<BlockReport> BlockWalk::report() {
  BlockReport report;
  if (!options_.float_stream) return report;
  double difference = 0.0;
  double size = 0.0;
  const Status walked = for_groups([&](const Group& group) -> Status {
    const MatrixView<float> q = arena_.take_matrix(group.rows, source_.config.hidden_size);
    const MatrixView<float> f = arena_.take_matrix(group.rows, source_.config.hidden_size);
    NIBBLE_RETURN_IF_ERROR(quantized_.read(group.first_row, q));
    NIBBLE_RETURN_IF_ERROR(float_.read(group.first_row, f));
    size += sum_of_squares(f);
    subtract_rows(f, q);
    difference += sum_of_squares(q);
    return {};
  });
  if (!walked) return Failure(walked.error());
  report.stream_error = size > 0 ? difference / size : 0.0;
  return report;
}

Status BlockWalk::stream(bool quantized, size_t first_row, MatrixView<float> values) const {
  return (quantized ? quantized_ : float_).read(first_row, values);
}

Status BlockWalk::save(const std::filesystem::path& folder) const {
  NIBBLE_RETURN_IF_ERROR(quantized_.save(folder / "quantized.activations"));
  if (!options_.float_stream) return {};
  return float_.save(folder / "float.activations");
}

Status BlockWalk::load(const std::filesystem::path& folder) {
  NIBBLE_RETURN_IF_ERROR(quantized_.load(folder / "quantized.activations"));
  if (!options_.float_stream) return {};
  return float_.load(folder / "float.activations");
}

}  // namespace nibble
