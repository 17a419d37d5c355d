#ifndef NIBBLE_CHECKPOINT_GGUF_BUILDER_H_
#define NIBBLE_CHECKPOINT_GGUF_BUILDER_H_

// For tests: builds the bytes of a GGUF file piece by piece, right or wrong.

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "nibble/checkpoint/gguf.h"

namespace nibble {

class GgufBuilder {
 public:
  uint32_t version = 3;
  uint64_t extra_tensors = 0;  // announced, but not there
  uint64_t extra_pairs = 0;

  template <class T>
  GgufBuilder& add(std::string_view key, const T& value) {
    append_text(pairs_, key);
    append(pairs_, type_of<T>());
    append_value(pairs_, value);
    ++num_pairs_;
    return *this;
  }

  // Another value for a number that has been added as a T.
  template <class T>
  GgufBuilder& replace(std::string_view key, T value) {
    std::string pair;
    append_text(pair, key);
    append(pair, type_of<T>());
    const size_t at = pairs_.find(pair) + pair.size();
    append(pair, value);
    pairs_.replace(at, sizeof(T), pair, pair.size() - sizeof(T));
    return *this;
  }

  template <class T>
  GgufBuilder& add_list(std::string_view key, const std::vector<T>& values) {
    append_text(pairs_, key);
    append(pairs_, uint32_t{9});
    append(pairs_, type_of<T>());
    append(pairs_, uint64_t{values.size()});
    for (const T& value : values) append_value(pairs_, value);
    ++num_pairs_;
    return *this;
  }

  // A pair with any bytes as type and value.
  GgufBuilder& add_raw(std::string_view key, std::string_view bytes) {
    append_text(pairs_, key);
    pairs_.append(bytes);
    ++num_pairs_;
    return *this;
  }

  // `shape` in the order of the file: the length of a row first. `offset`: where it is said to be,
  // if not where it is.
  GgufBuilder& add_tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& shape,
                          std::string_view data, int64_t offset = -1) {
    data_.resize((data_.size() + 31) / 32 * 32);
    append_text(tensors_, name);
    append(tensors_, static_cast<uint32_t>(shape.size()));
    for (const uint64_t size : shape) append(tensors_, size);
    append(tensors_, type);
    append(tensors_, offset < 0 ? uint64_t{data_.size()} : static_cast<uint64_t>(offset));
    data_.append(data);
    ++num_tensors_;
    return *this;
  }

  GgufBuilder& add_floats(std::string_view name, const std::vector<uint64_t>& shape,
                          const std::vector<float>& values) {
    return add_tensor(name, 0, shape, bytes_of(values));
  }

  std::string build() const {
    std::string file = "GGUF";
    append(file, version);
    append(file, num_tensors_ + extra_tensors);
    append(file, num_pairs_ + extra_pairs);
    file += pairs_ + tensors_;
    file.resize((file.size() + 31) / 32 * 32);
    return file + data_;
  }

  template <class T>
  static std::string bytes_of(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
  }

 private:
  template <class T>
  static uint32_t type_of() {
    if constexpr (std::is_same_v<T, uint16_t>) return 2;
    if constexpr (std::is_same_v<T, uint32_t>) return 4;
    if constexpr (std::is_same_v<T, int32_t>) return 5;
    if constexpr (std::is_same_v<T, float>) return 6;
    if constexpr (std::is_same_v<T, bool>) return 7;
    if constexpr (std::is_same_v<T, std::string>) return 8;
    if constexpr (std::is_same_v<T, uint64_t>) return 10;
  }

  template <class T>
  static void append(std::string& to, T value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static void append_text(std::string& to, std::string_view text) {
    append(to, uint64_t{text.size()});
    to.append(text);
  }
  template <class T>
  static void append_value(std::string& to, const T& value) {
    append(to, value);
  }
  static void append_value(std::string& to, const std::string& value) { append_text(to, value); }

  std::string pairs_, tensors_, data_;
  uint64_t num_pairs_ = 0;
  uint64_t num_tensors_ = 0;
};

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_BUILDER_H_
