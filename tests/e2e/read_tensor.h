#ifndef NIBBLE_TESTS_E2E_READ_TENSOR_H_
#define NIBBLE_TESTS_E2E_READ_TENSOR_H_

#include <filesystem>
#include <string_view>

#include "nibble/base/tensor.h"

namespace nibble::test {

// A tensor of a file that the program wrote; the test fails, and gets an empty one, where there is none.
Tensor read_tensor(const std::filesystem::path& path, std::string_view name);

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_E2E_READ_TENSOR_H_
