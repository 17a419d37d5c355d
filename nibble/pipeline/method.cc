#include "nibble/pipeline/method.h"

#include <algorithm>
#include <charconv>

namespace nibble {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(separator)) != text.npos; text.remove_prefix(end + 1)) {
    parts.push_back(text.substr(0, end));
  }
  parts.push_back(text);
  return parts;
}

Failure unknown_method(std::string_view text) {
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is not a method", text)
      .with_fix(
          "Methods are float, nf4, fp4, int8, nf4-dq, fp4-dq, and gptq, awq and rtn with bits and group "
          "size: "
          "gptq:3, awq:4:64. Several are separated by commas.");
}

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

QuantizeOptions bitsandbytes(std::string_view kind, bool double_quant) {
  BitsAndBytesConfig config;
  config.load_in_8bit = kind == "int8";
  config.load_in_4bit = !config.load_in_8bit;
  if (config.load_in_4bit) config.bnb_4bit_quant_type = std::string(kind);
  config.bnb_4bit_use_double_quant = double_quant;
  QuantizeOptions options;
  options.config = config;
  return options;
}

Expected<QuantizeOptions> grouped(std::string_view kind, int bits, std::optional<int64_t> group_size) {
  QuantizeOptions options;
  options.fit_group_size = !group_size;
  options.round_to_nearest = kind == "rtn";
  if (kind == "awq") {
    AwqConfig config;
    config.bits = bits;
    config.group_size = group_size.value_or(config.group_size);
    NIBBLE_RETURN_IF_ERROR(config.validate());
    options.config = config;
    return options;
  }
  GPTQConfig config;
  config.bits = bits;
  config.group_size = group_size.value_or(config.group_size);
  config.has_sym = true;
  config.act_group_aware = config.group_size > 0;
  config.damp_percent = 0.01;
  if (bits >= 5 && bits <= 7) config.checkpoint_format = "gptq_p";  // the only layout with room for them
  NIBBLE_RETURN_IF_ERROR(config.validate());
  options.config = config;
  return options;
}

}  // namespace

Expected<Method> parse_method(std::string_view text) {
  const std::vector<std::string_view> parts = split(text, ':');
  Method method = {.name = std::string(text)};
  std::string_view kind = parts.front();
  if (kind == "gptq" || kind == "awq" || kind == "rtn") {
    const std::optional<int64_t> bits = parts.size() > 1 ? whole_number(parts[1]) : std::optional<int64_t>(4);
    const std::optional<int64_t> group = parts.size() > 2 ? whole_number(parts[2]) : std::nullopt;
    if (parts.size() > 3 || !bits || (parts.size() > 2 && !group)) return unknown_method(text);
    if (*bits < 2 || *bits > 8) {
      return fail(ErrorCode::kInvalidArgument, "{} bits: 2 to 8 are known", *bits).at(text);
    }
    if (parts.size() == 1) method.name += ":4";
    NIBBLE_TRY(method.quantize, at(text, grouped(kind, static_cast<int>(*bits), group)));
    return method;
  }
  if (parts.size() > 1) return unknown_method(text);
  if (kind == "float") return method;
  const bool double_quant = kind.ends_with("-dq") || kind.ends_with("+dq");
  if (double_quant) {
    kind.remove_suffix(3);
    method.name = std::string(kind) + "-dq";
  }
  const bool known = kind == "nf4" || kind == "fp4" || (kind == "int8" && !double_quant);
  if (!known) return unknown_method(text);
  method.quantize = bitsandbytes(kind, double_quant);
  return method;
}

Expected<std::vector<Method>> parse_methods(std::string_view text) {
  std::vector<Method> methods;
  for (const std::string_view part : split(text, ',')) {
    NIBBLE_TRY(Method method, parse_method(part));
    const bool twice = std::any_of(methods.begin(), methods.end(),
                                   [&](const Method& other) { return other.name == method.name; });
    if (twice) return fail(ErrorCode::kInvalidArgument, "{} is named twice", method.name);
    methods.push_back(std::move(method));
  }
  return methods;
}

}  // namespace nibble
