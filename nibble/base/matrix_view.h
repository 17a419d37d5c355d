#ifndef NIBBLE_BASE_MATRIX_VIEW_H_
#define NIBBLE_BASE_MATRIX_VIEW_H_

// A borrowed row-major matrix. Whoever made it says who owns the data and for how long.

#include <cstddef>
#include <span>
#include <type_traits>

#include "nibble/base/check.h"

namespace nibble {

template <class T>
class MatrixView {
 public:
  MatrixView() = default;
  MatrixView(T* data, size_t rows, size_t cols) : MatrixView(data, rows, cols, cols) {}
  // stride: elements from the start of one row to the start of the next, at least cols.
  MatrixView(T* data, size_t rows, size_t cols, size_t stride)
      : data_(data), rows_(rows), cols_(cols), stride_(stride) {
    NIBBLE_CHECK(stride >= cols);
  }
  // A MatrixView<float> where a MatrixView<const float> is wanted.
  template <class U>
  requires std::is_same_v<const U, T> MatrixView(const MatrixView<U>& other)
      : MatrixView(other.data(), other.rows(), other.cols(), other.stride()) {}

  T* data() const { return data_; }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  size_t stride() const { return stride_; }
  T* row(size_t r) const { return data_ + r * stride_; }
  std::span<T> row_span(size_t r) const { return {row(r), cols_}; }
  MatrixView rows(size_t begin, size_t count) const {
    NIBBLE_CHECK(begin + count <= rows_);
    return {data_ + begin * stride_, count, cols_, stride_};
  }
  MatrixView cols(size_t begin, size_t count) const {
    NIBBLE_CHECK(begin + count <= cols_);
    return {data_ + begin, rows_, count, stride_};
  }

 private:
  T* data_ = nullptr;
  size_t rows_ = 0;
  size_t cols_ = 0;
  size_t stride_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_BASE_MATRIX_VIEW_H_
