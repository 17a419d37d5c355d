#include "nibble/linalg/gemm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "nibble/base/aligned_buffer.h"
#include "nibble/linalg/gemm_kernels.h"

#define NIBBLE_TARGET_FILE "nibble/linalg/gemm-inl.h"
#include "nibble/kernels/foreach_target.h"

namespace nibble::linalg {
namespace {

// Integers of a line have at most this Euclidean norm, with their rounding (at most half of the root
// of the depth) below 2^15: no integer is larger, and no sum of products of two lines above 2^30.
constexpr double kLargestNorm = 32750;

double norm_of(const PanelSource<float>& source, size_t line) {
  double sum = 0;
  for (size_t k = 0; k < source.depth; ++k) {
    const double x =
        source.along_depth ? source.data[line * source.stride + k] : source.data[k * source.stride + line];
    sum += x * x;
  }
  return std::sqrt(sum);
}

}  // namespace

void choose_scales(const PanelSource<float>& source, const float* squares, size_t width, float* factors,
                   float* scales) {
  constexpr float kTiny = 1e-25f;  // squares below it may have been lost
  for (size_t i = 0; i < width; ++i) {
    factors[i] = 0.f;
    scales[i] = 0.f;
    if (i >= source.width) continue;
    const bool reliable = squares[i] > kTiny && std::isfinite(squares[i]);
    const double norm = reliable ? std::sqrt(double{squares[i]}) : norm_of(source, i);
    if (norm == 0) continue;
    if (!std::isfinite(norm)) {
      factors[i] = scales[i] = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    int exponent = 0;
    std::frexp(kLargestNorm / norm, &exponent);  // in [2^(exponent - 1), 2^exponent)
    exponent = std::min(exponent - 1, 126);
    factors[i] = std::ldexp(1.f, exponent);
    scales[i] = std::ldexp(1.f, -exponent);
  }
}

namespace {

// Operands are packed in blocks of at most this many rows of A and columns of B.
constexpr size_t kMaxBlock = 4096;
// Workers take tiles of the result. The panels of B of a tile stay in the second cache while those
// of A pass by; a worker's next tile is mostly the one below, with the same B.
constexpr size_t kTileColBytes = 1024;
constexpr size_t kTileRows = 112;
constexpr size_t kMaxPanelWidth = 32;
constexpr size_t kLinesToMeasure = 128;  // by one worker: their sums stay in the first cache

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
size_t divide_up(size_t n, size_t divisor) { return (n + divisor - 1) / divisor; }

// Memory for panels, kept for the next call of this thread: a fresh buffer costs page faults.
std::byte* scratch(size_t bytes) {
  thread_local AlignedBuffer buffer;
  if (buffer.size() < bytes) {
    buffer = AlignedBuffer();
    buffer = AlignedBuffer(bytes);
  }
  return buffer.data();
}

struct Range {
  size_t begin = 0;
  size_t size = 0;
  size_t end() const { return begin + size; }
};

Range slice(size_t index, size_t length, size_t end) {
  const size_t begin = index * length;
  return {begin, std::min(length, end - begin)};
}

// One call of gemm().
template <class T>
class Product {
 public:
  Product(const Operand<T>& a, const Operand<T>& b, MatrixView<T> c, const GemmOptions& options,
          const GemmKernels<T>& kernels, ThreadPool& pool)
      : a_(a), b_(b), c_(c), options_(options), kernels_(kernels), pool_(pool) {}

  void run() {
    const size_t depth = a_.transposed ? a_.matrix.rows() : a_.matrix.cols();
    const size_t row_block = round_up(std::min(c_.rows(), kMaxBlock), kernels_.rows);
    const size_t col_block = round_up(std::min(c_.cols(), kMaxBlock), kernels_.cols);
    const size_t steps = divide_up(std::min(depth, kernels_.block_depth), kernels_.step);
    const size_t a_bytes = round_up(row_block / kernels_.rows * kernels_.a_panel_bytes(steps), 64);
    const size_t b_bytes = col_block / kernels_.cols * kernels_.b_panel_bytes(steps);
    const size_t squares = kernels_.squares == nullptr ? 0 : row_block + col_block + 2 * kMaxPanelWidth;
    a_panels_ = scratch(a_bytes + b_bytes + squares * sizeof(float));
    b_panels_ = a_panels_ + a_bytes;
    a_squares_ = reinterpret_cast<float*>(b_panels_ + b_bytes);
    b_squares_ = a_squares_ + row_block + kMaxPanelWidth;
    for (size_t left = 0; left < c_.cols(); left += col_block) {
      const Range cols = {left, std::min(col_block, c_.cols() - left)};
      // At least once: an empty sum is zero.
      for (size_t k = 0; k == 0 || k < depth; k += kernels_.block_depth) {
        add_block(cols, {k, std::min(kernels_.block_depth, depth - k)}, row_block);
      }
    }
  }

 private:
  enum class Coverage { kNone, kPart, kAll };

  // How much of a rectangle of the result is to be computed.
  Coverage coverage(const Range& rows, const Range& cols) const {
    if (options_.lower_triangle) {
      if (cols.begin >= rows.end()) return Coverage::kNone;
      return cols.end() <= rows.begin + 1 ? Coverage::kAll : Coverage::kPart;
    }
    if (options_.upper_triangle) {
      if (rows.begin >= cols.end()) return Coverage::kNone;
      return rows.end() <= cols.begin + 1 ? Coverage::kAll : Coverage::kPart;
    }
    return Coverage::kAll;
  }

  // All rows of `cols`, over one block of depth.
  void add_block(const Range& cols, const Range& depth, size_t row_block) {
    bool pack_b = true;
    for (size_t top = 0; top < c_.rows(); top += row_block) {
      const Range rows = {top, std::min(row_block, c_.rows() - top)};
      if (coverage(rows, cols) == Coverage::kNone) continue;
      pack(rows, pack_b ? cols : Range{}, depth);
      pack_b = false;
      multiply_tiles(rows, cols, depth);
    }
  }

  void pack(const Range& rows, const Range& cols, const Range& depth) {
    const size_t a_count = divide_up(rows.size, kernels_.rows);
    const size_t b_count = divide_up(cols.size, kernels_.cols);
    const size_t steps = divide_up(depth.size, kernels_.step);
    const bool same = rows.begin == cols.begin && rows.size == cols.size && a_.transposed && !b_.transposed &&
                      a_.matrix.data() == b_.matrix.data();  // a Gram matrix
    if (a_.transposed) measure(a_, rows, depth, a_squares_);
    if (!b_.transposed && !same) measure(b_, cols, depth, b_squares_);
    const float* const b_squares = same ? a_squares_ : b_squares_;
    pool_.parallel_for(a_count + b_count, 1, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) {
        if (i < a_count) {
          const Range panel = slice(i, kernels_.rows, rows.size);
          kernels_.pack_a(
              source(a_, !a_.transposed, rows.begin + panel.begin, depth, a_squares_ + panel.begin),
              a_panels_ + i * kernels_.a_panel_bytes(steps));
        } else {
          const Range panel = slice(i - a_count, kernels_.cols, cols.size);
          kernels_.pack_b(source(b_, b_.transposed, cols.begin + panel.begin, depth, b_squares + panel.begin),
                          b_panels_ + (i - a_count) * kernels_.b_panel_bytes(steps));
        }
      }
    });
  }

  // Sums of squares of `lines`, and of what their last panel holds of the next ones, for kernels that
  // need them.
  void measure(const Operand<T>& operand, const Range& lines, const Range& depth, float* squares) {
    if (kernels_.squares == nullptr) return;
    const size_t count = std::min(lines.size + kMaxPanelWidth, operand.matrix.cols() - lines.begin);
    pool_.parallel_for(count, kLinesToMeasure, [&](size_t begin, size_t end, size_t) {
      kernels_.squares(source(operand, false, lines.begin + begin, depth, nullptr), end - begin,
                       squares + begin);
    });
  }

  static PanelSource<T> source(const Operand<T>& operand, bool along_depth, size_t begin, const Range& depth,
                               const float* squares) {
    const MatrixView<const T>& m = operand.matrix;
    return {
        .data = along_depth ? m.row(begin) + depth.begin : m.row(depth.begin) + begin,
        .stride = m.stride(),
        .along_depth = along_depth,
        .width = (along_depth ? m.rows() : m.cols()) - begin,
        .depth = depth.size,
        .squares = squares,
    };
  }

  void multiply_tiles(const Range& rows, const Range& cols, const Range& depth) {
    const size_t tile_rows = round_up(kTileRows, kernels_.rows);
    const size_t tile_cols = round_up(kTileColBytes / sizeof(T), kernels_.cols);
    const size_t tiles_down = divide_up(rows.size, tile_rows);
    const size_t tiles = tiles_down * divide_up(cols.size, tile_cols);
    pool_.parallel_for(tiles, 1, [&](size_t begin, size_t end, size_t) {
      for (size_t i = begin; i < end; ++i) {
        multiply_tile(rows, cols, slice(i % tiles_down, tile_rows, rows.size),
                      slice(i / tiles_down, tile_cols, cols.size), depth);
      }
    });
  }

  // tile_rows, tile_cols: within rows and cols, the packed block.
  void multiply_tile(const Range& rows, const Range& cols, const Range& tile_rows, const Range& tile_cols,
                     const Range& depth) {
    const size_t steps = divide_up(depth.size, kernels_.step);
    for (size_t i = tile_rows.begin; i < tile_rows.end(); i += kernels_.rows) {
      const Range panel_rows = {rows.begin + i, std::min(kernels_.rows, rows.size - i)};
      const std::byte* const a = a_panels_ + i / kernels_.rows * kernels_.a_panel_bytes(steps);
      for (size_t j = tile_cols.begin; j < tile_cols.end(); j += kernels_.cols) {
        const Range panel_cols = {cols.begin + j, std::min(kernels_.cols, cols.size - j)};
        const std::byte* const b = b_panels_ + j / kernels_.cols * kernels_.b_panel_bytes(steps);
        multiply_block(panel_rows, panel_cols, a, b, steps, options_.accumulate || depth.begin > 0);
      }
    }
  }

  void multiply_block(const Range& rows, const Range& cols, const std::byte* a, const std::byte* b,
                      size_t steps, bool accumulate) {
    const Coverage covered = coverage(rows, cols);
    if (covered == Coverage::kNone) return;
    if (covered == Coverage::kAll && rows.size == kernels_.rows && cols.size == kernels_.cols) {
      kernels_.multiply(a, b, steps, c_.row(rows.begin) + cols.begin, c_.stride(), accumulate,
                        options_.negate);
      return;
    }
    T block[kMaxRegisterBlock];
    kernels_.multiply(a, b, steps, block, kernels_.cols, false, options_.negate);
    for (size_t i = 0; i < rows.size; ++i) {
      const size_t row = rows.begin + i;
      const size_t first = options_.upper_triangle ? std::max(row, cols.begin) : cols.begin;
      const size_t last = options_.lower_triangle ? std::min(row + 1, cols.end()) : cols.end();
      for (size_t col = first; col < last; ++col) {
        T& out = c_.row(row)[col];
        const T value = block[i * kernels_.cols + col - cols.begin];
        out = accumulate ? out + value : value;
      }
    }
  }

  const Operand<T>& a_;
  const Operand<T>& b_;
  MatrixView<T> c_;
  const GemmOptions& options_;
  const GemmKernels<T>& kernels_;
  ThreadPool& pool_;
  std::byte* a_panels_ = nullptr;
  std::byte* b_panels_ = nullptr;
  float* a_squares_ = nullptr;
  float* b_squares_ = nullptr;
};

template <class T>
void multiply(const Operand<T>& a, const Operand<T>& b, MatrixView<T> c, const GemmOptions& options,
              const GemmKernels<T>& kernels, ThreadPool& pool) {
  const size_t depth = a.transposed ? a.matrix.rows() : a.matrix.cols();
  NIBBLE_CHECK((a.transposed ? a.matrix.cols() : a.matrix.rows()) == c.rows());
  NIBBLE_CHECK((b.transposed ? b.matrix.rows() : b.matrix.cols()) == c.cols());
  NIBBLE_CHECK((b.transposed ? b.matrix.cols() : b.matrix.rows()) == depth);
  NIBBLE_CHECK(!(options.lower_triangle && options.upper_triangle));
  if (c.rows() == 0 || c.cols() == 0 || (depth == 0 && options.accumulate)) return;
  Product<T>(a, b, c, options, kernels, pool).run();
}

}  // namespace

