#include "nibble/nn/quantized_linear.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <utility>

#include "nibble/kernels/dense.h"
#include "nibble/kernels/packed_rows.h"
#include "nibble/kernels/quantize_inputs.h"
#include "nibble/kernels/strip_matrix.h"
#include "nibble/kernels/strips.h"
#include "nibble/nn/linear_dense.h"

namespace nibble {
namespace {

std::string_view formula_name(WeightFormula formula) {
  switch (formula) {
    case WeightFormula::kAffine:
    case WeightFormula::kOffset:
      return "int";
    case WeightFormula::kCodebook:
      return "codebook";
    case WeightFormula::kRowAbsmax:
      return "llm-int";
  }
  return "";
}

// The same name for a kernel of either class: "int4-a8-avx2".
std::string kernel_name(const QuantizedWeight& weight, std::string_view activations, CpuTarget target) {
  return fmt::format("{}{}-{}-{}", formula_name(weight.formula), weight.bits, activations,
                     cpu_target_name(target));
}

// Immutable.
class FloatLinear : public Linear {
 public:
  FloatLinear(const QuantizedWeight& weight, std::vector<float> bias, ThreadPool& pool, CpuTarget target)
      : rows_(weight, pool),
        bias_(std::move(bias)),
        target_(target),
        name_(kernel_name(weight, "f32", target)) {}

  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const override {
    const Arena::Scope scope(context.arena);
    x = ordered(x, context.arena);
    const size_t step = kernels::dense_rows_per_call(in_features(), sizeof(float));
    const size_t tile_size = step * in_features();
    const size_t workers = context.pool.num_threads();
    float* const tiles = context.arena.take<float>(workers * tile_size);
    uint8_t* const codes = context.arena.take<uint8_t>(workers * rows_.scratch_bytes());
    context.pool.parallel_for(out_features(), step, [&](size_t begin, size_t end, size_t worker) {
      float* const tile = tiles + worker * tile_size;
      for (size_t n = begin; n < end; n += step) {
        const size_t count = std::min(step, end - n);
        rows_.dequantize(n, n + count, tile, codes + worker * rows_.scratch_bytes(), target_);
        kernels::dense_product({DType::kF32, tile, count, in_features()}, x, y.cols(n, count), target_);
        add_bias(bias_, n, y.cols(n, count));
      }
    });
  }

  size_t in_features() const override { return rows_.in_features(); }
  size_t out_features() const override { return rows_.out_features(); }
  size_t weight_bytes() const override { return rows_.bytes(); }
  std::string_view kernel() const override { return name_; }

 private:
  // x with its columns in the order of the weight's.
  MatrixView<const float> ordered(MatrixView<const float> x, Arena& arena) const {
    if (rows_.order().empty()) return x;
    const MatrixView<float> sorted = arena.take_matrix(x.rows(), x.cols());
    for (size_t t = 0; t < x.rows(); ++t) kernels::gather(x.row_span(t), rows_.order(), sorted.row(t));
    return sorted;
  }

  const kernels::PackedRows rows_;
  const std::vector<float> bias_;
  const CpuTarget target_;
  const std::string name_;
};

// Immutable.
class Int8Linear : public Linear {
 public:
  Int8Linear(const QuantizedWeight& weight, std::vector<float> bias, ThreadPool& pool,
             ActivationBits activations, CpuTarget target)
      : strips_(weight, pool, activations == ActivationBits::k16 ? kernels::kMostBlocksOf16Bits : 1),
        rows_per_token_(activations == ActivationBits::k16 ? 2 : 1),
        bias_(std::move(bias)),
        target_(target),
        name_(kernel_name(weight, activations == ActivationBits::k16 ? "a16" : "a8", target)) {}

  void forward(MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) const override {
    const LinearOutput output = {this, y};
    forward_together({&output, 1}, x, context);
  }

