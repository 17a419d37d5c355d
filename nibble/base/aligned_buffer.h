#ifndef NIBBLE_BASE_ALIGNED_BUFFER_H_
#define NIBBLE_BASE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace nibble {

inline constexpr size_t kHugePage = size_t{2} << 20;  // bytes

// Raw memory for weights and caches: aligned to 64 bytes (a cache line, a zmm register), zeroed,
// and on huge pages from 2 MiB up, since 4 KiB pages cost a third of the read bandwidth. Those are pages that
// nobody has touched: they take memory when they are written, and until then all of them are one.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedBuffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_BASE_ALIGNED_BUFFER_H_
