#ifndef NIBBLE_BASE_CPU_TARGET_H_
#define NIBBLE_BASE_CPU_TARGET_H_

// Which instruction set the kernels use. One binary holds code for all of them.

#include <span>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble {

//   kScalar   plain C++, any processor
//   kAvx2     AVX2, FMA, F16C
//   kAvxVnni  the same, and the 256-bit integer dot product of processors without AVX-512
//   kAvx512   AVX-512 F/BW/CD/DQ/VL, and VNNI for integer dot products
//   kAmx      kAvx512, and AMX-INT8: products of tiles of bytes, for prompts
//   kNeon     what every 64-bit ARM processor has
//   kDotprod  and its integer dot products (Armv8.2 FEAT_DotProd)
//   kI8mm     and those of unsigned with signed bytes, and of small matrices (Armv8.2 FEAT_I8MM)
// Code for one of them runs on all that are greater on the same kind of processor, but for kAvxVnni on
// kAvx512.
enum class CpuTarget { kScalar, kAvx2, kAvxVnni, kAvx512, kAmx, kNeon, kDotprod, kI8mm };

std::string_view cpu_target_name(CpuTarget target);  // "avxvnni", as NIBBLE_CPU spells it

// Those of this machine, slowest first, and never empty. What the tests walk and `nibble doctor` prints.
std::span<const CpuTarget> supported_cpu_targets();

// Decided once per process: the best of the above, or what NIBBLE_CPU names.
CpuTarget cpu_target();

// Says whether NIBBLE_CPU can be obeyed; main calls it first, because a request for an instruction
// set that this machine lacks is an error with a sentence, not an illegal instruction.
Status check_cpu_request();

}  // namespace nibble

#endif  // NIBBLE_BASE_CPU_TARGET_H_
