#ifndef NIBBLE_BASE_ERROR_H_
#define NIBBLE_BASE_ERROR_H_

// The one error type of the library, and the result type that carries it.
//
//   Expected<Header> parse_header(std::span<const std::byte> bytes) {
//     if (bytes.size() < 8) {
//       return fail(ErrorCode::kDataLoss, "{} bytes, but a header needs 8", bytes.size());
//     }
//     NIBBLE_TRY(const size_t length, read_length(bytes));
//     NIBBLE_RETURN_IF_ERROR(check_length(length));
//     ...
//   }

#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <tl/expected.hpp>

namespace nibble {

// What the caller can do about it: docs/errors.md.
enum class ErrorCode {
  kInvalidArgument,  // change the request
  kNotFound,         // name something that exists
  kDataLoss,         // get the file again: truncated, corrupt, contradictory
  kUnsupported,      // valid, but not implemented: the message names what is
  kOutOfMemory,      // raise a budget or shrink the job
  kUnavailable,      // try again later: disk full, peer gone
  kCancelled,        // the caller asked for it
};

struct [[nodiscard]] Error {
  ErrorCode code;
  std::string what;        // "48 bytes, but F16 [4, 32] needs 256"
  std::string where = {};  // "model-00002-of-00003.safetensors: lm_head.weight"
  std::string fix = {};    // "The download is incomplete: fetch the file again."

  // Puts `outer` in front of `where`; called on the way up.
  Error at(std::string_view outer) &&;
  // Says how to mend it, unless something closer to the cause has said so already.
  Error with_fix(std::string_view how) &&;
};

// "where: what" and, on a second line, the fix: what the command line prints after "error: ".
std::string to_string(const Error& error);

// The exit status of the program: 0 ok, 1 failure, 2 usage, 3 does not fit or unsupported,
// 130 interrupted.
int exit_status(ErrorCode code);

template <class T>
using Expected = tl::expected<T, Error>;
using Status = Expected<void>;

// What a function returns when it fails; it takes the rest of the story by chaining:
//   return fail(ErrorCode::kDataLoss, "{} bytes", n).at(path).with_fix("Fetch it again.");
class [[nodiscard]] Failure : public tl::unexpected<Error> {
 public:
  explicit Failure(Error error) : tl::unexpected<Error>(std::move(error)) {}
  Failure at(std::string_view outer) && { return Failure(std::move(value()).at(outer)); }
  Failure with_fix(std::string_view how) && { return Failure(std::move(value()).with_fix(how)); }
};

template <class... Args>
Failure fail(ErrorCode code, fmt::format_string<Args...> what, Args&&... args) {
  return Failure(Error{code, fmt::format(what, std::forward<Args>(args)...)});
}

// The result with `outer` in front of where its error happened:
//   NIBBLE_TRY(const Json json, at(path, parse_json(text)));
template <class T>
Expected<T> at(std::string_view outer, Expected<T> result) {
  if (result) return result;
  return Failure(std::move(result).error().at(outer));
}

}  // namespace nibble

// NIBBLE_TRY(const auto header, parse_header(bytes));  unwraps, or returns the error.
#define NIBBLE_TRY(declaration, expression) \
  NIBBLE_TRY_(NIBBLE_JOIN_(nibble_result_, __LINE__), declaration, expression)
#define NIBBLE_TRY_(result, declaration, expression)                \
  auto&& result = (expression);                                     \
  if (!result) return ::nibble::Failure(std::move(result).error()); \
  declaration = std::move(*result)
#define NIBBLE_JOIN_(a, b) NIBBLE_JOIN2_(a, b)
#define NIBBLE_JOIN2_(a, b) a##b

// For Status and for results whose value is not wanted.
#define NIBBLE_RETURN_IF_ERROR(expression)                         \
  do {                                                             \
    if (auto&& nibble_status_ = (expression); !nibble_status_)     \
      return ::nibble::Failure(std::move(nibble_status_).error()); \
  } while (false)

#endif  // NIBBLE_BASE_ERROR_H_
