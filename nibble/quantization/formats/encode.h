#ifndef NIBBLE_QUANTIZATION_FORMATS_ENCODE_H_
#define NIBBLE_QUANTIZATION_FORMATS_ENCODE_H_

// The way back: a QuantizedWeight becomes the tensors of a layout on disk. What decode_module() makes
// of them is the same weight.

#include <map>
#include <string>
#include <string_view>

#include "nibble/base/error.h"
#include "nibble/base/tensor.h"
#include "nibble/quantization/quantized_weight.h"

namespace nibble {

// Layouts by the name that users and config.json use.
enum class AffineLayout { kGptq, kGptqV2, kGptqPlanar, kAwqGemm, kAwqGemv, kAwqGemvFast };

// "gptq", "gptq_v2", "gptq_p", "gemm", "gemv", "gemv_fast"; kInvalidArgument lists them.
Expected<AffineLayout> affine_layout_from_name(std::string_view name);
std::string_view affine_layout_name(AffineLayout layout);

// The tensors by suffix ("qweight", "qzeros", "scales", "g_idx"), scales in float16. weight: kAffine
// with integral zeros. kInvalidArgument for what the layout cannot hold: bits, a size that does not fill
// words, a zero point of 0 in asymmetric gptq v1, an input order in AWQ; the message names the layout
// that can.
Expected<std::map<std::string, Tensor>> encode_affine(const QuantizedWeight& weight, AffineLayout layout);

// Type and shape of these tensors, from sizes alone (group_size 0: all inputs). desc_act changes nothing.
Expected<std::map<std::string, TensorInfo>> encoded_tensors(AffineLayout layout, int bits,
                                                            size_t out_features, size_t in_features,
                                                            size_t group_size);

}  // namespace nibble

#endif  // NIBBLE_QUANTIZATION_FORMATS_ENCODE_H_