Arithmetic fastest_arithmetic() {
  // ARM multiplies four floats in an instruction, and pairs of 16-bit integers in none.
  return NIBBLE_X86 && cpu_target() != CpuTarget::kScalar ? Arithmetic::kInt16 : Arithmetic::kF32;
}

void gemm(const Operand<float>& a, const Operand<float>& b, MatrixView<float> c, const GemmOptions& options,
          ThreadPool& pool, CpuTarget target) {
  const bool int16 = options.arithmetic == Arithmetic::kInt16;
  const GemmKernels<float> kernels =
      int16 ? NIBBLE_CHOOSE(int16_kernels, target)() : NIBBLE_CHOOSE(f32_kernels, target)();
  multiply(a, b, c, options, kernels, pool);
}

void gemm(const Operand<double>& a, const Operand<double>& b, MatrixView<double> c,
          const GemmOptions& options, ThreadPool& pool, CpuTarget target) {
  multiply(a, b, c, options, NIBBLE_CHOOSE(f64_kernels, target)(), pool);
}

void mirror_lower(MatrixView<float> c, ThreadPool& pool) {
  NIBBLE_CHECK(c.rows() == c.cols());
  constexpr size_t kBlock = 32;  // squares, so that both the rows read and the rows written stay cached
  pool.parallel_for(divide_up(c.rows(), kBlock), 1, [&](size_t begin, size_t end, size_t) {
    for (size_t top = begin * kBlock; top < std::min(end * kBlock, c.rows()); top += kBlock) {
      const size_t bottom = std::min(top + kBlock, c.rows());
      for (size_t left = top; left < c.cols(); left += kBlock) {
        const size_t right = std::min(left + kBlock, c.cols());
        for (size_t i = top; i < bottom; ++i) {
          for (size_t j = std::max(left, i + 1); j < right; ++j) c.row(i)[j] = c.row(j)[i];
        }
      }
    }
  });
}

}  // namespace nibble::linalg
