// A weight and activations with any values and sizes: every instruction set must compute the bytes that the
// plain code computes (kernels/strips.h).

#include <bit>
#include <cmath>
#include <cstring>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/cpu_target.h"
#include "nibble/base/float16.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/input_groups.h"
#include "nibble/kernels/quantize_inputs.h"
#include "nibble/kernels/strip_matrix.h"
#include "nibble/kernels/strips.h"
#include "nibble/kernels/test_weights.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;
using namespace nibble::kernels;

namespace {

// The input's bytes, from the beginning again when they are used up.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t byte() { return data_[next_++ % size_]; }
  size_t below(size_t limit) { return (byte() * size_t{256} + byte()) % limit; }
  float half() { return fp16_to_float(static_cast<uint16_t>(byte() * 256 + byte())); }
  // What a loader lets through.
  float finite_half() {
    const float value = half();
    return std::isfinite(value) ? value : 0.f;
  }
  float any_float() {
    const uint32_t bits = static_cast<uint32_t>(byte()) << 24 | static_cast<uint32_t>(byte()) << 16;
    return std::bit_cast<float>(bits);
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t next_ = 0;
};

QuantizedWeight make_weight(Bytes& bytes) {
  constexpr WeightFormula kFormulas[] = {WeightFormula::kAffine, WeightFormula::kOffset,
                                         WeightFormula::kCodebook, WeightFormula::kRowAbsmax};
  QuantizedWeight w;
  w.formula = kFormulas[bytes.below(4)];
  w.bits = w.formula == WeightFormula::kCodebook    ? 4
           : w.formula == WeightFormula::kRowAbsmax ? 8
                                                    : static_cast<int>(2 + bytes.below(7));
  w.out_features = 1 + bytes.below(40);
  w.in_features = 1 + bytes.below(300);
  constexpr size_t kGroupSizes[] = {32, 64, 128, 40, 300};
  w.group_size = std::min(kGroupSizes[bytes.below(5)], w.in_features);
  const bool same_zeros = bytes.below(2) == 0;
  const bool permuted = bytes.below(3) == 0;
  w.codes.resize(w.out_features * w.in_features);
  for (uint8_t& code : w.codes) code = static_cast<uint8_t>(bytes.byte() & ((1u << w.bits) - 1));
  if (w.formula == WeightFormula::kRowAbsmax) {
    for (uint8_t& code : w.codes) code = std::max<uint8_t>(code, 1);
    for (size_t o = 0; o < w.out_features; ++o) w.absmax.push_back(std::fabs(bytes.finite_half()));
    return w;
  }
  if (w.formula == WeightFormula::kCodebook) {
    w.absmax.resize((w.codes.size() - 1) / w.group_size + 1);
    for (float& a : w.absmax) a = std::fabs(bytes.finite_half());
    for (size_t i = 0; i < 16; ++i) w.codebook.push_back(static_cast<float>(bytes.byte()) / 128.f - 1.f);
    return w;
  }
  w.num_groups = (w.in_features - 1) / w.group_size + 1;
  for (size_t i = 0; i < w.num_groups * w.out_features; ++i) {
    w.scales.push_back(bytes.finite_half());
    w.zeros.push_back(same_zeros                            ? 8.f
                      : w.formula == WeightFormula::kAffine ? static_cast<float>(bytes.byte())
                                                            : bytes.finite_half());
  }
  if (permuted) {  // as act-order: full groups, inputs in any of them
    for (size_t i = 0; i < w.in_features; ++i) w.g_idx.push_back(static_cast<uint32_t>(i / w.group_size));
    for (size_t i = w.in_features; i > 1; --i) std::swap(w.g_idx[i - 1], w.g_idx[bytes.below(i)]);
  }
  return w;
}

// Each of its own size: whoever reads past an end is seen.
struct Rows {
  std::vector<int8_t> codes;
  std::vector<float> scales, sums;
  QuantizedInputs view;
};

Rows quantize(const std::vector<float>& x, size_t tokens, size_t rows_per_token, const Strips& w,
              CpuTarget target) {
  const size_t inputs = w.num_blocks * kBlockInputs;
  const size_t spans = w.span_ends.size();
  const size_t groups = w.group_ends.size();
  Rows rows;
  rows.codes.resize(tokens * rows_per_token * inputs);
  rows.scales.resize(tokens * spans);
  rows.sums.resize(tokens * groups);
  for (size_t t = 0; t < tokens; ++t) {
    const float* const from = x.data() + t * inputs;
    const QuantizedToken out = {rows.codes.data() + t * rows_per_token * inputs,
                                rows.scales.data() + t * spans, rows.sums.data() + t * groups};
    if (rows_per_token == 2) {
      quantize_inputs_16(from, w, out, out.codes + inputs, target);
    } else {
      quantize_inputs(from, w, out, target);
    }
  }
  rows.view = {tokens * rows_per_token, rows_per_token, rows.codes.data(), inputs,
               rows.scales.data(),      spans,          rows.sums.data()};
  return rows;
}

// Codes in words are packed to the same bytes.
void check_words(const QuantizedWeight& weight, const Strips& w, bool rows_first, ThreadPool& pool) {
  if (!CodeWords::can_hold(weight.bits, weight.in_features)) return;
  const StripMatrix matrix(in_words(weight, rows_first), pool);
  NIBBLE_CHECK(std::memcmp(matrix.view().codes, w.codes, w.num_strips() * w.strip_bytes()) == 0);
}

// NaNs may differ in their bits.
void check_same(const std::vector<float>& a, const std::vector<float>& b) {
  NIBBLE_CHECK(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    NIBBLE_CHECK((std::isnan(a[i]) && std::isnan(b[i])) ||
                 std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i]));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static ThreadPool pool(1);
  Bytes bytes(data, size);
  const bool wide = bytes.below(2) == 1;
  const size_t count = 1 + bytes.below(9);
  const bool extreme = bytes.below(4) == 0;
  const QuantizedWeight weight = make_weight(bytes);
  if (!StripMatrix::suits(weight)) return 0;
  // LLM.int8 has one span, which 16 bits could overflow.
  const size_t rows_per_token = wide && weight.formula != WeightFormula::kRowAbsmax ? 2 : 1;
  const StripMatrix matrix(weight, pool, rows_per_token == 2 ? kMostBlocksOf16Bits : 1);
  const Strips w = matrix.view();
  check_words(weight, w, extreme, pool);
  std::vector<float> x(count * w.num_blocks * kBlockInputs);
  for (float& value : x) value = extreme ? bytes.any_float() : static_cast<float>(bytes.byte()) - 127.5f;
  for (size_t i = 0; i < x.size() && !matrix.positions().empty(); ++i) {
    if (matrix.positions()[i % (w.num_blocks * kBlockInputs)] == kNoInput) x[i] = 0.f;  // filled up
  }

  const auto product = [&](const QuantizedInputs& inputs, CpuTarget target) {
    const size_t tokens = inputs.rows / inputs.rows_per_token;
    std::vector<float> y(tokens * w.out_features);
    AlignedBuffer scratch(strips_scratch_bytes(w, target));
    strips_product(w, inputs, 0, w.num_strips(), MatrixView<float>(y.data(), tokens, w.out_features),
                   scratch.as<uint8_t>(), target);
    return y;
  };
  const Rows plain = quantize(x, count, rows_per_token, w, CpuTarget::kScalar);
  const std::vector<float> expected = product(plain.view, CpuTarget::kScalar);
  for (const CpuTarget target : supported_cpu_targets()) {
    const Rows rows = quantize(x, count, rows_per_token, w, target);
    NIBBLE_CHECK(rows.codes == plain.codes);
    check_same(rows.scales, plain.scales);
    check_same(rows.sums, plain.sums);
    check_same(product(rows.view, target), expected);
  }
  return 0;
}
