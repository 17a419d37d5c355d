#include "nibble/base/aligned_buffer.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include <sys/mman.h>

namespace nibble {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kCacheLine = 64;

size_t rounded_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  const size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
  void* const data = std::aligned_alloc(alignment, rounded_up(bytes, alignment));
  if (data == nullptr) throw std::bad_alloc();
  if (bytes >= kHugePage) ::madvise(data, rounded_up(bytes, alignment), MADV_HUGEPAGE);
  std::memset(data, 0, bytes);
  data_ = static_cast<std::byte*>(data);
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace nibble
