#ifndef NIBBLE_NN_LINEAR_REFERENCE_H_
#define NIBBLE_NN_LINEAR_REFERENCE_H_

#include "nibble/nn/linear.h"

namespace nibble {

// Plain loops with sums in double: slow, and what everything else is compared with. Keeps the
// weight as it came. For make_linear, which has checked the arguments.
Expected<std::unique_ptr<Linear>> make_reference_linear(const Tensor& weight, std::vector<float> bias);
std::unique_ptr<Linear> make_reference_linear(const QuantizedWeight& weight, std::vector<float> bias);

}  // namespace nibble

#endif  // NIBBLE_NN_LINEAR_REFERENCE_H_