  // Whether quantized activations for this layer are those for the other, too.
  bool shares_inputs(const Int8Linear& other) const {
    const kernels::Strips a = strips_.view();
    const kernels::Strips b = other.strips_.view();
    const bool nibbles = a.form != kernels::CodeForm::kBytes;
    return rows_per_token_ == other.rows_per_token_ && nibbles == (b.form != kernels::CodeForm::kBytes) &&
           std::ranges::equal(a.span_ends, b.span_ends) && std::ranges::equal(a.group_ends, b.group_ends) &&
           std::ranges::equal(strips_.positions(), other.strips_.positions());
  }

  // All outputs are Int8Linear, and share this one's inputs.
  void forward_together(std::span<const LinearOutput> outputs, MatrixView<const float> x,
                        ExecutionContext& context) const {
    const Arena::Scope scope(context.arena);
    const Inputs inputs = quantize(x, strips_.view(), context);
    const size_t piece = kernels::strips_per_call(strips_.view(), inputs.tokens.rows, target_);
    const ScratchOfAll scratch(*this, inputs, piece, context);
    size_t* const counts = context.arena.take<size_t>(outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i)
      counts[i] = of(*outputs[i].linear).strips_.view().num_strips();
    const auto multiply = [&](size_t layer, size_t begin, size_t end, size_t worker) {
      const Int8Linear& linear = of(*outputs[layer].linear);
      for (size_t from = begin; from < end; from += piece) {
        const size_t to = std::min(from + piece, end);
        linear.product(inputs, from, to, linear.columns(outputs[layer].y, from, to), scratch.of(worker));
      }
    };
    context.pool.parallel_for_parts({counts, outputs.size()}, piece, multiply);
  }

  // y = activation(this(x)) * up(x); up has this one's shape and shares its inputs.
  void forward_gated(const Int8Linear& up, kernels::Activation activation, MatrixView<const float> x,
                     MatrixView<float> y, ExecutionContext& context) const {
    const Arena::Scope scope(context.arena);
    const Inputs inputs = quantize(x, strips_.view(), context);
    const size_t piece = kernels::strips_per_call(strips_.view(), inputs.tokens.rows, target_);
    const ScratchOfAll scratch(*this, inputs, piece, context);
    const size_t gate_size = x.rows() * piece * kStripOutputs;
    float* const gates = context.arena.take<float>(context.pool.num_threads() * gate_size);
    const auto multiply = [&](size_t begin, size_t end, size_t worker) {
      for (size_t from = begin; from < end; from += piece) {
        const size_t to = std::min(from + piece, end);
        const MatrixView<float> out = columns(y, from, to);
        const MatrixView<float> gate(gates + worker * gate_size, x.rows(), out.cols());
        product(inputs, from, to, gate, scratch.of(worker));
        up.product(inputs, from, to, out, scratch.of(worker));
        for (size_t t = 0; t < x.rows(); ++t) {
          kernels::activate_and_multiply(activation, gate.row(t), out.row(t), out.cols(), out.row(t),
                                         target_);
        }
      }
    };
    context.pool.parallel_for(strips_.view().num_strips(), piece, multiply);
  }

  size_t in_features() const override { return strips_.in_features(); }
  size_t out_features() const override { return strips_.view().out_features; }
  size_t weight_bytes() const override { return strips_.bytes(); }
  std::string_view kernel() const override { return name_; }

 private:
  static constexpr size_t kStripOutputs = kernels::kStripOutputs;

  static const Int8Linear& of(const Linear& linear) { return static_cast<const Int8Linear&>(linear); }

  // All tokens, and of spiky ones what these rows leave of them.
  struct Inputs {
    kernels::QuantizedInputs tokens;
    kernels::QuantizedInputs rest;
    std::span<const uint32_t> spiky;  // [rest.rows], ascending
  };

  // Of one worker.
  struct Scratch {
    uint8_t* unpacked;
    float* sums;  // [rest.rows, outputs of a piece]
  };

  // Of all workers, for layers that share their inputs.
  struct ScratchOfAll {
    ScratchOfAll(const Int8Linear& linear, const Inputs& inputs, size_t piece, ExecutionContext& context)
        : unpacked_size(kernels::strips_scratch_bytes(linear.strips_.view(), linear.target_)),
          sums_size(inputs.rest.rows * piece * kStripOutputs),
          unpacked(context.arena.take<uint8_t>(context.pool.num_threads() * unpacked_size)),
          sums(sums_size > 0 ? context.arena.take<float>(context.pool.num_threads() * sums_size) : nullptr) {}

