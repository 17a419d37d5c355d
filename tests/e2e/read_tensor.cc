#include "tests/e2e/read_tensor.h"

#include <gtest/gtest.h>

#include "nibble/checkpoint/safetensors.h"

namespace nibble::test {

Tensor read_tensor(const std::filesystem::path& path, std::string_view name) {
  const auto file = SafetensorsFile::open(path);
  if (!file) {
    ADD_FAILURE() << to_string(file.error());
    return {};
  }
  const auto tensor = file->tensor(name);
  if (tensor) return *tensor;
  ADD_FAILURE() << to_string(tensor.error());
  return {};
}

}  // namespace nibble::test
