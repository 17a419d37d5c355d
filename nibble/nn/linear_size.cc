#include "nibble/nn/linear_size.h"

#include <algorithm>

#include "nibble/base/aligned_buffer.h"
#include "nibble/kernels/dense.h"
#include "nibble/kernels/dequantize.h"
#include "nibble/kernels/quantize_inputs.h"
#include "nibble/kernels/strips.h"

namespace nibble {
namespace {

using kernels::kBlockInputs;
using kernels::kStripOutputs;

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
size_t rounded_up(size_t count, size_t unit) { return ceil_div(count, unit) * unit; }

bool is_affine(const LinearStorage& storage) {
  return storage.formula == WeightFormula::kAffine || storage.formula == WeightFormula::kOffset;
}

// Sizes in the terms of kernels/strip_matrix.cc: one group for a row that has one scale, groups filled up to
// whole blocks of inputs.
void set_groups(const LinearStorage& storage, LinearSize& size) {
  const size_t group = storage.formula == WeightFormula::kRowAbsmax
                           ? size.in_features
                           : std::clamp<size_t>(storage.group_size, 1, size.in_features);
  const size_t whole = size.in_features / group;
  const size_t rest = size.in_features % group;
  size.num_groups = whole + (rest > 0 ? 1 : 0);
  size.padded_inputs = whole * rounded_up(group, kBlockInputs) + rounded_up(rest, kBlockInputs);
  // Where groups are whole blocks positions are inputs, but for the filling at the end of a row.
  size.reorders = storage.sorted || size.padded_inputs != size.in_features;
}

// StripMatrix::suits().
bool suits_strips(const LinearStorage& storage, const LinearSize& size) {
  if (storage.formula == WeightFormula::kCodebook && size.in_features % storage.group_size != 0 &&
      storage.group_size % size.in_features != 0) {
    return false;
  }
  return size.padded_inputs <= size.in_features + size.in_features / 4;
}

// As StripMatrix chooses.
size_t stored_bits(const LinearStorage& storage) {
  if (storage.bits > 4) return 8;
  return storage.formula == WeightFormula::kCodebook ? 4 : static_cast<size_t>(storage.bits);
}

struct Buffers {
  size_t codes = 0;
  size_t scales = 0;
  size_t zeros = 0;  // or offsets
  size_t order = 0;
};

Buffers strip_buffers(const LinearStorage& storage, const LinearSize& size) {
  const size_t strips = ceil_div(size.out_features, kStripOutputs);
  const size_t values = strips * size.num_groups * kStripOutputs;
  // float16 where that is exact enough: nearly always, but for LLM.int8, whose last bit counts.
  const size_t scale = size.llm_int8 ? sizeof(float) : sizeof(uint16_t);
  Buffers buffers;
  buffers.codes = strips * size.strip_bytes;
  buffers.scales = values * scale;
  if (storage.formula == WeightFormula::kOffset) buffers.zeros = values * scale;
  if (storage.formula == WeightFormula::kAffine && storage.zeros_differ) buffers.zeros = values;
  return buffers;
}

// kernels/packed_rows.cc.
Buffers row_buffers(const LinearStorage& storage, const LinearSize& size) {
  const size_t width = storage.bits <= 2 ? 2 : storage.bits <= 4 ? 4 : 8;
  Buffers buffers;
  buffers.codes =
      size.out_features * rounded_up(ceil_div(size.in_features * width, 8), kernels::kPackedAlign);
  if (is_affine(storage)) {
    buffers.scales = buffers.zeros = size.out_features * size.num_groups * sizeof(uint16_t);
    if (storage.sorted) buffers.order = size.in_features * sizeof(uint32_t);
  } else {
    buffers.scales = ceil_div(size.out_features * size.in_features, std::max<size_t>(1, storage.group_size)) *
                     sizeof(float);
  }
  return buffers;
}

// What kernels/strips.h asks of one to tell how it works on it.
kernels::Strips strips_of(const LinearSize& size) {
  kernels::Strips strips = {};
  strips.num_blocks = size.padded_inputs / kBlockInputs;
  using enum kernels::CodeForm;
  for (const kernels::CodeForm form : {kTwoBits, kThreeBits, kNibbles, kBytes}) {
    strips.form = form;
    if (strips.strip_bytes() == size.strip_bytes) break;
  }
  return strips;
}

// The tables of positions beside the weight; not a part of weight_bytes().
size_t position_bytes(const LinearSize& size) {
  return size.reorders ? size.padded_inputs * sizeof(uint32_t) : 0;
}

}  // namespace

size_t buffer_resident_bytes(size_t bytes, bool huge_pages) {
  return huge_pages && bytes >= kHugePage ? rounded_up(bytes, kHugePage) : bytes;
}

LinearSize linear_size(size_t out_features, size_t in_features, const LinearStorage& storage,
                       bool huge_pages) {
  LinearSize size;
  size.out_features = out_features;
  size.in_features = in_features;
  if (storage.is_float()) {
    size.weight_bytes = out_features * in_features * dtype_bits(*storage.dtype) / 8;
    return size;
  }
  set_groups(storage, size);
  size.llm_int8 = storage.formula == WeightFormula::kRowAbsmax;
  size.kind = storage.bits <= 4 ? LinearKind::kSmallCodes : LinearKind::kBytes;
  if (!size.llm_int8 && !suits_strips(storage, size)) size.kind = LinearKind::kFloatRows;
  if (size.kind == LinearKind::kBytes && !size.llm_int8) size.rows_per_token = 2;
  if (size.kind != LinearKind::kFloatRows) {
    size.strip_bytes = size.padded_inputs * kStripOutputs * stored_bits(storage) / 8;
  }
  const Buffers buffers =
      size.kind == LinearKind::kFloatRows ? row_buffers(storage, size) : strip_buffers(storage, size);
  size.weight_bytes = buffers.codes + buffers.scales + buffers.zeros + buffers.order;
  for (const size_t bytes : {buffers.codes, buffers.scales, buffers.zeros, buffers.order}) {
    size.buffer_bytes += buffer_resident_bytes(bytes, huge_pages);
  }
  if (size.kind != LinearKind::kFloatRows) size.buffer_bytes += position_bytes(size);
  if (size.llm_int8) size.buffer_bytes += rounded_up(out_features, kStripOutputs) * sizeof(float);
  return size;
}

// nn/quantized_linear.cc and nn/linear8bitlt.cc.
size_t LinearSize::scratch_bytes(size_t tokens, size_t threads) const {
  if (kind == LinearKind::kDense) return 0;
  if (kind == LinearKind::kFloatRows) {
    const size_t rows = kernels::dense_rows_per_call(in_features, sizeof(float));
    const size_t sorted = reorders ? tokens * in_features * sizeof(float) : 0;
    return sorted + threads * (rows * in_features * sizeof(float) + rounded_up(in_features, 64));
  }
  const size_t blocks = padded_inputs / kBlockInputs;
  const size_t codes = tokens * rows_per_token * (padded_inputs + kernels::kLineBytes);
  if (llm_int8) {
    return codes + blocks * sizeof(float) +
           tokens * (sizeof(float) + sizeof(kernels::Int8Row) + in_features * sizeof(uint32_t));
  }
  const size_t rows = reorders ? threads * padded_inputs * sizeof(float) : 0;
  const size_t spans =
      rows_per_token == 1 ? blocks : std::max(num_groups, ceil_div(blocks, kernels::kMostBlocksOf16Bits));
  // Without the second rows of spiky tokens, which are few.
  return codes + tokens * ((spans + num_groups) * sizeof(float) + 1) + rows +
         threads * kernels::strips_scratch_bytes(strips_of(*this));
}

std::optional<size_t> gated_scratch_bytes(const LinearSize& gate, const LinearSize& up, size_t tokens,
                                          size_t threads) {
  const auto has_strips = [](const LinearSize& size) { return size.strip_bytes > 0 && !size.llm_int8; };
  if (!has_strips(gate) || !has_strips(up) || gate.kind != up.kind || gate.out_features != up.out_features ||
      gate.padded_inputs != up.padded_inputs || gate.num_groups != up.num_groups ||
      gate.reorders != up.reorders) {
    return std::nullopt;
  }
  const size_t piece = kernels::strips_per_call(strips_of(gate), tokens * gate.rows_per_token);
  return threads * tokens * piece * kStripOutputs * sizeof(float);
}

}  // namespace nibble
