#include "nibble/checkpoint/gguf_keys.h"

#include <cmath>

namespace nibble {
namespace {

constexpr uint64_t kMaxSize = uint64_t{1} << 31;

}  // namespace

Expected<std::optional<size_t>> GgufKeys::optional_size(std::string_view key) const {
  const auto found = header.metadata.find(full(key));
  if (found == header.metadata.end()) return std::optional<size_t>();
  const Json* value = &found->second;
  if (value->is_array() && !value->empty()) {
    for (const Json& element : *value) {
      if (element != value->front()) {
        return fail(ErrorCode::kUnsupported, "differs between the layers").at(full(key));
      }
    }
    value = &value->front();
  }
  if (!value->is_number_integer() || *value < 0 || *value > kMaxSize) {
    return fail(ErrorCode::kDataLoss, "{} is no size from 0 to {}",
                value->is_number() ? value->dump() : std::string(json_type_name(*value)), kMaxSize)
        .at(full(key));
  }
  return std::optional<size_t>(value->get<size_t>());
}

Expected<size_t> GgufKeys::size(std::string_view key, std::optional<size_t> fallback) const {
  NIBBLE_TRY(const auto value, optional_size(key));
  const size_t size = value.value_or(fallback.value_or(0));
  if (size == 0)
    return fail(ErrorCode::kDataLoss, "{}", value ? "must not be 0" : "is missing").at(full(key));
  return size;
}

Expected<double> GgufKeys::positive(std::string_view key, std::optional<double> fallback) const {
  NIBBLE_TRY(const auto value, gguf_number(header, full(key)));
  if (!value && !fallback) return fail(ErrorCode::kDataLoss, "is missing").at(full(key));
  const double number = value ? *value : *fallback;
  if (std::isfinite(number) && number > 0) return number;
  return fail(ErrorCode::kDataLoss, "{} is not a positive number", number).at(full(key));
}

}  // namespace nibble
