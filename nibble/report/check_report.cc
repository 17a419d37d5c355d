#include <cmath>
#include <set>
#include <string>
#include <string_view>

#include "nibble/report/report.h"

namespace nibble {
namespace {

// An example of every section with the kind of each value: "!" = must be there and not null.
//   text, texts (a list of them), flag
//   number: any; amount: not negative; share: 0 to 1
constexpr std::string_view kSchema = R"({
  "schema": "text!", "created": "text", "nibble": "text", "command": "text",
  "model": {"name": "text", "architecture": "text", "parameters": "amount", "notes": "texts"},
  "machine": {"cpu": "text", "cores": "amount", "threads": "amount", "memory_bytes": "amount",
              "instruction_set": "text", "kernels": "text", "os": "text"},
  "protocol": {"text": "text", "text_sha256": "text", "tokenizer_sha256": "text", "tokens": "amount",
               "positions": "amount", "bytes": "amount", "window": "amount", "stride": "amount",
               "bos": "flag", "compute": "text", "confidence": "share", "blocks": "amount",
               "speed_rounds": "amount", "prompt_tokens": "amount", "generated_tokens": "amount"},
  "limits": {"memory_bytes": "amount", "decode_tokens_per_second": "amount", "kl": "amount",
             "prefer": "text"},
  "reference": "text",
  "candidates": [{
    "id": "text!", "label": "text", "method": "text", "bits": "amount", "group_size": "number",
    "path": "text",
    "size": {"disk_bytes": "amount", "weight_bytes": "amount", "bits_per_weight": "amount"},
    "quality": {
      "perplexity": {"value": "amount", "low": "amount", "high": "amount"},
      "bits_per_byte": {"value": "amount", "low": "amount", "high": "amount"},
      "kl": {"mean": "number", "low": "number", "high": "number", "median": "number", "p90": "number",
             "p99": "number", "p999": "number", "max": "number"},
      "top1_agreement": {"value": "share", "low": "share", "high": "share"},
      "top5_overlap": {"value": "share", "low": "share", "high": "share"},
      "delta_logprob": {"value": "number", "low": "number", "high": "number"},
      "rms_delta_prob": {"value": "number", "low": "number", "high": "number"}},
    "speed": {
      "load_seconds": {"median": "amount", "min": "amount", "max": "amount"},
      "prefill_tokens_per_second": {"median": "amount", "min": "amount", "max": "amount"},
      "decode_tokens_per_second": {"median": "amount", "min": "amount", "max": "amount"},
      "peak_memory_bytes": {"median": "amount", "min": "amount", "max": "amount"}},
    "tasks": {"questions": "amount",
              "acc": {"value": "share", "low": "share", "high": "share"},
              "acc_norm": {"value": "share", "low": "share", "high": "share"}},
    "layers": [{"layer": "amount!", "relative_error": "amount", "cosine": "number",
                "worst_linear": "text", "worst_linear_error": "amount"}],
    "samples": [{"prompt": "text", "text": "text"}],
    "quantize": {"seconds": "amount", "command": "text"},
    "identical_to_reference": "flag", "fits": "flag", "excluded_because": "texts"}],
  "pairs": [{"a": "text!", "b": "text!", "metric": "text", "difference": "number", "low": "number",
             "high": "number", "p_value": "share", "verdict": "text"}],
  "verdict": {"choice": "text", "headline": "text", "reasons": "texts", "cost": "texts",
              "would_change": "texts", "runner_up": "text", "runner_up_note": "text"}
})";

const Json& schema() {
  static const Json kParsed = Json::parse(kSchema);
  return kParsed;
}

constexpr const char* kFix = "The report is damaged or was edited: run the comparison again.";

Failure wrong(const std::string& where, std::string_view expected, const Json& value) {
  return fail(ErrorCode::kDataLoss, "{} where {} belongs", json_type_name(value), expected)
      .at(where)
      .with_fix(kFix);
}

