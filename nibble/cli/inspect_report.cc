// How a ModelSummary is shown: as JSON and as a page.

#include <algorithm>

#include <fmt/format.h>

#include "nibble/base/memory.h"
#include "nibble/base/printable.h"
#include "nibble/models/inspect_model.h"

namespace nibble {
namespace {

Json layout_json(const WeightLayout& layout) {
  Json out = {{"format", layout.format}, {"bits", layout.bits}, {"group_size", nullptr}};
  if (layout.group_size != 0) out["group_size"] = layout.group_size;
  return out;
}

std::string layout_text(const WeightLayout& layout) {
  if (layout.group_size == 0) return layout.format;
  if (layout.group_size < 0) return fmt::format("{}, {} bits, one group per row", layout.format, layout.bits);
  return fmt::format("{}, {} bits, groups of {}", layout.format, layout.bits, layout.group_size);
}

// 1234567 -> "1.23 M"
std::string human_count(size_t count) {
  const double value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.2f} B", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.2f} M", value / 1e6);
  return fmt::format("{}", count);
}

template <class T>
Json optional_json(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

Json to_json(const ModelSummary& summary) {
  Json quantization = layout_json(summary.layout);
  quantization["method"] = summary.method;
  quantization["modules"] = summary.quantized_modules;
  quantization["exceptions"] = Json::array();
  for (const ModelSummary::Exception& exception : summary.exceptions) {
    Json item = layout_json(exception.layout);
    item["module"] = exception.module;
    quantization["exceptions"].push_back(std::move(item));
  }
  const BytesByClass& bytes = summary.bytes;
  return {
      {"model", summary.model},
      {"architecture", summary.architecture},
      {"model_type", summary.model_type},
      {"supported", summary.supported},
      {"parameters", summary.parameters},
      {"active_parameters", summary.active_parameters},
      {"quantization", quantization},
      {"bytes",
       {{"linear", bytes.linear},
        {"embedding", bytes.embedding},
        {"head", bytes.head},
        {"norm", bytes.norm},
        {"other", bytes.other},
        {"total", bytes.total()},
        {"files", summary.file_bytes}}},
      {"bits_per_weight", {{"linear", summary.linear_bits_per_weight}, {"model", summary.bits_per_weight}}},
      {"config", summary.config},
      {"context_length", optional_json(summary.context_length)},
      {"kv_bytes_per_token", optional_json(summary.kv_bytes_per_token)},
      {"tokenizer", summary.tokenizer},
      {"chat_template", summary.chat_template}};
}

std::string to_text(const ModelSummary& summary) {
  constexpr size_t kShownExceptions = 8;
  std::string out;
  const auto line = [&out](std::string_view label, std::string_view value) {
    out += fmt::format("{:<24} {}\n", printable(label), printable(value));
  };
  line("model", summary.model);
  line("architecture", fmt::format("{} ({}){}", summary.architecture.empty() ? "?" : summary.architecture,
                                   summary.model_type.empty() ? "no model_type" : summary.model_type,
                                   summary.supported ? "" : ", which Nibble cannot run"));
  line("parameters", summary.active_parameters == summary.parameters
                         ? human_count(summary.parameters)
                         : fmt::format("{}, of which a token meets {}", human_count(summary.parameters),
                                       human_count(summary.active_parameters)));
  line("quantization", summary.method);
  line("linear layers", layout_text(summary.layout));
  for (size_t i = 0; i < std::min(kShownExceptions, summary.exceptions.size()); ++i) {
    line("  except",
         fmt::format("{}: {}", summary.exceptions[i].module, layout_text(summary.exceptions[i].layout)));
  }
  if (summary.exceptions.size() > kShownExceptions) {
    line("  except", fmt::format("{} more (--json lists all)", summary.exceptions.size() - kShownExceptions));
  }
  line("bits per weight", fmt::format("{:.2f} in linear layers, {:.2f} in the whole model",
                                      summary.linear_bits_per_weight, summary.bits_per_weight));
  const BytesByClass& bytes = summary.bytes;
  line("size",
       fmt::format("{}: linear {}, embedding {}, head {}, norm {}, other {}", human_bytes(bytes.total()),
                   human_bytes(bytes.linear), human_bytes(bytes.embedding), human_bytes(bytes.head),
                   human_bytes(bytes.norm), human_bytes(bytes.other)));
  if (summary.context_length) line("context", fmt::format("{} tokens", *summary.context_length));
  if (summary.kv_bytes_per_token) {
    line("KV cache", fmt::format("{} per token", human_bytes(*summary.kv_bytes_per_token)));
  }
  line("tokenizer",
       fmt::format("{}{}", summary.tokenizer, summary.chat_template ? ", with chat template" : ""));
  for (const auto& [key, value] : summary.config.items()) line(key, dump_json(value, -1));
  return out;
}

}  // namespace nibble
