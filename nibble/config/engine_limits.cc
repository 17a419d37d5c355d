#include "nibble/config/engine_limits.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <vector>

namespace nibble {
namespace {

struct EngineName {
  Engine engine;
  std::string_view argument;
  std::string_view shown;
};
constexpr std::array kEngines = {
    EngineName{Engine::kVllm, "vllm", "vLLM"},
    EngineName{Engine::kTransformers, "transformers", "Transformers"},
    EngineName{Engine::kGptqModel, "gptqmodel", "GPTQModel"},
};

using Bits = std::span<const int>;
using GroupSizes = std::span<const int64_t>;

constexpr std::array kBits4 = {4};
constexpr std::array kWordBits = {2, 3, 4, 8};
constexpr std::array kPlanarBits = {2, 3, 4, 5, 6, 7, 8};

// In the order in which messages list them. GPTQModel's kernels of GPTQ take exactly these.
constexpr std::array<int64_t, 7> kUsualSizes = {16, 32, 64, 128, 256, 512, 1024};
constexpr std::array<int64_t, 4> kAwqSizes = {16, 32, 64, 128};
constexpr std::array<int64_t, 2> kGemvSizes = {64, 128};
constexpr std::array<int64_t, 3> kGemvFastSizes = {32, 64, 128};
// vLLM's kernels of AWQ count in warps of 32 inputs.
constexpr std::array<int64_t, 6> kWarpSizes = {32, 64, 128, 256, 512, 1024};

// One layout on disk as one engine reads it.
struct LayoutLimits {
  Engine engine;
  std::string_view layout;  // checkpoint_format or version
  Bits bits;
  GroupSizes group_sizes;      // besides -1; empty: any
  bool ragged_groups;          // the last group may have fewer inputs
  bool needs_sym;              // no grids with zero points
  size_t in_features_unit;     // in_features is a multiple of it; 0: of the codes that fill whole words
  size_t out_features_unit;    // likewise
  bool out_features_in_group;  // out_features is a multiple of group_size where in_features is none of 128
};

// GPTQModel 7.7: SUPPORTS_* of nn_modules/qlinear/torch.py, torch_awq.py and gemv*_awq.py; shapes tried out:
// its torch kernel fails where 3-bit codes do not fill whole words. models/loader.py trusts v1 files with
// zero points only if GPTQModel wrote them. Transformers 5 hands both methods to it, and its GPTQConfig
// refuses 5 to 7 bits.
// vLLM: quantization/gptq.py and awq.py (create_weights), csrc/quantization/awq/gemm_kernels.cu; Marlin
// is faster and narrower, so that what it refuses falls back to those.
constexpr LayoutLimits kLimits[] = {
    {Engine::kGptqModel, "gptq", kWordBits, kUsualSizes, true, true, 0, 0, false},
    {Engine::kGptqModel, "gptq_v2", kWordBits, kUsualSizes, true, false, 0, 0, false},
    {Engine::kGptqModel, "gptq_p", kPlanarBits, kUsualSizes, true, false, 32, 32, false},
    {Engine::kGptqModel, "gemm", kBits4, kAwqSizes, false, false, 1, 8, false},
    {Engine::kGptqModel, "gemv", kBits4, kGemvSizes, false, false, 8, 64, false},
    {Engine::kGptqModel, "gemv_fast", kBits4, kGemvFastSizes, false, false, 64, 4, false},
    {Engine::kTransformers, "gptq", kWordBits, kUsualSizes, true, true, 0, 0, false},
    {Engine::kTransformers, "gptq_v2", kWordBits, kUsualSizes, true, false, 0, 0, false},
    {Engine::kTransformers, "gemm", kBits4, kAwqSizes, false, false, 1, 8, false},
    {Engine::kTransformers, "gemv", kBits4, kGemvSizes, false, false, 8, 64, false},
    {Engine::kTransformers, "gemv_fast", kBits4, kGemvFastSizes, false, false, 64, 4, false},
    {Engine::kVllm, "gptq", kWordBits, {}, false, false, 0, 0, false},
    {Engine::kVllm, "gptq_v2", kWordBits, {}, false, false, 0, 0, false},
    {Engine::kVllm, "gemm", kBits4, kWarpSizes, false, false, 1, 64, true},
};

// Stored as gemm, and read as such by all.
std::string_view stored_layout(const QuantizationConfig& config) {
  if (const auto* const gptq = std::get_if<GPTQConfig>(&config)) return gptq->checkpoint_format;
  const std::string_view version = std::get<AwqConfig>(config).version;
  return version == "exllama" || version == "ipex" ? "gemm" : version;
}

const LayoutLimits* find_limits(Engine engine, std::string_view layout) {
  for (const LayoutLimits& limits : kLimits) {
    if (limits.engine == engine && limits.layout == layout) return &limits;
  }
  return nullptr;
}

std::string layouts_of(Engine engine) {
  std::vector<std::string_view> names;
  for (const LayoutLimits& limits : kLimits) {
    if (limits.engine == engine) names.push_back(limits.layout);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

// Codes that fill whole 32-bit words: 8 of 4 bits, 32 of 3.
size_t word_unit(int bits) { return static_cast<size_t>(32 / std::gcd(32, bits)); }

bool divides(int64_t group_size, const WantedLinear& linear) {
  return group_size < 0 || linear.in_features % static_cast<size_t>(group_size) == 0;
}

bool contains(const auto& values, const auto& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// The rule of vLLM's AWQ kernels: Marlin takes rows of a multiple of 128 in groups of up to 128, and the
// other one columns that are a multiple of the group size.
bool fits_awq_kernels(int64_t group_size, const WantedLinear& linear) {
  if (linear.in_features % 128 == 0 && group_size <= 128) return true;
  const size_t group = group_size < 0 ? linear.in_features : static_cast<size_t>(group_size);
  return linear.out_features % group == 0;
}

bool fits(const LayoutLimits& limits, int64_t group_size, const WantedLinear& linear) {
  if (group_size > 0 && !limits.group_sizes.empty() && !contains(limits.group_sizes, group_size))
    return false;
  if (!limits.ragged_groups && !divides(group_size, linear)) return false;
  return !limits.out_features_in_group || fits_awq_kernels(group_size, linear);
}

// What is wrong with the group size, and with the rest; both may be empty.
struct Reasons {
  std::vector<std::string> group_size, rest;
};

Reasons reasons_against(const LayoutLimits& limits, const WantedLinear& linear) {
  Reasons reasons;
  const auto need_multiple = [&](std::string_view what, size_t value, size_t unit) {
    const size_t multiple = unit == 0 ? word_unit(linear.bits) : unit;
    if (value % multiple != 0)
      reasons.rest.push_back(fmt::format("{} {} is no multiple of {}", what, value, multiple));
  };
  if (!contains(limits.bits, linear.bits)) {
    reasons.rest.push_back(fmt::format("it has {} bits, but {} files are read with {}", linear.bits,
                                       limits.layout, fmt::join(limits.bits, ", ")));
  }
  if (limits.needs_sym && !linear.sym) {
    reasons.rest.push_back(
        fmt::format("its grid has zero points, which {} files cannot hold", limits.layout));
  }
  need_multiple("in_features", linear.in_features, limits.in_features_unit);
  need_multiple("out_features", linear.out_features, limits.out_features_unit);
  const int64_t size = linear.group_size;
  if (size > 0 && !limits.group_sizes.empty() && !contains(limits.group_sizes, size)) {
    reasons.group_size.push_back(fmt::format("there is no kernel for group_size {}", size));
  }
  if (!limits.ragged_groups && !divides(size, linear)) {
    reasons.group_size.push_back(
        fmt::format("group_size {} does not divide in_features {}", size, linear.in_features));
  } else if (limits.out_features_in_group && !fits_awq_kernels(size, linear)) {
    reasons.group_size.push_back(
        fmt::format("in_features {} is no multiple of 128, so that group_size {} must divide out_features {}",
                    linear.in_features, size, linear.out_features));
  }
  return reasons;
}

// "Group sizes that fit every layer: 32, 64. Or -1 for one scale per output."
template <class Fits>
std::string list_fitting_sizes(const Fits& fits_every_linear) {
  std::vector<int64_t> sizes;
  for (const int64_t size : kUsualSizes) {
    if (fits_every_linear(size)) sizes.push_back(size);
  }
  const bool whole = fits_every_linear(int64_t{-1});
  const std::string_view or_whole = whole ? " Or -1 for one scale per output." : "";
  if (sizes.empty()) {
    return whole
               ? "No usual group size fits every layer: take -1, one scale per output."
               : "No group size fits every layer: leave this one as it is with --dynamic '{\"-:NAME\": {}}'.";
  }
  return fmt::format("Group sizes that fit every layer: {}.{}", fmt::join(sizes, ", "), or_whole);
}

auto fits_all(std::span<const WantedLinear> linears, const auto& fits_one) {
  return [linears, fits_one](int64_t size) {
    return std::all_of(linears.begin(), linears.end(),
                       [&](const auto& linear) { return fits_one(size, linear); });
  };
}

// A module name as a pattern of `dynamic`.
std::string pattern_of(std::string_view module) {
  std::string pattern;
  for (const char c : module) {
    if (c == '.') pattern += "\\\\";
    pattern += c;
  }
  return pattern;
}

std::string fix_for(const LayoutLimits& limits, const Reasons& reasons, const WantedLinear& linear,
                    std::span<const WantedLinear> linears) {
  if (!reasons.group_size.empty() && reasons.rest.empty()) {
    return list_fitting_sizes(fits_all(
        linears, [&](int64_t size, const WantedLinear& other) { return fits(limits, size, other); }));
  }
  if (!contains(limits.bits, linear.bits))
    return fmt::format("Choose --bits {}.", fmt::join(limits.bits, ", "));
  if (limits.needs_sym && !linear.sym)
    return "Write it with --format gptq_v2, or with symmetric grids (--sym).";
  return fmt::format("Leave it as it is: --dynamic '{{\"-:{}\": {{}}}}'.", pattern_of(linear.module));
}

// vLLM computes q, k and v, and gate and up, as one layer with one set of settings.
Status check_fused(std::span<const WantedLinear> linears) {
  struct Part {
    std::string_view name, whole;
  };
  constexpr std::array kParts = {Part{"q_proj", "qkv_proj"}, Part{"k_proj", "qkv_proj"},
                                 Part{"v_proj", "qkv_proj"}, Part{"gate_proj", "gate_up_proj"},
                                 Part{"up_proj", "gate_up_proj"}};
  std::map<std::string, const WantedLinear*> first;
  for (const WantedLinear& linear : linears) {
    const size_t name = linear.module.rfind('.') + 1;  // 0 where there is no dot
    const auto part = std::find_if(kParts.begin(), kParts.end(),
                                   [&](const Part& p) { return p.name == linear.module.substr(name); });
    if (part == kParts.end()) continue;
    const auto [found, is_new] =
        first.emplace(linear.module.substr(0, name) + std::string(part->whole), &linear);
    const WantedLinear& other = *found->second;
    const auto settings = [](const WantedLinear& l) {
      return std::tuple(l.bits, l.group_size, l.sym, l.desc_act);
    };
    if (is_new || settings(other) == settings(linear)) continue;
    return fail(ErrorCode::kInvalidArgument,
                "vLLM computes it together with {} as {}, so that both need the same bits, group_size, sym "
                "and "
                "desc_act",
                other.module, part->whole)
        .at(linear.module)
        .with_fix("Let the rules of --dynamic match all of them, or none.");
  }
  return {};
}

Status check_bitsandbytes(Engine engine, const BitsAndBytesConfig& config) {
  if (engine == Engine::kGptqModel) {
    return fail(ErrorCode::kInvalidArgument, "GPTQModel does not read files of bitsandbytes")
        .with_fix("Use --for transformers or --for vllm, or quantize with --method gptq.");
  }
  if (engine == Engine::kVllm && config.bnb_4bit_quant_storage.value_or(DType::kU8) != DType::kU8) {
    return fail(ErrorCode::kInvalidArgument, "vLLM reads bnb_4bit_quant_storage uint8 only, not {}",
                dtype_name(*config.bnb_4bit_quant_storage))
        .with_fix("Leave bnb_4bit_quant_storage out.");
  }
  return {};
}

}  // namespace

Expected<Engine> engine_from_name(std::string_view name) {
  std::vector<std::string_view> names;
  for (const EngineName& known : kEngines) {
    if (known.argument == name) return known.engine;
    names.push_back(known.argument);
  }
  return fail(ErrorCode::kInvalidArgument, "there is no engine \"{}\"", name)
      .with_fix(fmt::format("Choose one of {}.", fmt::join(names, ", ")));
}

std::string_view engine_name(Engine engine) {
  return std::find_if(kEngines.begin(), kEngines.end(),
                      [&](const EngineName& e) { return e.engine == engine; })
      ->shown;
}

namespace {

// Transformers takes one setting for all modules, and no head.
Status check_one_setting(const GPTQConfig& config) {
  const bool own_rules = std::any_of(config.dynamic.begin(), config.dynamic.end(),
                                     [](const DynamicRule& rule) { return !rule.skip; });
  if (!config.lm_head && !own_rules) return {};
  return fail(ErrorCode::kInvalidArgument, "Transformers reads {} as it reads every other layer",
              config.lm_head ? "a quantized head" : "modules with their own bits or groups")
      .with_fix("Leave --lm-head and rules of --dynamic that change a value out; rules that skip are fine.");
}

}  // namespace

Status check_engine(Engine engine, const QuantizationConfig& config, std::span<const WantedLinear> linears) {
  if (const auto* const bnb = std::get_if<BitsAndBytesConfig>(&config))
    return check_bitsandbytes(engine, *bnb);
  if (const auto* const gptq = std::get_if<GPTQConfig>(&config); gptq && engine == Engine::kTransformers) {
    NIBBLE_RETURN_IF_ERROR(check_one_setting(*gptq));
  }
  const LayoutLimits* const limits = find_limits(engine, stored_layout(config));
  if (limits == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "{} does not read the layout {}", engine_name(engine),
                stored_layout(config))
        .with_fix(fmt::format("Choose --format {}.", layouts_of(engine)));
  }
  for (const WantedLinear& linear : linears) {
    const Reasons reasons = reasons_against(*limits, linear);
    std::vector<std::string> all = reasons.rest;
    all.insert(all.end(), reasons.group_size.begin(), reasons.group_size.end());
    if (all.empty()) continue;
    return fail(ErrorCode::kInvalidArgument, "{} cannot read this layer: {}", engine_name(engine),
                fmt::join(all, "; "))
        .at(linear.module)
        .with_fix(fix_for(*limits, reasons, linear, linears));
  }
  return engine == Engine::kVllm ? check_fused(linears) : Status();
}

Status check_group_size(const QuantizationConfig& config, std::span<const WantedLinear> linears) {
  if (std::holds_alternative<BitsAndBytesConfig>(config)) return {};
  const bool ragged = std::holds_alternative<GPTQConfig>(config);
  const auto fits_one = [](int64_t size, const WantedLinear& linear) { return divides(size, linear); };
  for (const WantedLinear& linear : linears) {
    const int64_t size = linear.group_size;
    if (divides(size, linear)) continue;
    const bool of_some = std::any_of(linears.begin(), linears.end(), [&](const WantedLinear& other) {
      return other.group_size == size && divides(size, other);
    });
    if (ragged && of_some) continue;
    return fail(ErrorCode::kInvalidArgument, "group_size {} does not divide in_features {}", size,
                linear.in_features)
        .at(linear.module)
        .with_fix(list_fitting_sizes(fits_all(linears, fits_one)));
  }
  return {};
}

std::optional<int64_t> fitting_group_size(std::optional<Engine> engine, std::span<const WantedLinear> linears,
                                          int64_t wanted) {
  if (wanted < 0) return wanted;
  const GroupSizes sizes = engine == Engine::kVllm ? GroupSizes(kWarpSizes) : GroupSizes(kUsualSizes);
  const auto fits_every =
      fits_all(linears, [](int64_t size, const WantedLinear& l) { return divides(size, l); });
  std::optional<int64_t> best;
  for (const int64_t size : sizes) {
    if (size <= wanted && fits_every(size)) best = size;
  }
  return best;
}

}  // namespace nibble
