#ifndef NIBBLE_CHECKPOINT_GGUF_K_QUANTS_H_
#define NIBBLE_CHECKPOINT_GGUF_K_QUANTS_H_

// The blocks of 256 elements ("super-blocks"): K-quants and IQ4_XS. Each is a DequantizeBlocks of
// gguf_quants.h, through which everybody else finds them.

#include <cstddef>
#include <span>

namespace nibble {

void dequantize_q2_k(std::span<const std::byte> blocks, float* values);
void dequantize_q3_k(std::span<const std::byte> blocks, float* values);
void dequantize_q4_k(std::span<const std::byte> blocks, float* values);
void dequantize_q5_k(std::span<const std::byte> blocks, float* values);
void dequantize_q6_k(std::span<const std::byte> blocks, float* values);
void dequantize_iq4_xs(std::span<const std::byte> blocks, float* values);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_K_QUANTS_H_