    Scratch of(size_t worker) const {
      return {unpacked + worker * unpacked_size, sums_size > 0 ? sums + worker * sums_size : nullptr};
    }

    size_t unpacked_size, sums_size;
    uint8_t* unpacked;
    float* sums;
  };

  // The outputs of the strips [begin, end).
  MatrixView<float> columns(MatrixView<float> y, size_t begin, size_t end) const {
    const size_t first = begin * kStripOutputs;
    return y.cols(first, std::min(end * kStripOutputs, out_features()) - first);
  }

  // y: the outputs of the strips [begin, end), whose codes stay in the cache for the second product.
  void product(const Inputs& inputs, size_t begin, size_t end, MatrixView<float> y,
               const Scratch& scratch) const {
    const kernels::Strips w = strips_.view();
    kernels::strips_product(w, inputs.tokens, begin, end, y, scratch.unpacked, target_);
    if (!inputs.spiky.empty()) {
      const MatrixView<float> sums(scratch.sums, inputs.rest.rows, y.cols());
      kernels::strips_product(w, inputs.rest, begin, end, sums, scratch.unpacked, target_);
      for (size_t i = 0; i < inputs.spiky.size(); ++i) {
        float* const row = y.row(inputs.spiky[i]);
        for (size_t n = 0; n < y.cols(); ++n) row[n] += sums.row(i)[n];
      }
    }
    add_bias(bias_, begin * kStripOutputs, y);
  }

  // Room for rows of codes.
  struct Rows {
    Rows(size_t tokens, size_t per_token, const kernels::Strips& w, Arena& arena)
        // A line apart from a power of two: rows that are 4096 bytes apart would share one set of the cache.
        : stride(w.num_blocks * kernels::kBlockInputs + kernels::kLineBytes),
          num_spans(w.span_ends.size()),
          num_groups(w.group_ends.size()),
          num_tokens(tokens),
          rows_per_token(per_token),
          codes(arena.take<int8_t>(tokens * per_token * stride)),
          scales(arena.take<float>(tokens * num_spans)),
          sums(arena.take<float>(tokens * num_groups)) {}

    kernels::QuantizedToken token(size_t t) const {
      return {codes + t * rows_per_token * stride, scales + t * num_spans, sums + t * num_groups};
    }
    kernels::QuantizedInputs inputs() const {
      return {num_tokens * rows_per_token, rows_per_token, codes, stride, scales, num_spans, sums};
    }

    size_t stride, num_spans, num_groups, num_tokens, rows_per_token;
    int8_t* codes;
    float* scales;
    float* sums;
  };

  Inputs quantize(MatrixView<const float> x, const kernels::Strips& w, ExecutionContext& context) const {
    const size_t num_tokens = x.rows();
    const Rows rows(num_tokens, rows_per_token_, w, context.arena);
    uint8_t* const is_spiky = context.arena.take<uint8_t>(num_tokens);
    const bool needs_copy = !strips_.positions().empty();
    const size_t count = w.num_blocks * kernels::kBlockInputs;
    const size_t copies_size = context.pool.num_threads() * count;
    float* copies = needs_copy ? context.arena.take<float>(copies_size) : nullptr;
    context.pool.parallel_for(num_tokens, 1, [&](size_t begin, size_t end, size_t worker) {
      float* const copy = needs_copy ? copies + worker * count : nullptr;
      for (size_t t = begin; t < end; ++t) {
        const float* const row = ordered(x.row_span(t), copy);
        const kernels::QuantizedToken token = rows.token(t);
        if (rows_per_token_ == 2) {
          kernels::quantize_inputs_16(row, w, token, token.codes + rows.stride, target_);
        } else {
          is_spiky[t] = kernels::quantize_inputs(row, w, token, target_);
        }
      }
    });
    const Inputs all = {rows.inputs(), {}, {}};
    if (rows_per_token_ == 2) return all;
    const auto num_spiky = static_cast<size_t>(std::count(is_spiky, is_spiky + num_tokens, 1));
    if (num_spiky == 0) return all;
    context.finer_tokens += num_spiky;

    const std::span<uint32_t> spiky(context.arena.take<uint32_t>(num_spiky), num_spiky);
    for (uint32_t t = 0, i = 0; t < num_tokens; ++t) {
      if (is_spiky[t] != 0) spiky[i++] = t;
    }
    const Rows rest(num_spiky, 1, w, context.arena);
    if (!needs_copy) copies = context.arena.take<float>(copies_size);
    context.pool.parallel_for(num_spiky, 1, [&](size_t begin, size_t end, size_t worker) {
      float* const copy = copies + worker * count;
      for (size_t i = begin; i < end; ++i) {
        const float* const row = ordered(x.row_span(spiky[i]), copy);
        kernels::quantization_residual(row, w, rows.token(spiky[i]), copy, target_);
        kernels::quantize_inputs(copy, w, rest.token(i), target_);
      }
    });
    return {all.tokens, rest.inputs(), spiky};
  }

