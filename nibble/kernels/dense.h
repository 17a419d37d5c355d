#ifndef NIBBLE_KERNELS_DENSE_H_
#define NIBBLE_KERNELS_DENSE_H_

// Products with a float weight, read where it lies: rows of a mapped file, or a tile that was just
// dequantized into scratch memory.

#include <cstddef>

#include "nibble/base/cpu_target.h"
#include "nibble/base/dtype.h"
#include "nibble/base/matrix_view.h"

namespace nibble::kernels {

struct DenseRows {
  DType dtype;       // kF32, kF16 or kBF16
  const void* data;  // [out_features, in_features], aligned to an element
  size_t out_features;
  size_t in_features;
};

// y[t][n] = sum over k of x[t][k] * w[n][k], in float32, for all rows of w and of x.
// x: [tokens, in_features], y: [tokens, out_features].
//
// Each output element has one vector of partial sums (lane l: the inputs l, l + lanes, ...), filled
// in ascending order and added up by one fixed tree. Blocking only decides which elements are worked
// on together, so an element's bits depend on its own row of x and of w, and on the instruction set.
void dense_product(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y,
                   CpuTarget target = cpu_target());

// Outputs that one call should cover so that their weights stay in the L2 cache while the tokens
// pass by: a multiple of the register block.
size_t dense_rows_per_call(size_t in_features, size_t bytes_per_element);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_DENSE_H_
