#include "nibble/base/aligned_buffer.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include <sys/mman.h>

namespace nibble {
namespace {

constexpr size_t kCacheLine = 64;

size_t rounded_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Pages that nobody has touched: the kernel clears them for whoever does first, so that the threads that fill
// a weight share that work, too, and nothing is cleared twice.
void* map_huge_pages(size_t bytes) {
  const size_t mapped = bytes + kHugePage;  // some huge page begins in the first 2 MiB
  void* const all = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  auto* const first = static_cast<std::byte*>(all);
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(first) % kHugePage) % kHugePage;
  if (before > 0) ::munmap(first, before);
  ::munmap(first + before + bytes, mapped - before - bytes);
  ::madvise(first + before, bytes, MADV_HUGEPAGE);
  return first + before;
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  if (bytes >= kHugePage) {
    data = map_huge_pages(rounded_up(bytes, kHugePage));
  } else {
    data = std::aligned_alloc(kCacheLine, rounded_up(bytes, kCacheLine));
    if (data == nullptr) throw std::bad_alloc();
    std::memset(data, 0, bytes);
  }
  data_ = static_cast<std::byte*>(data);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr && size_ >= kHugePage) {
    ::munmap(data_, rounded_up(size_, kHugePage));
  } else {
    std::free(data_);
  }
}

}  // namespace nibble