  // x in the order of the weight, in `copy` where that is another one.
  const float* ordered(std::span<const float> x, float* copy) const {
    if (strips_.positions().empty()) return x.data();
    kernels::gather(x, strips_.positions(), copy);
    return copy;
  }

  const kernels::StripMatrix strips_;
  const size_t rows_per_token_;  // of bytes: two where activations have 16 bits
  const std::vector<float> bias_;
  const CpuTarget target_;
  const std::string name_;
};

// Fewer wait for memory, which is read faster layer by layer than in turns: one token at the 1.1B shape took
// 7 % longer.
constexpr size_t kGatedTokens = 16;

Status check_size(std::string_view name, size_t size, size_t wanted) {
  if (size == wanted) return {};
  return fail(ErrorCode::kInvalidArgument, "{} {} where {} are needed", size, name, wanted);
}

// a * b, or nothing that a vector could have as its size.
size_t product_of(size_t a, size_t b) {
  size_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<size_t>::max() : product;
}

bool codes_fit(const QuantizedWeight& w, ThreadPool& pool) {
  constexpr size_t kCodesPerTask = size_t{1} << 18;
  std::atomic<bool> fit = true;
  if (w.bits == 8) return true;
  pool.parallel_for(w.codes.size(), kCodesPerTask, [&](size_t begin, size_t end, size_t) {
    if (union_of(std::span(w.codes).subspan(begin, end - begin)) >> w.bits != 0) fit = false;
  });
  return fit;
}

Status check_groups(const QuantizedWeight& w) {
  if (w.group_size == 0) return fail(ErrorCode::kInvalidArgument, "group_size 0");
  if (w.formula == WeightFormula::kCodebook) {
    NIBBLE_RETURN_IF_ERROR(check_size("absmax values", w.absmax.size(),
                                      (w.out_features * w.in_features - 1) / w.group_size + 1));
    return check_size("codebook entries", w.codebook.size(), size_t{1} << w.bits);
  }
  NIBBLE_RETURN_IF_ERROR(check_size("scales", w.scales.size(), product_of(w.num_groups, w.out_features)));
  NIBBLE_RETURN_IF_ERROR(check_size("zeros", w.zeros.size(), product_of(w.num_groups, w.out_features)));
  if (!w.g_idx.empty()) {
    NIBBLE_RETURN_IF_ERROR(check_size("g_idx entries", w.g_idx.size(), w.in_features));
    const uint32_t last = *std::max_element(w.g_idx.begin(), w.g_idx.end());
    if (last < w.num_groups) return {};
    return fail(ErrorCode::kInvalidArgument, "g_idx names group {}, but there are {}", last, w.num_groups);
  }
  const size_t needed = (w.in_features - 1) / w.group_size + 1;
  if (needed <= w.num_groups) return {};
  return fail(ErrorCode::kInvalidArgument, "{} groups, but {} inputs in groups of {} need {}", w.num_groups,
              w.in_features, w.group_size, needed);
}

}  // namespace

Status check_quantized_weight(const QuantizedWeight& w, size_t bias_size, ThreadPool& pool) {
  if (w.out_features == 0 || w.in_features == 0 || w.in_features > std::numeric_limits<uint32_t>::max()) {
    return fail(ErrorCode::kInvalidArgument, "a weight of shape [{}, {}]", w.out_features, w.in_features);
  }
  if (w.bits < 2 || w.bits > 8)
    return fail(ErrorCode::kUnsupported, "{}-bit codes: 2 to 8 are known", w.bits);
  const size_t num_codes = product_of(w.out_features, w.in_features);
  if (w.words) {
    const size_t per_word = CodeWords::codes_per_word(w.bits);
    const bool by_input = w.words->output_stride == 1 && w.words->input_stride == w.out_features;
    const bool by_output = w.words->input_stride == 1 && w.words->output_stride == w.in_features / per_word;
    const bool packed_so = w.bits == 4 || w.formula != WeightFormula::kCodebook;  // StripMatrix
    if (!packed_so || !CodeWords::can_hold(w.bits, w.in_features) || !(by_input || by_output)) {
      return fail(ErrorCode::kInvalidArgument, "words of codes for {} bits and {} inputs", w.bits,
                  w.in_features);
    }
    NIBBLE_RETURN_IF_ERROR(
        check_size("bytes of codes", w.words->words.bytes.size(), num_codes / per_word * sizeof(uint32_t)));
  } else {
    NIBBLE_RETURN_IF_ERROR(check_size("codes", w.codes.size(), num_codes));
  }
  if (!codes_fit(w, pool)) {
    const uint8_t largest = *std::max_element(w.codes.begin(), w.codes.end());
    return fail(ErrorCode::kInvalidArgument, "a code of {} in a {}-bit weight", largest, w.bits);
  }
  if (bias_size != 0) NIBBLE_RETURN_IF_ERROR(check_size("bias values", bias_size, w.out_features));
  if (w.formula != WeightFormula::kRowAbsmax) return check_groups(w);
  if (w.bits != 8) return fail(ErrorCode::kUnsupported, "LLM.int8 with {} bits: only 8 exist", w.bits);
  return check_size("absmax values", w.absmax.size(), w.out_features);
}

void forward_shared(std::span<const LinearOutput> outputs, MatrixView<const float> x,
                    ExecutionContext& context) {
  const auto* const first = dynamic_cast<const Int8Linear*>(outputs.front().linear);
  const auto shares = [&](const LinearOutput& output) {
    const auto* const layer = dynamic_cast<const Int8Linear*>(output.linear);
    return layer != nullptr && first->shares_inputs(*layer);
  };
  if (first != nullptr && std::ranges::all_of(outputs, shares)) {
    first->forward_together(outputs, x, context);
    return;
  }
  for (const LinearOutput& output : outputs) output.linear->forward(x, output.y, context);
}

bool forward_gated(const Linear& gate, const Linear& up, kernels::Activation activation,
                   MatrixView<const float> x, MatrixView<float> y, ExecutionContext& context) {
  if (x.rows() < kGatedTokens) return false;
  const auto* const first = dynamic_cast<const Int8Linear*>(&gate);
  const auto* const second = dynamic_cast<const Int8Linear*>(&up);
  if (first == nullptr || second == nullptr || gate.out_features() != up.out_features() ||
      !first->shares_inputs(*second)) {
    return false;
  }
  first->forward_gated(*second, activation, x, y, context);
  return true;
}

std::unique_ptr<Linear> make_float_linear(const QuantizedWeight& weight, std::vector<float> bias,
                                          ThreadPool& pool, CpuTarget target) {
  return std::make_unique<FloatLinear>(weight, std::move(bias), pool, target);
}

std::unique_ptr<Linear> make_int8_linear(const QuantizedWeight& weight, std::vector<float> bias,
                                         ThreadPool& pool, ActivationBits activations, CpuTarget target) {
  return std::make_unique<Int8Linear>(weight, std::move(bias), pool, activations, target);
}

}  // namespace nibble
