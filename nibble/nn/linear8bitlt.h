#ifndef NIBBLE_NN_LINEAR8BITLT_H_
#define NIBBLE_NN_LINEAR8BITLT_H_

#include "nibble/base/cpu_target.h"
#include "nibble/nn/linear.h"

namespace nibble {

// Which columns of the inputs count as outliers for a token, and are multiplied in floating point.
enum class OutlierColumns {
  kOfToken,  // those in which it reaches the threshold itself: it does not depend on its neighbours
  kOfCall,   // those in which any token of the call does: as bitsandbytes takes a batch
};

// LLM.int8 (arXiv:2208.07339), for weights of the formula kRowAbsmax; the format's name for the layer
// is Linear8bitLt. The two kinds of outlier columns agree for a single token.
std::unique_ptr<Linear> make_linear8bitlt(const QuantizedWeight& weight, std::vector<float> bias,
                                          ThreadPool& pool, OutlierColumns columns,
                                          CpuTarget target = cpu_target());

}  // namespace nibble

#endif  // NIBBLE_NN_LINEAR8BITLT_H_
