#ifndef NIBBLE_CONFIG_FILE_ERROR_H_
#define NIBBLE_CONFIG_FILE_ERROR_H_

#include <string_view>
#include <utility>

#include "nibble/base/error.h"

namespace nibble {

// Puts the file's name in front, as at() does, of what is wrong in a model's own settings. They are not what
// the user asked for: kInvalidArgument (usage) becomes kDataLoss, and an error without a way out gets one.
template <class T>
Expected<T> at_file(std::string_view file, Expected<T> result) {
  if (result) return result;
  Error error = std::move(result).error().at(file).with_fix("Correct the file, or fetch it again.");
  if (error.code == ErrorCode::kInvalidArgument) error.code = ErrorCode::kDataLoss;
  return Failure(std::move(error));
}

}  // namespace nibble

#endif  // NIBBLE_CONFIG_FILE_ERROR_H_
