// Nothing behind the end of a buffer is read or written: each ends at a page that must not be touched.

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nibble/base/aligned_buffer.h"
#include "nibble/base/thread_pool.h"
#include "nibble/kernels/strips.h"
#include "nibble/kernels/test_tokens.h"

namespace nibble::kernels {
namespace {

// A copy of some bytes whose last one is the last of a page.
class Guarded {
 public:
  Guarded(const void* bytes, size_t size) {
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    size_ = (size + page - 1) / page * page + page;
    map_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map_ == MAP_FAILED) throw std::bad_alloc();
    auto* const guard = static_cast<uint8_t*>(map_) + size_ - page;
    ::mprotect(guard, page, PROT_NONE);
    data_ = guard - size;
    if (bytes != nullptr) std::memcpy(data_, bytes, size);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { ::munmap(map_, size_); }

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void* map_;
  size_t size_;
  uint8_t* data_;
};

void check_product(const WeightCase& c, const StripMatrix& matrix, size_t count, size_t rows_per_token) {
  const Strips w = matrix.view();
  const size_t values = w.num_strips() * w.group_ends.size() * kStripOutputs;
  const size_t float_bytes = values * (w.half_scales ? sizeof(uint16_t) : sizeof(float));
  const Guarded codes(w.codes, w.num_strips() * w.strip_bytes());
  const Guarded table(w.table, 16);
  const Guarded scales(w.scales, float_bytes);
  const Guarded zeros(w.zeros, w.zeros == nullptr ? 0 : values);
  const Guarded offsets(w.offsets, w.offsets == nullptr ? 0 : float_bytes);
  Strips guarded = w;
  guarded.codes = codes.as<uint8_t>();
  guarded.table = table.as<uint8_t>();
  guarded.scales = scales.as<void>();
  if (w.zeros != nullptr) guarded.zeros = zeros.as<uint8_t>();
  if (w.offsets != nullptr) guarded.offsets = offsets.as<void>();

  const Tokens tokens(matrix, count, CpuTarget::kScalar, rows_per_token);
  const Guarded inputs(tokens.codes.data(), tokens.codes.size());
  const Guarded input_scales(tokens.scales.data(), tokens.scales.size() * sizeof(float));
  const Guarded input_sums(tokens.sums.data(), tokens.sums.size() * sizeof(float));
  QuantizedInputs x = tokens.view;
  x.codes = inputs.as<int8_t>();
  x.scales = input_scales.as<float>();
  x.sums = input_sums.as<float>();

  AlignedBuffer scratch(strips_scratch_bytes(w, CpuTarget::kAmx));
  std::vector<float> expected(count * w.out_features);
  const Guarded y(nullptr, expected.size() * sizeof(float));
  const auto all = [&](float* out) { return MatrixView<float>(out, count, w.out_features); };
  for (const CpuTarget target : supported_cpu_targets()) {
    strips_product(w, tokens.view, 0, w.num_strips(), all(expected.data()), scratch.as<uint8_t>(), target);
    strips_product(guarded, x, 0, w.num_strips(), all(y.as<float>()), scratch.as<uint8_t>(), target);
    EXPECT_EQ(std::memcmp(y.as<float>(), expected.data(), expected.size() * sizeof(float)), 0)
        << c.name() << " " << cpu_target_name(target) << " " << count;
  }
}

TEST(StripsBounds, NothingBehindABufferIsTouched) {
  ThreadPool pool(1);
  for (const WeightCase& c : strip_cases()) {
    const StripMatrix matrix(random_weight(c, 15), pool);
    for (const size_t count : {1u, 2u, 5u, 13u}) {
      for (const size_t rows_per_token : {1u, 2u}) check_product(c, matrix, count, rows_per_token);
    }
  }
}

TEST(StripsBounds, AReadBehindTheEndWouldBeFoundOut) {
  const Guarded one("x", 1);
  EXPECT_EQ(*one.as<char>(), 'x');
  EXPECT_DEATH(static_cast<void>(*const_cast<volatile char*>(one.as<char>() + 1)), "");
}

}  // namespace
}  // namespace nibble::kernels
