#ifndef NIBBLE_KERNELS_DENSE_TARGETS_H_
#define NIBBLE_KERNELS_DENSE_TARGETS_H_

// dense_product for each instruction set; dense.cc chooses.

#include <cstdint>

#include "nibble/kernels/dense.h"

namespace nibble::kernels {

// 16-bit elements that overloads can tell apart.
struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

void dense_product_scalar(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y);
void dense_product_avx2(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y);
void dense_product_avx512(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y);
void dense_product_neon(const DenseRows& w, MatrixView<const float> x, MatrixView<float> y);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_DENSE_TARGETS_H_
