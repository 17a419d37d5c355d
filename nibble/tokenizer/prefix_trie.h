#ifndef NIBBLE_TOKENIZER_PREFIX_TRIE_H_
#define NIBBLE_TOKENIZER_PREFIX_TRIE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace nibble {

// Finds which of many strings a text begins with. About nine bytes for each node: the children of a
// node lie side by side, sorted by their byte. Immutable.
class PrefixTrie {
 public:
  static constexpr int32_t kNoValue = -1;
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNoNode = UINT32_MAX;

  struct Entry {
    std::string_view text;  // not empty; of two equal ones the later counts
    int32_t value = 0;
  };
  // All texts together may have fewer than 2^32 bytes.
  explicit PrefixTrie(std::span<const Entry> entries);

  // The node that `byte` leads to, or kNoNode.
  uint32_t child(uint32_t node, char byte) const;
  int32_t value(uint32_t node) const { return values_[node]; }
  // Where `text` leads to from the root, or kNoNode.
  uint32_t find(std::string_view text) const;

 private:
  std::vector<uint32_t> first_child_;  // the children of node n: [first_child_[n], first_child_[n + 1])
  std::vector<uint8_t> labels_;        // by node: the byte that leads to it
  std::vector<int32_t> values_;        // by node
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_PREFIX_TRIE_H_
