#ifndef NIBBLE_KERNELS_PROBE_TARGETS_H_
#define NIBBLE_KERNELS_PROBE_TARGETS_H_

// The loops of probe.h for each instruction set; probe.cc chooses. Those that multiply return a value that
// depends on all of their work.

#include <cstddef>
#include <cstdint>

#include "nibble/base/cpu_target.h"

namespace nibble::kernels {

inline constexpr size_t kProbeSums = 12;  // independent sums: more than any latency needs

struct ProbeLoops {
  uint64_t (*read_streams)(const std::byte* data, size_t stream_bytes, size_t streams);
  float (*multiply_add_f32)(size_t rounds);
  int32_t (*multiply_add_int8)(size_t rounds);
  size_t float_lanes;
};

// Nothing for kScalar, and where this is neither x86-64 nor 64-bit ARM.
const ProbeLoops* probe_loops(CpuTarget target);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_PROBE_TARGETS_H_
