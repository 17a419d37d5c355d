#ifndef NIBBLE_KERNELS_TEST_TOKENS_H_
#define NIBBLE_KERNELS_TEST_TOKENS_H_

// What tests of strips.h multiply.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "nibble/kernels/quantize_inputs.h"
#include "nibble/kernels/strip_matrix.h"
#include "nibble/kernels/test_weights.h"

namespace nibble::kernels {

// Weights that the layout holds, whether or not it pays.
inline std::vector<WeightCase> strip_cases() {
  std::vector<WeightCase> cases;
  for (const WeightCase& c : weight_cases()) {
    const bool crosses_rows = c.formula == WeightFormula::kCodebook && c.in_features % c.group_size != 0 &&
                              c.group_size % c.in_features != 0;
    if (!crosses_rows) cases.push_back(c);
  }
  cases.insert(cases.end(), llm_int8_cases().begin(), llm_int8_cases().end());
  return cases;
}

// Quantized tokens and their buffers; two rows for a token are 16 bits.
struct Tokens {
  Tokens(const StripMatrix& matrix, size_t count, CpuTarget target, size_t rows_per_token = 1) {
    const Strips w = matrix.view();
    const size_t positions = w.num_blocks * kBlockInputs;
    const size_t num_groups = w.group_ends.size();
    x = random_inputs(count, matrix.in_features(), 21);
    codes.resize(count * rows_per_token * positions);
    scales.resize(count * w.span_ends.size());
    sums.resize(count * num_groups);
    for (size_t t = 0; t < count; ++t) {
      std::vector<float> row(x.begin() + static_cast<std::ptrdiff_t>(t * matrix.in_features()),
                             x.begin() + static_cast<std::ptrdiff_t>((t + 1) * matrix.in_features()));
      if (!matrix.positions().empty()) {
        std::vector<float> gathered(positions);
        gather(row, matrix.positions(), gathered.data());
        row = gathered;
      }
      const QuantizedToken out = {codes.data() + t * rows_per_token * positions,
                                  scales.data() + t * w.span_ends.size(), sums.data() + t * num_groups};
      if (rows_per_token == 2) {
        quantize_inputs_16(row.data(), w, out, out.codes + positions, target);
      } else {
        quantize_inputs(row.data(), w, out, target);
      }
    }
    view = {count * rows_per_token, rows_per_token,     codes.data(), positions,
            scales.data(),          w.span_ends.size(), sums.data()};
  }

  // Of token t, at a stored position.
  int code(size_t t, size_t position) const {
    const int8_t* const first = codes.data() + t * view.rows_per_token * view.stride + position;
    return view.rows_per_token == 1 ? first[0] : 256 * first[0] + first[view.stride];
  }

  std::vector<float> x;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<float> sums;
  QuantizedInputs view;
};

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_TEST_TOKENS_H_
