#include "nibble/base/error.h"

#include "nibble/base/printable.h"

namespace nibble {

Error Error::at(std::string_view outer) && {
  where = where.empty() ? std::string(outer) : fmt::format("{}: {}", outer, where);
  return std::move(*this);
}

Error Error::with_fix(std::string_view how) && {
  if (fix.empty()) fix = how;
  return std::move(*this);
}

std::string to_string(const Error& error) {
  std::string text = printable(error.what);
  if (!error.where.empty()) text = fmt::format("{}: {}", printable(error.where), text);
  if (!error.fix.empty()) text += fmt::format("\n  {}", printable(error.fix));
  return text;
}

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return 2;
    case ErrorCode::kUnsupported:
    case ErrorCode::kOutOfMemory:
      return 3;
    case ErrorCode::kCancelled:
      return 130;
    case ErrorCode::kNotFound:
    case ErrorCode::kDataLoss:
    case ErrorCode::kUnavailable:
      return 1;
  }
  return 1;
}

}  // namespace nibble
