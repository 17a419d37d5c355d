#ifndef NIBBLE_KERNELS_PROBE_TARGETS_H_
#define NIBBLE_KERNELS_PROBE_TARGETS_H_

// The loops of probe.h for each instruction set; probe.cc chooses. Those that multiply return a value that
// depends on all of their work.

#include <cstddef>
#include <cstdint>

namespace nibble::kernels {

inline constexpr size_t kProbeSums = 12;  // independent sums: more than any latency needs

uint64_t read_streams_avx2(const std::byte* data, size_t stream_bytes, size_t streams);
uint64_t read_streams_avx512(const std::byte* data, size_t stream_bytes, size_t streams);

float multiply_add_f32_avx2(size_t rounds);
float multiply_add_f32_avx512(size_t rounds);
int32_t multiply_add_int8_avx2(size_t rounds);
int32_t multiply_add_int8_avx512(size_t rounds);

}  // namespace nibble::kernels

#endif  // NIBBLE_KERNELS_PROBE_TARGETS_H_
