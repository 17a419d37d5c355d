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

// What a rule may change while quantizing. GPTQModel has more (damp_percent, mse...), which stay as
// they are for the whole model here: to ignore one in silence would be worse than to refuse it.
constexpr std::array<std::string_view, 4> kRuleKeys = {"bits", "group_size", "sym", "desc_act"};
constexpr std::string_view kGrammar =
    "Write '{\"-:PATTERN\": {}, \"+:PATTERN\": {\"bits\": 8, \"group_size\": 32}}': \"-:\" leaves modules as "
    "they "
    "are, \"+:\" changes bits, group_size, sym or desc_act.";

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

Expected<Pcre2Ptr<pcre2_code>> compile(const std::string& pattern, std::string_view key = "dynamic") {
  const Pcre2Ptr<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pcre2Ptr<pcre2_code> code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                          PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error,
                                          &offset, context.get()));
  if (!code) {
    return fail(ErrorCode::kInvalidArgument, "the pattern {} of {} is not valid: {} (at byte {})",
                shown(pattern), key, pcre2_message(error), offset);
  }
  return code;
}

std::string rule_key(const DynamicRule& rule) { return (rule.skip ? "-:" : "+:") + rule.pattern; }

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

Expected<bool> matches_pattern(const std::string& pattern, std::string_view module, std::string_view key) {
  NIBBLE_TRY(const auto code, compile(pattern, key));
  const Pcre2Ptr<pcre2_match_data> data(pcre2_match_data_create_from_pattern(code.get(), nullptr));
  const Pcre2Ptr<pcre2_match_context> context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMaxMatchSteps);
  pcre2_set_depth_limit(context.get(), kMaxDepth);
  pcre2_set_heap_limit(context.get(), kMaxHeapKiB);
  const int result = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0,
                                 data.get(), context.get());
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    return fail(ErrorCode::kInvalidArgument, "the pattern {} of {} fails on the module {}: {}",
                shown(pattern), key, shown(module), pcre2_message(result));
  }
  return true;
}

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

std::string escape_pattern(std::string_view word) {
  std::string pattern;
  for (const char c : word) {
    if (std::string_view("\\.^$|()[]{}*+?").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

Json write_dynamic(const std::vector<DynamicRule>& rules) {
  Json json = Json::object();
  for (const DynamicRule& rule : rules) json[rule_key(rule)] = rule.overrides;
  return json;
}

Expected<std::vector<DynamicRule>> parse_dynamic(std::string_view text) {
  const auto json = parse_json(text);
  if (!json) return fail(ErrorCode::kInvalidArgument, "dynamic: {}", json.error().what).with_fix(kGrammar);
  Faults faults;
  std::vector<DynamicRule> rules = read_dynamic(*json, faults);
  for (const DynamicRule& rule : rules) {
    if (rule.skip) continue;
    if (rule.overrides.empty()) faults.add("dynamic {}: it changes nothing", shown(rule_key(rule)));
    for (const auto& [key, value] : rule.overrides.items()) {
      if (std::find(kRuleKeys.begin(), kRuleKeys.end(), key) != kRuleKeys.end()) continue;
      faults.add("dynamic {}: {} is not a setting of single modules, but {} are", shown(rule_key(rule)),
                 shown(key), joined(kRuleKeys));
    }
  }
  if (const Status status = faults.status(); !status) return Failure(status.error()).with_fix(kGrammar);
  return rules;
}

Expected<const DynamicRule*> find_dynamic_rule(const GPTQConfig& config, std::string_view module) {
  const auto own = config.module_rules.find(module);
  if (own != config.module_rules.end()) return &own->second;
  for (const bool skip : {true, false}) {
    for (const DynamicRule& rule : config.dynamic) {
      if (rule.skip != skip) continue;
      NIBBLE_TRY(const bool found, matches_pattern(rule.pattern, module, "dynamic"));
      if (found) return &rule;
    }
  }
  return nullptr;
}

}  // namespace nibble
