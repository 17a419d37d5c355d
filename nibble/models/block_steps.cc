#include "nibble/models/block_steps.h"

#include <algorithm>
#include <cmath>

#include "nibble/base/float16.h"
#include "nibble/kernels/elementwise.h"
#include "nibble/quantization/float_blocks.h"

namespace nibble {
namespace {

// Row `index` of a floating tensor [rows, width], times scale.
void copy_row(const Tensor& tensor, size_t index, float scale, std::span<float> out) {
  load_floats(tensor, index * out.size(), out.size(), out.data());
  for (float& value : out) value *= scale;
}

float round_to_bf16(float value) { return bf16_to_float(float_to_bf16(value)); }

MatrixView<float> alibi_in_bfloat16(const DecoderSpec& spec, std::span<const TokenBatch::Row> rows,
                                    ExecutionContext& context) {
  size_t positions = 0;
  for (const TokenBatch::Row& row : rows) positions = std::max(positions, row.position + 1);
  const MatrixView<float> bias = context.arena.take_matrix(spec.alibi_slopes.size(), positions);
  for (size_t head = 0; head < bias.rows(); ++head) {
    const float slope = round_to_bf16(spec.alibi_slopes[head]);
    for (size_t t = 0; t < positions; ++t) {
      bias.row(head)[t] = round_to_bf16(slope * round_to_bf16(static_cast<float>(t))) * spec.attention_scale;
    }
  }
  return bias;
}

}  // namespace

TokenBatch make_token_batch(const DecoderSpec& spec, std::span<const SequenceChunk> chunks,
                            const std::optional<RotaryEmbedding>& rope,
                            const std::optional<RotaryEmbedding>& rope_sliding, ExecutionContext& context) {
  size_t num_rows = 0;
  for (const SequenceChunk& chunk : chunks) num_rows += chunk.tokens.size();
  TokenBatch batch;
  batch.chunks = chunks;
  auto* const rows = context.arena.take<TokenBatch::Row>(num_rows);
  size_t r = 0;
  for (const SequenceChunk& chunk : chunks) {
    const size_t start = chunk.cache->size();
    const size_t length = std::max(chunk.known_length, start + chunk.tokens.size());
    for (size_t i = 0; i < chunk.tokens.size(); ++i) {
      rows[r++] = {chunk.tokens[i], start + i, chunk.one_by_one ? start + i + 1 : length};
    }
  }
  batch.rows = {rows, num_rows};
  const auto make_angles = [&](const RotaryEmbedding& angles_of, MatrixView<float>& cos,
                               MatrixView<float>& sin) {
    cos = context.arena.take_matrix(num_rows, angles_of.rotary_dims() / 2);
    sin = context.arena.take_matrix(num_rows, angles_of.rotary_dims() / 2);
    for (size_t i = 0; i < num_rows; ++i) {
      angles_of.angles(rows[i].position, rows[i].sequence_length, cos.row(i), sin.row(i));
    }
  };
  if (rope) make_angles(*rope, batch.cos, batch.sin);
  if (rope_sliding) make_angles(*rope_sliding, batch.cos_sliding, batch.sin_sliding);
  if (spec.alibi_in_bfloat16) batch.score_bias = alibi_in_bfloat16(spec, batch.rows, context);
  return batch;
}

void embed_tokens(const DecoderSpec& spec, const DecoderWeights& weights, const TokenBatch& batch,
                  MatrixView<float> hidden, ExecutionContext& context) {
  const Arena::Scope scope(context.arena);
  const MatrixView<float> embedded = weights.project_in == nullptr
                                         ? hidden
                                         : context.arena.take_matrix(batch.rows.size(), spec.embedding_size);
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    copy_row(weights.embedding, static_cast<size_t>(batch.rows[r].token), spec.embedding_scale,
             embedded.row_span(r));
  }
  if (weights.project_in != nullptr) weights.project_in->forward(embedded, hidden, context);
  if (weights.embed_norm != nullptr) weights.embed_norm->forward(hidden, hidden, context);
  if (weights.positions.bytes.empty()) return;
  float* const position = context.arena.take<float>(hidden.cols());
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    copy_row(weights.positions, batch.rows[r].position + spec.names.position_offset, 1.f,
             {position, hidden.cols()});
    kernels::add(position, hidden.cols(), hidden.row(r));
  }
}

void activate_rows(kernels::Activation activation, MatrixView<const float> gate, MatrixView<float> values,
                   ExecutionContext& context) {
  context.pool.parallel_for(values.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      float* const row = values.row(r);
      if (gate.data() != nullptr) {
        kernels::activate_and_multiply(activation, gate.row(r), row, values.cols(), row);
      } else {
        kernels::activate(activation, row, values.cols(), row);
      }
    }
  });
}

void divide_columns(std::span<const float> divisors, MatrixView<float> values, ExecutionContext& context) {
  context.pool.parallel_for(values.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      for (size_t c = 0; c < divisors.size(); ++c) values.row(r)[c] /= divisors[c];
    }
  });
}

void finish_logits(const DecoderSpec& spec, MatrixView<float> logits) {
  for (size_t r = 0; r < logits.rows(); ++r) {
    if (spec.logit_scale != 1.f) {
      for (float& logit : logits.row_span(r)) logit *= spec.logit_scale;
    }
    if (spec.final_soft_cap > 0.f) {
      kernels::soft_cap(logits.row(r), spec.final_soft_cap, logits.cols(), logits.row(r));
    }
  }
}

void add_rows(MatrixView<const float> x, float scale, MatrixView<float> y, ExecutionContext& context) {
  context.pool.parallel_for(x.rows(), kRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      if (scale == 1.f) {
        kernels::add(x.row(r), x.cols(), y.row(r));
        continue;
      }
      for (size_t c = 0; c < x.cols(); ++c) y.row(r)[c] += scale * x.row(r)[c];
    }
  });
}

}  // namespace nibble
