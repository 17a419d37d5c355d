#ifndef NIBBLE_CHECKPOINT_GGUF_KEYS_H_
#define NIBBLE_CHECKPOINT_GGUF_KEYS_H_

// The metadata of one architecture: "llama.block_count" is the key "block_count" of "llama".

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "nibble/checkpoint/gguf.h"

namespace nibble {

struct GgufKeys {
  const GgufHeader& header;
  std::string prefix;  // "llama."

  std::string full(std::string_view key) const { return prefix + std::string(key); }

  bool has(std::string_view key) const { return header.metadata.contains(full(key)); }

  // A size that may be missing. Some files have a list with one value per layer; if all are equal, it is that
  // value.
  Expected<std::optional<size_t>> optional_size(std::string_view key) const;

  // A size that must not be 0, and not be missing unless there is a `fallback`.
  Expected<size_t> size(std::string_view key, std::optional<size_t> fallback = {}) const;

  // Likewise a finite number above 0.
  Expected<double> positive(std::string_view key, std::optional<double> fallback = {}) const;
};

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_KEYS_H_
