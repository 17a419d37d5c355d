#include "nibble/kernels/probe.h"

#include <cstring>

#include "nibble/base/simd_region.h"
#include "nibble/kernels/probe_targets.h"

namespace nibble::kernels {
namespace {

// Whoever measures must not see work vanish: the compiler has to believe that someone looks.
template <class T>
void look_at(T value) {
  volatile T sink = value;
  static_cast<void>(sink);
}

uint64_t read_streams_scalar(const std::byte* data, size_t stream_bytes, size_t streams) {
  uint64_t sum = 0;
  for (size_t i = 0; i < stream_bytes; i += kProbeStep) {
    for (size_t s = 0; s < streams; ++s) {
      const std::byte* const p = data + s * stream_bytes + i;
      for (size_t k = 0; k < kProbeStep; k += sizeof(uint64_t)) {
        uint64_t word;
        std::memcpy(&word, p + k, sizeof(word));
        sum ^= word;
      }
    }
  }
  return sum;
}

float multiply_add_f32_scalar(size_t rounds) {
  float sums[kProbeSums] = {};
  float factor = 0.5f;
  asm volatile("" : "+x"(factor));  // not known when compiling
  for (size_t i = 0; i < rounds; ++i) {
    for (float& sum : sums) sum = sum * factor + factor;
  }
  float all = 0.f;
  for (const float sum : sums) all += sum;
  return all;
}

// Lanes of float in a vector.
size_t float_lanes(CpuTarget target) {
  return target >= CpuTarget::kAvx512 ? 16 : target >= CpuTarget::kAvx2 ? 8 : 1;
}

double operations(size_t rounds, size_t multiplications) {
  return 2.0 * static_cast<double>(rounds) * static_cast<double>(kProbeSums * multiplications);
}

}  // namespace

uint64_t read_streams(const std::byte* data, size_t stream_bytes, size_t streams, CpuTarget target) {
#if NIBBLE_X86
  if (target >= CpuTarget::kAvx512) return read_streams_avx512(data, stream_bytes, streams);
  if (target >= CpuTarget::kAvx2) return read_streams_avx2(data, stream_bytes, streams);
#endif
  static_cast<void>(target);
  return read_streams_scalar(data, stream_bytes, streams);
}

double multiply_add_f32(size_t rounds, CpuTarget target) {
#if NIBBLE_X86
  if (target != CpuTarget::kScalar) {
    look_at(target >= CpuTarget::kAvx512 ? multiply_add_f32_avx512(rounds) : multiply_add_f32_avx2(rounds));
  }
#endif
  if (target == CpuTarget::kScalar) look_at(multiply_add_f32_scalar(rounds));
  return operations(rounds, float_lanes(target));
}

double multiply_add_int8(size_t rounds, CpuTarget target) {
  if (target == CpuTarget::kScalar) return 0;
#if NIBBLE_X86
  look_at(target >= CpuTarget::kAvx512 ? multiply_add_int8_avx512(rounds) : multiply_add_int8_avx2(rounds));
#endif
  return operations(rounds, 4 * float_lanes(target));
}

}  // namespace nibble::kernels
