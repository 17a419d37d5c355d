#include "nibble/base/arena.h"

#include <algorithm>

namespace nibble {
namespace {

constexpr size_t kMinBlock = size_t{1} << 20;

}  // namespace

size_t Arena::capacity_bytes() const {
  size_t bytes = 0;
  for (const AlignedBuffer& block : blocks_) bytes += block.size();
  return bytes;
}

std::byte* Arena::take_bytes(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (blocks_.empty() || used_ + bytes > blocks_[block_].size()) {
    // Later blocks may be there from before; one that is too small is replaced.
    if (!blocks_.empty()) ++block_;
    used_ = 0;
    if (block_ >= blocks_.size() || blocks_[block_].size() < bytes) {
      blocks_.resize(block_);
      blocks_.emplace_back(std::max({bytes, kMinBlock, capacity_bytes()}));
      ++num_allocations_;
    }
  }
  std::byte* const data = blocks_[block_].data() + used_;
  used_ += bytes;
  return data;
}

void Arena::release(size_t block, size_t used) {
  block_ = block;
  used_ = used;
  // Empty again and in pieces: one block of the whole size serves the next round without gaps.
  if (block == 0 && used == 0 && blocks_.size() > 1) {
    const size_t bytes = capacity_bytes();
    blocks_.clear();
    blocks_.emplace_back(bytes);
    ++num_allocations_;
  }
}

}  // namespace nibble
