#ifndef NIBBLE_KERNELS_PROBE_H_
#define NIBBLE_KERNELS_PROBE_H_

// Loops that do one thing as fast as a core can: read memory, multiply floats, multiply bytes. What the
// kernels are measured against (linalg/machine_speed.h runs them).

#include <cstddef>
#include <cstdint>

#include "nibble/base/cpu_target.h"

namespace nibble::kernels {

// Bytes that one step reads of each stream; a stream's length is a multiple of it.
inline constexpr size_t kProbeStep = 256;

// Reads `streams` (1, 2, 4 or 8) pieces of `stream_bytes` that lie one after the other, all at the same pace:
// a core has more prefetchers than one linear stream keeps busy. The result depends on every byte, so that
// nothing can be left out. data: aligned to 64.
uint64_t read_streams(const std::byte* data, size_t stream_bytes, size_t streams,
                      CpuTarget target = cpu_target());

// Multiply-adds on registers, in enough independent sums to hide the latency; returns how many operations
// that was (a multiplication and an addition are two). int8: unsigned times signed bytes into 32-bit sums, as
// the strips kernels do it; 0 operations where the target has no such instruction.
double multiply_add_f32(size_t rounds, CpuTarget target = cpu_target());
double multiply_add_int8(size_t rounds, CpuTarget target = cpu_target());

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_PROBE_H_
