#ifndef NIBBLE_TOKENIZER_MERGE_TABLE_H_
#define NIBBLE_TOKENIZER_MERGE_TABLE_H_

// The merges of byte-pair encoding.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble {

inline constexpr int32_t kNoToken = -1;

struct Merge {
  uint32_t rank = 0;
  int32_t id = kNoToken;  // of the joined token
};

// From a pair of ids to its merge: open addressing, since this lookup is most of the work.
class MergeTable {
 public:
  explicit MergeTable(size_t count) : slots_(std::bit_ceil(2 * count + 2)), mask_(slots_.size() - 1) {}

  // A pair that is there already gets the later rank, as in the original.
  void insert(int32_t left, int32_t right, Merge merge) {
    const uint64_t key = make_key(left, right);
    Slot* slot = &slots_[hash(key) & mask_];
    while (slot->merge.id != kNoToken && slot->key != key) slot = next(slot);
    *slot = {key, merge};
  }

  // Null if the two do not join.
  const Merge* find(int32_t left, int32_t right) const {
    const uint64_t key = make_key(left, right);
    for (const Slot* slot = &slots_[hash(key) & mask_]; slot->merge.id != kNoToken; slot = next(slot)) {
      if (slot->key == key) return &slot->merge;
    }
    return nullptr;
  }

 private:
  struct Slot {
    uint64_t key = 0;
    Merge merge;
  };

  static uint64_t make_key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  }
  static size_t hash(uint64_t key) {  // the finalizer of MurmurHash3
    key = (key ^ (key >> 33)) * 0xFF51AFD7ED558CCDu;
    key = (key ^ (key >> 33)) * 0xC4CEB9FE1A85EC53u;
    return key ^ (key >> 33);
  }
  template <class S>
  S* next(S* slot) const {
    return slot + 1 == slots_.data() + slots_.size() ? slot - mask_ : slot + 1;
  }

  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_MERGE_TABLE_H_
