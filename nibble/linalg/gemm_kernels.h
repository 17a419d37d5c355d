#ifndef NIBBLE_LINALG_GEMM_KERNELS_H_
#define NIBBLE_LINALG_GEMM_KERNELS_H_

// What gemm() needs of an instruction set: packing of operands into panels, and the product of two
// panels in registers. A panel of A holds a block of its rows, a panel of B of its columns ("width"),
// over a block of the inner dimension ("depth"), in the order the product reads them: all of the width
// for one step of depth, then the next step.

#include <cstddef>

namespace nibble::linalg {

// The part of an operand that becomes one panel.
template <class T>
struct PanelSource {
  const T* data = nullptr;
  size_t stride = 0;         // of the matrix in memory
  bool along_depth = false;  // neighbours in memory are neighbours in depth, not in width
  size_t width = 0;          // what the matrix still has from here on: more than a panel, or less
  size_t depth = 0;
  const float* squares = nullptr;  // GemmKernels::squares of its lines; of those along depth not needed
};

template <class T>
struct GemmKernels {
  size_t rows;         // of a panel of A
  size_t cols;         // of a panel of B
  size_t block_depth;  // of all panels but the last: sums are cut here
  size_t step;         // elements of depth that are packed together
  size_t a_step_bytes;
  size_t b_step_bytes;
  size_t a_head_bytes;  // before the first step
  size_t b_head_bytes;

  size_t a_panel_bytes(size_t steps) const { return a_head_bytes + steps * a_step_bytes; }
  size_t b_panel_bytes(size_t steps) const { return b_head_bytes + steps * b_step_bytes; }

  void (*pack_a)(const PanelSource<T>& source, void* panel);
  void (*pack_b)(const PanelSource<T>& source, void* panel);
  // c = or += plus or minus a b, for rows x cols elements of c.
  void (*multiply)(const void* a, const void* b, size_t steps, T* c, size_t stride, bool accumulate,
                   bool negate);
  // The sums of squares of lines along width, [count]; null where packing needs none.
  void (*squares)(const PanelSource<T>& source, size_t count, float* squares) = nullptr;
};

// Of Arithmetic::kInt16, which has a scale for each line of an operand and block of depth.
constexpr size_t kInt16BlockDepth = 768;

// For lines with these sums of squares, [width]: factor: what makes integers of a line, a power of 2;
// scale: its inverse. NaN, both, for a line that is not finite.
void choose_scales(const PanelSource<float>& source, const float* squares, size_t width, float* factors,
                   float* scales);

// The largest register block of any instruction set.
constexpr size_t kMaxRegisterBlock = 14 * 32;

}  // namespace nibble::linalg

#endif  // NIBBLE_LINALG_GEMM_KERNELS_H_
