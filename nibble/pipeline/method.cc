#include "nibble/pipeline/method.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "nibble/base/text.h"

namespace nibble {
namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

Failure unknown(std::string_view word, std::string_view why) {
  return fail(ErrorCode::kInvalidArgument, "\"{}\": {}", word, why)
      .at("--methods")
      .with_fix(
          "Methods: float, nf4, nf4-dq, fp4, fp4-dq, int8, and gptq, awq or rtn with :BITS, :GROUP_SIZE "
          "and :EFFORT, as in gptq:4:128 or gptq:3:64:best.");
}

std::optional<int64_t> number(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct BnbKind {
  std::string_view word, name, label, flags;
  bool four_bit, double_quant;
};

constexpr BnbKind kBnbKinds[] = {
    {"nf4", "nf4", "NF4", "--method nf4", true, false},
    {"nf4-dq", "nf4", "NF4 double quant", "--method nf4 --double-quant", true, true},
    {"fp4", "fp4", "FP4", "--method fp4", true, false},
    {"fp4-dq", "fp4", "FP4 double quant", "--method fp4 --double-quant", true, true},
    {"int8", "int8", "LLM.int8", "--method int8", false, false},
};

Method bnb_method(const BnbKind& kind) {
  BitsAndBytesConfig config;
  config.load_in_4bit = kind.four_bit;
  config.load_in_8bit = !kind.four_bit;
  if (kind.four_bit) config.bnb_4bit_quant_type = kind.name;
  config.bnb_4bit_use_double_quant = kind.double_quant;
  Method method;
  method.id = kind.word;
  method.label = kind.label;
  method.name = kind.name;
  method.bits = kind.four_bit ? 4 : 8;
  method.options.config = config;
  method.command = kind.flags;
  return method;
}

struct Grid {
  int64_t bits = 4;
  std::optional<int64_t> group_size;
  std::optional<Effort> effort;
  std::string effort_name;
};

Expected<Grid> parse_grid(std::string_view word, const std::vector<std::string>& parts) {
  Grid grid;
  if (parts.size() > 4) return unknown(word, "too many parts");
  if (parts.size() > 1) {
    const auto bits = number(parts[1]);
    if (!bits || *bits < 2 || *bits > 8) return unknown(word, "bits are 2 to 8");
    grid.bits = *bits;
  }
  if (parts.size() > 2) {
    grid.group_size = number(parts[2]);
    if (!grid.group_size || *grid.group_size < -1 || *grid.group_size == 0) {
      return unknown(word, "a group size is a positive number, or -1");
    }
  }
  if (parts.size() > 3) {
    grid.effort = effort_from_name(parts[3]);
    grid.effort_name = parts[3];
    if (!grid.effort) return unknown(word, "efforts are compat, fast, default and best");
  }
  return grid;
}

Json effort_meta(std::optional<Effort> effort) {
  return {{"effort", effort ? effort_name(*effort) : std::string_view("rtn")}};
}

}  // namespace

GPTQConfig default_gptq_config(int bits, int64_t group_size, bool sym, std::optional<Effort> effort) {
  GPTQConfig config;
  config.bits = bits;
  config.group_size = group_size;
  config.sym = sym;
  config.has_sym = true;
  config.act_group_aware = group_size > 0;
  config.damp_percent = effort == Effort::kCompat ? 0.05 : 0.01;
  // The v1 layout cannot hold a zero point of 0, which asymmetric groups may have, and only gptq_p has
  // room for 5 to 7 bits.
  const bool planar = bits >= 5 && bits <= 7;
  config.checkpoint_format = planar ? "gptq_p" : sym ? "gptq" : "gptq_v2";
  config.quantizer = {"nibble:" NIBBLE_VERSION};
  config.meta["nibble"] = effort_meta(effort);
  return config;
}

AwqConfig default_awq_config(int bits, int64_t group_size, std::optional<Effort> effort) {
  AwqConfig config;
  config.bits = bits;
  config.group_size = group_size;
  config.zero_point = true;
  config.version = "gemm";
  config.meta["nibble"] = effort_meta(effort);
  config.meta["quantizer"] = {"nibble:" NIBBLE_VERSION};
  return config;
}

Expected<Method> parse_method(std::string_view word) {
  for (const BnbKind& kind : kBnbKinds) {
    if (word == kind.word) return bnb_method(kind);
  }
  Method method;
  method.id = word;
  std::replace(method.id.begin(), method.id.end(), ':', '-');
  const std::vector<std::string> parts = split(word, ':');
  method.name = parts[0];
  if (word == "float") {
    method.label = "float";
    method.quantizes = false;
    return method;
  }
  if (method.name != "gptq" && method.name != "awq" && method.name != "rtn") {
    return unknown(word, "there is no such method");
  }
  NIBBLE_TRY(const Grid grid, parse_grid(word, parts));
  if (method.name == "awq" && grid.bits != 4) return unknown(word, "AWQ files hold 4 bits");
  method.bits = static_cast<int>(grid.bits);
  method.options.fit_group_size = !grid.group_size;
  method.options.effort = grid.effort.value_or(Effort::kDefault);
  method.options.round_to_nearest = method.name == "rtn";
  std::optional<Effort> effort;
  if (!method.options.round_to_nearest) effort = method.options.effort;
  const int64_t group_size = grid.group_size.value_or(128);
  if (method.name == "awq") {
    method.options.config = default_awq_config(method.bits, group_size, effort);
  } else {
    method.options.config = default_gptq_config(method.bits, group_size, true, effort);
  }
  method.label = fmt::format("{} {}-bit", upper_case(method.name), grid.bits);
  method.command = fmt::format("--method {} --bits {}", method.name, grid.bits);
  if (grid.group_size) {
    method.label += *grid.group_size > 0 ? fmt::format(" g{}", *grid.group_size) : " per row";
    method.command += fmt::format(" --group-size {}", *grid.group_size);
  }
  if (grid.effort) {
    method.label += fmt::format(" ({})", grid.effort_name);
    method.command += fmt::format(" --effort {}", grid.effort_name);
  }
  return method;
}

Expected<std::vector<Method>> parse_methods(std::string_view words) {
  std::vector<Method> methods;
  for (const std::string& word : split(words, ',')) {
    NIBBLE_TRY(Method method, parse_method(word));
    for (const Method& earlier : methods) {
      if (earlier.id == method.id) return unknown(word, "named twice");
    }
    methods.push_back(std::move(method));
  }
  return methods;
}

}  // namespace nibble
