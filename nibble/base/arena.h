#ifndef NIBBLE_BASE_ARENA_H_
#define NIBBLE_BASE_ARENA_H_

#include <cstddef>
#include <cstring>
#include <vector>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/matrix_view.h"

namespace nibble {

// Scratch memory for activations: taken in a stack discipline and given back by the end of a Scope,
// so that a decode step allocates nothing once the arena has grown to its need. One thread at a
// time; workers get parts that were taken for them before the parallel region.
class Arena {
 public:
  // Gives everything taken inside it back. Scopes nest.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() { arena_.release(block_, used_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    const size_t block_;
    const size_t used_;
  };

  // `count` elements, aligned to 64 bytes, not initialised.
  template <class T>
  T* take(size_t count) {
    return reinterpret_cast<T*>(take_bytes(count * sizeof(T)));
  }
  MatrixView<float> take_matrix(size_t rows, size_t cols) { return {take<float>(rows * cols), rows, cols}; }

  // How often memory was asked from the system: constant while decoding.
  size_t num_allocations() const { return num_allocations_; }
  size_t capacity_bytes() const;

 private:
  std::byte* take_bytes(size_t bytes);
  void release(size_t block, size_t used);

  std::vector<AlignedBuffer> blocks_;
  size_t block_ = 0;  // the block that is being filled
  size_t used_ = 0;   // bytes taken from it
  size_t num_allocations_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_BASE_ARENA_H_
