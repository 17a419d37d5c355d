#include "nibble/config/dynamic_rules.h"

#include <algorithm>
#include <array>
#include <memory>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nibble {
namespace {

// Patterns come with the checkpoint: they may neither be huge nor run for long. Module names have
// about 60 bytes, so that an honest pattern needs a few hundred steps.
constexpr size_t kMaxPatternBytes = 10'000;
constexpr uint32_t kMaxMatchSteps = 100'000;
constexpr uint32_t kMaxDepth = 10'000;
constexpr uint32_t kMaxHeapKiB = 10'000;

struct Pcre2Deleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};
template <class T>
using Pcre2Ptr = std::unique_ptr<T, Pcre2Deleter>;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 200> text = {};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

Expected<Pcre2Ptr<pcre2_code>> compile(const std::string& pattern) {
  const Pcre2Ptr<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pcre2Ptr<pcre2_code> code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                          PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error,
                                          &offset, context.get()));
  if (!code) {
    return fail(ErrorCode::kInvalidArgument, "the pattern {} of dynamic is not valid: {} (at byte {})",
                shown(pattern), pcre2_message(error), offset);
  }
  return code;
}

Expected<bool> matches(const std::string& pattern, std::string_view module) {
  NIBBLE_TRY(const auto code, compile(pattern));
  const Pcre2Ptr<pcre2_match_data> data(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const Pcre2Ptr<pcre2_match_context> context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMaxMatchSteps);
  pcre2_set_depth_limit(context.get(), kMaxDepth);
  pcre2_set_heap_limit(context.get(), kMaxHeapKiB);
  const int result = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0,
                                 data.get(), context.get());
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    return fail(ErrorCode::kInvalidArgument, "the pattern {} of dynamic fails on the module {}: {}",
                shown(pattern), shown(module), pcre2_message(result));
  }
  return true;
}

void check_overrides(const DynamicRule& rule, Faults& faults) {
  Faults inner;
  FieldReader reader(rule.overrides, inner);
  int64_t number = 0;
  bool flag = false;
  reader.read_integer({"bits"}, 2, 8, "an integer from 2 to 8", number);
  reader.read_integer({"group_size"}, -1, INT32_MAX, "-1 or a positive integer", number);
  reader.read({"sym"}, flag);
  reader.read({"desc_act"}, flag);
  if (rule.overrides.contains("group_size") && rule.overrides["group_size"] == 0) {
    inner.add("group_size is 0, but must be -1 or a positive integer");
  }
  if (const Status status = inner.status(); !status) {
    faults.add("dynamic {}: {}", shown(rule.pattern), status.error().what);
  }
}

}  // namespace

std::vector<DynamicRule> read_dynamic(const Json& dynamic, Faults& faults) {
  std::vector<DynamicRule> rules;
  if (!dynamic.is_object()) {
    faults.add("dynamic is {}, but must be an object from patterns to settings", shown(dynamic));
    return rules;
  }
  for (const auto& [key, value] : dynamic.items()) {
    DynamicRule rule{.pattern = key};
    if (rule.pattern.starts_with("-:")) rule.skip = true;
    if (rule.skip || rule.pattern.starts_with("+:")) rule.pattern.erase(0, 2);
    if (const auto code = compile(rule.pattern); !code) faults.add("{}", code.error().what);
    if (value.is_object()) {
      rule.overrides = value;
    } else if (!rule.skip) {
      faults.add("dynamic {} is {}, but must be an object", shown(key), shown(value));
    }
    if (!rule.skip) check_overrides(rule, faults);
    rules.push_back(std::move(rule));
  }
  std::stable_partition(rules.begin(), rules.end(), [](const DynamicRule& rule) { return rule.skip; });
  return rules;
}

Json write_dynamic(const std::vector<DynamicRule>& rules) {
  Json json = Json::object();
  for (const DynamicRule& rule : rules) json[(rule.skip ? "-:" : "+:") + rule.pattern] = rule.overrides;
  return json;
}

Expected<const DynamicRule*> find_dynamic_rule(const GPTQConfig& config, std::string_view module) {
  for (const bool skip : {true, false}) {
    for (const DynamicRule& rule : config.dynamic) {
      if (rule.skip != skip) continue;
      NIBBLE_TRY(const bool found, matches(rule.pattern, module));
      if (found) return &rule;
    }
  }
  return nullptr;
}

}  // namespace nibble