Status check_leaf(const Json& value, std::string_view kind, const std::string& where) {
  if (kind == "text") return value.is_string() ? Status() : wrong(where, "a string", value);
  if (kind == "flag") return value.is_boolean() ? Status() : wrong(where, "true or false", value);
  if (kind == "texts") {
    if (!value.is_array()) return wrong(where, "a list of strings", value);
    for (size_t i = 0; i < value.size(); ++i) {
      if (!value[i].is_string()) return wrong(fmt::format("{}[{}]", where, i), "a string", value[i]);
    }
    return {};
  }
  if (!value.is_number()) return wrong(where, "a number", value);
  const double number = value.get<double>();
  const bool bounded = kind == "number" || (number >= 0 && (kind == "amount" || number <= 1));
  if (std::isfinite(number) && bounded) return {};
  return fail(ErrorCode::kDataLoss, "{} is not {}", number,
              kind == "share"    ? "between 0 and 1"
              : kind == "amount" ? "a finite number of at least 0"
                                 : "finite")
      .at(where)
      .with_fix(kFix);
}

Status check(const Json& value, const Json& rule, const std::string& where) {
  if (rule.is_string()) {
    std::string_view kind = rule.get_ref<const std::string&>();
    const bool required = kind.ends_with('!');
    if (required) kind.remove_suffix(1);
    if (value.is_null() && !required) return {};
    return check_leaf(value, kind, where);
  }
  if (value.is_null()) return {};
  if (rule.is_array()) {
    if (!value.is_array()) return wrong(where, "a list", value);
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string place = fmt::format("{}[{}]", where, i);
      if (!value[i].is_object()) return wrong(place, "an object", value[i]);
      NIBBLE_RETURN_IF_ERROR(check(value[i], rule[0], place));
    }
    return {};
  }
  if (!value.is_object()) return wrong(where, "an object", value);
  for (const auto& [key, inner] : rule.items()) {
    const std::string place = where.empty() ? key : fmt::format("{}.{}", where, key);
    const auto found = value.find(key);
    if (found != value.end()) {
      NIBBLE_RETURN_IF_ERROR(check(*found, inner, place));
    } else if (inner.is_string() && inner.get_ref<const std::string&>().ends_with('!')) {
      return fail(ErrorCode::kDataLoss, "missing").at(place).with_fix(kFix);
    }
  }
  return {};
}

// The id at `where` must be that of a candidate; what is missing or null is fine.
Status check_id(const Json& object, const char* key, const std::string& where,
                const std::set<std::string>& ids) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null() || ids.contains(found->get<std::string>())) return {};
  return fail(ErrorCode::kDataLoss, "no candidate has the id {}", dump_json(*found, -1))
      .at(where + key)
      .with_fix(kFix);
}

// Present and not null.
const Json* section(const Json& report, const char* key) {
  const auto found = report.find(key);
  return found == report.end() || found->is_null() ? nullptr : &*found;
}

Status check_ids(const Json& report) {
  std::set<std::string> ids;
  if (const Json* candidates = section(report, "candidates")) {
    for (size_t i = 0; i < candidates->size(); ++i) {
      if (ids.insert((*candidates)[i]["id"].get<std::string>()).second) continue;
      return fail(ErrorCode::kDataLoss, "{} is the id of another candidate, too",
                  dump_json((*candidates)[i]["id"], -1))
          .at(fmt::format("candidates[{}].id", i))
          .with_fix(kFix);
    }
  }
  NIBBLE_RETURN_IF_ERROR(check_id(report, "reference", "", ids));
  if (const Json* verdict = section(report, "verdict")) {
    NIBBLE_RETURN_IF_ERROR(check_id(*verdict, "choice", "verdict.", ids));
    NIBBLE_RETURN_IF_ERROR(check_id(*verdict, "runner_up", "verdict.", ids));
  }
  if (const Json* pairs = section(report, "pairs")) {
    for (size_t i = 0; i < pairs->size(); ++i) {
      for (const char* key : {"a", "b"}) {
        NIBBLE_RETURN_IF_ERROR(check_id((*pairs)[i], key, fmt::format("pairs[{}].", i), ids));
      }
    }
  }
  return {};
}

}  // namespace

Status check_report(const Json& report) {
  if (!report.is_object()) {
    return fail(ErrorCode::kDataLoss, "a report is an object, this is {}", json_type_name(report))
        .with_fix(kFix);
  }
  const auto version = report.find("schema");
  if (version != report.end() && version->is_string() && *version != kCompareReportSchema) {
    return fail(ErrorCode::kUnsupported, "{} is not a report of this version, which reads \"{}\"",
                dump_json(*version, -1), kCompareReportSchema)
        .at("schema")
        .with_fix("Run the comparison again, or use the version of Nibble that wrote the report.");
  }
  NIBBLE_RETURN_IF_ERROR(check(report, schema(), ""));
  return check_ids(report);
}

}  // namespace nibble
