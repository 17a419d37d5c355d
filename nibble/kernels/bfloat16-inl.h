// The functions of bfloat16.h, compiled once per instruction set. On the compiler's vector types.

namespace nibble::kernels::NIBBLE_NAMESPACE {

inline constexpr size_t kBf16Lanes = kLanes == 1 ? 4 : kLanes;
using Bf16Vector = uint16_t __attribute__((vector_size(kBf16Lanes * sizeof(uint16_t))));
using BitsVector = uint32_t __attribute__((vector_size(kBf16Lanes * sizeof(uint32_t))));

inline void bf16_to_floats(const uint16_t* from, size_t count, float* to) {
  size_t i = 0;
  for (; i + kBf16Lanes <= count; i += kBf16Lanes) {
    Bf16Vector halves;
    std::memcpy(&halves, from + i, sizeof(halves));
    const BitsVector bits = __builtin_convertvector(halves, BitsVector) << 16;
    std::memcpy(to + i, &bits, sizeof(bits));
  }
  for (; i < count; ++i) to[i] = bf16_to_float(from[i]);
}

inline void floats_to_bf16(const float* from, size_t count, uint16_t* to) {
  size_t i = 0;
  for (; i + kBf16Lanes <= count; i += kBf16Lanes) {
    BitsVector bits;
    std::memcpy(&bits, from + i, sizeof(bits));
    const BitsVector is_nan = (BitsVector)((bits & 0x7FFFFFFFu) > 0x7F800000u);
    const BitsVector rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const BitsVector quiet = (bits >> 16) | 0x40u;
    const Bf16Vector halves = __builtin_convertvector((quiet & is_nan) | (rounded & ~is_nan), Bf16Vector);
    std::memcpy(to + i, &halves, sizeof(halves));
  }
  for (; i < count; ++i) to[i] = float_to_bf16(from[i]);
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
