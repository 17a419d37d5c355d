#ifndef NIBBLE_CHECKPOINT_GGUF_BLOCKS_H_
#define NIBBLE_CHECKPOINT_GGUF_BLOCKS_H_

// Private to gguf_quants.cc and gguf_k_quants.cc: how an expansion of one block becomes one of many.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace nibble {

// Calls expand(block, values) for each block; `blocks` needs no alignment.
template <class Block, size_t kElements, void (*expand)(const Block&, float*)>
void for_each_block(std::span<const std::byte> blocks, float* values) {
  for (size_t offset = 0; offset + sizeof(Block) <= blocks.size(); offset += sizeof(Block)) {
    Block block;
    std::memcpy(&block, blocks.data() + offset, sizeof(Block));
    expand(block, values);
    values += kElements;
  }
}

// The values of the codes of IQ4_NL and IQ4_XS, from ggml-common.h.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_BLOCKS_H_
