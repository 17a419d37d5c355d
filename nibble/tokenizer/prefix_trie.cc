#include "nibble/tokenizer/prefix_trie.h"

#include <algorithm>

namespace nibble {

PrefixTrie::PrefixTrie(std::span<const Entry> entries) {
  std::vector<Entry> sorted(entries.begin(), entries.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Entry& a, const Entry& b) { return a.text < b.text; });
  // Level by level, so that children of one node are neighbours. A node is the range of sorted entries
  // that begin with its `depth` bytes.
  struct Range {
    size_t begin, end;
  };
  std::vector<Range> level = {{0, sorted.size()}};
  labels_.push_back(0);
  values_.push_back(kNoValue);
  for (size_t depth = 0; !level.empty(); ++depth) {
    std::vector<Range> next;
    const size_t first_of_level = values_.size() - level.size();
    for (size_t i = 0; i < level.size(); ++i) {
      first_child_.push_back(static_cast<uint32_t>(values_.size()));
      size_t entry = level[i].begin;
      for (; entry < level[i].end && sorted[entry].text.size() == depth; ++entry) {
        values_[first_of_level + i] = sorted[entry].value;
      }
      while (entry < level[i].end) {
        const char label = sorted[entry].text[depth];
        const size_t begin = entry;
        while (entry < level[i].end && sorted[entry].text[depth] == label) ++entry;
        labels_.push_back(static_cast<uint8_t>(label));
        values_.push_back(kNoValue);
        next.push_back({begin, entry});
      }
    }
    level = std::move(next);
  }
  first_child_.push_back(static_cast<uint32_t>(values_.size()));
}

uint32_t PrefixTrie::child(uint32_t node, char byte) const {
  const auto label = static_cast<uint8_t>(byte);
  uint32_t low = first_child_[node];
  uint32_t high = first_child_[node + 1];
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (labels_[middle] == label) return middle;
    if (labels_[middle] < label) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return kNoNode;
}

uint32_t PrefixTrie::find(std::string_view text) const {
  uint32_t node = kRoot;
  for (const char byte : text) {
    node = child(node, byte);
    if (node == kNoNode) break;
  }
  return node;
}

}  // namespace nibble
