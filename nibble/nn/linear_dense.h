#ifndef NIBBLE_NN_LINEAR_DENSE_H_
#define NIBBLE_NN_LINEAR_DENSE_H_

#include "nibble/base/cpu_target.h"
#include "nibble/nn/linear.h"

namespace nibble {

// A float weight, read where it lies. For tests and for make_linear, which has checked the arguments.
std::unique_ptr<Linear> make_dense_linear(const Tensor& weight, std::vector<float> bias,
                                          CpuTarget target = cpu_target());

// y[t][n] += bias[first + n]; no bias where it is empty.
void add_bias(const std::vector<float>& bias, size_t first, MatrixView<float> y);

}  // namespace nibble

#endif  // NIBBLE_NN_LINEAR_DENSE_H_
