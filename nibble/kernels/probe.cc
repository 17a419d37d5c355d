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

// The compiler knows nothing of its value any more.
void hide(float& value) {
#if NIBBLE_X86
  asm volatile("" : "+x"(value));
#elif NIBBLE_ARM
  asm volatile("" : "+w"(value));
#else
  volatile float copy = value;
  value = copy;
#endif
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
  hide(factor);
  for (float& sum : sums) hide(sum);  // equal sums would be one
  for (size_t i = 0; i < rounds; ++i) {
    for (float& sum : sums) sum = sum * factor + factor;
  }
  float all = 0.f;
  for (const float sum : sums) all += sum;
  return all;
}

double operations(size_t rounds, size_t multiplications) {
  return 2.0 * static_cast<double>(rounds) * static_cast<double>(kProbeSums * multiplications);
}

}  // namespace

uint64_t read_streams(const std::byte* data, size_t stream_bytes, size_t streams, CpuTarget target) {
  const ProbeLoops* const loops = probe_loops(target);
  return (loops == nullptr ? read_streams_scalar : loops->read_streams)(data, stream_bytes, streams);
}

double multiply_add_f32(size_t rounds, CpuTarget target) {
  const ProbeLoops* const loops = probe_loops(target);
  look_at((loops == nullptr ? multiply_add_f32_scalar : loops->multiply_add_f32)(rounds));
  return operations(rounds, loops == nullptr ? 1 : loops->float_lanes);
}

double multiply_add_int8(size_t rounds, CpuTarget target) {
  const ProbeLoops* const loops = probe_loops(target);
  if (loops == nullptr) return 0;
  look_at(loops->multiply_add_int8(rounds));
  return operations(rounds, 4 * loops->float_lanes);
}

}  // namespace nibble::kernels
