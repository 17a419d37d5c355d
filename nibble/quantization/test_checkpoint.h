#ifndef NIBBLE_QUANTIZATION_TEST_CHECKPOINT_H_
#define NIBBLE_QUANTIZATION_TEST_CHECKPOINT_H_

// For tests: tensors in memory as a checkpoint, the formula matrices of the vectors, and packers for
// what Nibble only reads. Packers go code by code, as the format pages say it, so that they share
// nothing with the readers.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble::test {

class MemoryCheckpoint final : public Checkpoint {
 public:
  void add(const std::string& name, Tensor tensor) {
    tensors_[name] = tensor.info();
    data_[name] = std::move(tensor);
  }
  void remove(const std::string& name) {
    tensors_.erase(name);
    data_.erase(name);
  }
  // The tensors of a quantizer, by suffix.
  void add_all(const std::string& module, const std::map<std::string, Tensor>& tensors) {
    for (const auto& [suffix, tensor] : tensors) add(module + "." + suffix, tensor);
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    const auto found = data_.find(name);
    if (found == data_.end()) return fail(ErrorCode::kNotFound, "no such tensor").at(name);
    return found->second;
  }
  std::string file_of(std::string_view) const override { return "memory"; }
  size_t file_bytes() const override { return 0; }

 private:
  std::map<std::string, Tensor, std::less<>> data_;
};

template <class T>
std::vector<T> values_of(const Tensor& tensor) {
  return copy_elements<T>(tensor);
}

inline Tensor fp16_tensor(Shape shape, const std::vector<float>& values) {
  std::vector<uint16_t> halves;
  for (const float value : values) halves.push_back(float_to_fp16(value));
  return Tensor::of(DType::kF16, std::move(shape), std::move(halves));
}

// W[o][i] = (((131 o + 71 i + 17 o i + 29 i^2) mod 1009) - 504) / 512, exact in float16.
inline std::vector<float> formula_weight(size_t out_features, size_t in_features) {
  std::vector<float> values;
  for (size_t o = 0; o < out_features; ++o) {
    for (size_t i = 0; i < in_features; ++i) {
      const auto mixed = static_cast<int>((131 * o + 71 * i + 17 * o * i + 29 * i * i) % 1009);
      values.push_back(static_cast<float>(mixed - 504) / 512.f);
    }
  }
  return values;
}

// --- GPTQ ----------------------------------------------------------------------------------------

inline std::vector<int> plane_widths(int bits, bool planar) {
  static const std::map<int, std::vector<int>> kPlanes = {{2, {2}},    {3, {2, 1}},    {4, {4}}, {5, {4, 1}},
                                                          {6, {4, 2}}, {7, {4, 2, 1}}, {8, {8}}};
  return planar ? kPlanes.at(bits) : std::vector<int>{bits};
}

// Codes of one column (or one row of zeros), bit by bit.
inline std::vector<uint32_t> pack_gptq(const std::vector<uint32_t>& codes, int bits, bool planar) {
  std::vector<uint32_t> words;
  for (size_t run = 0; run < codes.size(); run += 32) {
    const size_t count = planar ? 32 : std::min<size_t>(32, codes.size() - run);
    int low = 0;
    for (const int width : plane_widths(bits, planar)) {
      const size_t first = words.size();
      words.resize(first + (count * static_cast<size_t>(width) + 31) / 32);
      for (size_t k = 0; k < count && run + k < codes.size(); ++k) {
        for (int b = 0; b < width; ++b) {
          const size_t position = k * static_cast<size_t>(width) + static_cast<size_t>(b);
          words[first + position / 32] |= (codes[run + k] >> (low + b) & 1u) << (position % 32);
        }
      }
      low += width;
    }
  }
  return words;
}

// --- AWQ -----------------------------------------------------------------------------------------

// codes [out, in] -> words of qweight.
inline std::vector<uint32_t> pack_awq_gemm(const std::vector<uint8_t>& codes, size_t out, size_t in) {
  constexpr size_t kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  std::vector<uint32_t> words(in * out / 8);
  for (size_t i = 0; i < in; ++i) {
    for (size_t c = 0; c < out / 8; ++c) {
      for (size_t n = 0; n < 8; ++n) {
        words[i * (out / 8) + c] |= uint32_t{codes[(8 * c + kOrder[n]) * in + i]} << (4 * n);
      }
    }
  }
  return words;
}

inline std::vector<uint32_t> pack_awq_gemv(const std::vector<uint8_t>& codes, size_t out, size_t in) {
  std::vector<uint32_t> words(out * in / 8);
  for (size_t k = 0; k < codes.size(); ++k) words[k / 8] |= uint32_t{codes[k]} << (4 * (k % 8));
  return words;
}

inline std::vector<uint16_t> pack_awq_fast(const std::vector<uint8_t>& codes, size_t out, size_t in) {
  std::vector<uint16_t> words(out / 4 * in);
  for (size_t n = 0; n < out; ++n) {
    for (size_t k = 0; k < in; ++k) {
      const size_t column = 64 * (k / 64) + 16 * (n % 4) + 8 * ((k % 64) / 32) + k % 8;
      const unsigned moved = static_cast<unsigned>(codes[n * in + k]) << (4 * (k % 32 / 8));
      words[n / 4 * in + column] = static_cast<uint16_t>(words[n / 4 * in + column] | moved);
    }
  }
  return words;
}

}  // namespace nibble::test

#endif  // NIBBLE_QUANTIZATION_TEST_CHECKPOINT_H_
