#ifndef NIBBLE_CALIBRATION_ACTIVATION_STORE_H_
#define NIBBLE_CALIBRATION_ACTIVATION_STORE_H_

// One vector per calibration token: the residual stream between blocks, or the input of a linear layer
// between two steps of a block. In memory, or in a file where memory is short.

#include <filesystem>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/dtype.h"
#include "nibble/base/error.h"
#include "nibble/base/matrix_view.h"
#include "nibble/base/thread_pool.h"

namespace nibble {

struct ActivationShape {
  size_t tokens = 0;
  size_t width = 0;
  DType dtype = DType::kBF16;  // or kF32

  size_t bytes() const { return tokens * width * (dtype_bits(dtype) / 8); }
};

// One thread at a time. All rows are zeros at first. Errors are the disk's (kUnavailable); rows are in range.
class ActivationStore {
 public:
  static ActivationStore in_memory(const ActivationShape& shape);
  // The file is made in `folder` and unlinked at once: it is gone when the process is.
  static Expected<ActivationStore> in_file(const ActivationShape& shape, const std::filesystem::path& folder);
  ActivationStore() = default;
  ActivationStore(ActivationStore&& other) noexcept;
  ActivationStore& operator=(ActivationStore&& other) noexcept;
  ~ActivationStore();

  // Takes another shape, as large as the memory or file or smaller; what the rows hold has no meaning then.
  void reshape(const ActivationShape& shape);
  size_t capacity() const { return capacity_; }  // bytes

  // Rows [first, first + count) as float; values: [count, width].
  Status read(size_t first, MatrixView<float> values, ThreadPool& pool) const;
  // Rounds to the store's type.
  Status write(size_t first, MatrixView<const float> values, ThreadPool& pool);

  // All rows as they are stored, for checkpoints of a run. load() takes files of the same shape and type:
  // kDataLoss for another size.
  Status save(const std::filesystem::path& path) const;
  Status load(const std::filesystem::path& path);

  const ActivationShape& shape() const { return shape_; }
  bool empty() const { return shape_.tokens == 0; }

 private:
  Status transfer(size_t offset, void* bytes, size_t count, bool writing) const;
  size_t row_bytes() const { return shape_.width * (dtype_bits(shape_.dtype) / 8); }

  ActivationShape shape_;
  size_t capacity_ = 0;
  AlignedBuffer memory_;
  int file_ = -1;
};

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_ACTIVATION_STORE_H_
