// How a ModelPlan is shown: as JSON and as a table.

#include <algorithm>

#include <fmt/format.h>

#include "nibble/base/memory.h"
#include "nibble/base/printable.h"
#include "nibble/pipeline/model_plan.h"

namespace nibble {
namespace {

std::string time_text(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", std::max(1.0, seconds));
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

std::string rate_text(double rate) {
  if (rate <= 0) return "-";
  return rate < 10 ? fmt::format("{:.1f}", rate) : fmt::format("{:.0f}", rate);
}

// "1.3 GB", with a mark where it is too much.
std::string memory_cell(size_t bytes, bool fits) { return human_bytes(bytes) + (fits ? " " : "*"); }

Json to_json(const RunPlan& run) {
  return {{"peak_memory_bytes", run.peak_memory},
          {"weight_bytes", run.weight_bytes},
          {"program_bytes", run.program_bytes},
          {"buffer_bytes", run.buffer_bytes},
          {"mapped_bytes", run.mapped_bytes},
          {"kv_cache_bytes", run.kv_bytes},
          {"scratch_bytes", run.scratch_bytes},
          {"loading_bytes", run.loading_bytes},
          {"bytes_per_token", run.bytes_per_token},
          {"prefill_tokens_per_second", run.prefill_tokens_per_second},
          {"decode_tokens_per_second", run.decode_tokens_per_second},
          {"decode_full_context_tokens_per_second", run.decode_full_tokens_per_second}};
}

}  // namespace

Json to_json(const QuantizePlan& plan) {
  return {{"modules", plan.modules},
          {"weights", plan.weights},
          {"calibration_tokens", plan.calibration_tokens},
          {"output_bytes", plan.output_bytes},
          {"bits_per_weight", plan.bits_per_weight},
          {"journal_bytes", plan.journal_bytes},
          {"peak_memory_bytes", plan.peak_memory},
          {"activations_on_disk", plan.spill},
          {"operations", plan.operations},
          {"operations_per_second", plan.operations_per_second},
          {"seconds", plan.seconds}};
}

Json to_json(const ModelPlan& plan) {
  Json rows = Json::array();
  for (const PlanRow& row : plan.rows) {
    Json item = {
        {"method", row.method}, {"disk_bytes", row.disk_bytes}, {"bits_per_weight", row.bits_per_weight},
        {"fits", row.runs},     {"run", to_json(row.run)},      {"quantize", nullptr}};
    if (row.quantize) {
      item["quantize"] = to_json(*row.quantize);
      item["quantize"]["fits"] = row.can_be_quantized;
    }
    rows.push_back(std::move(item));
  }
  return {{"model", plan.model},
          {"context", plan.context},
          {"parallel", plan.parallel},
          {"memory_bytes", plan.memory == 0 ? Json() : Json(plan.memory)},
          {"memory_is_limit", plan.memory_is_limit},
          {"methods", rows},
          {"left_out", plan.left_out}};
}

std::string to_text(const ModelPlan& plan) {
  std::string out = fmt::format("{}: {} tokens of context, {} sequence{}", printable(plan.model),
                                plan.context, plan.parallel, plan.parallel == 1 ? "" : "s");
  if (plan.memory > 0) {
    out += fmt::format("; {} {}", human_bytes(plan.memory), plan.memory_is_limit ? "allowed" : "free");
  }
  const auto line = [&out](const auto&... cells) {
    out += fmt::format("{:<11} {:>5} {:>7} {:>7} {:>7} {:>8} {:>6} {:>6} {:>8} {:>6}\n", cells...);
  };
  out += fmt::format("\n\n{:<27}{:<39}{}\n", "", "to run", "to quantize");
  line("method", "bits", "disk", "weights", "cache", "memory ", "prompt", "answer", "memory ", "time");
  bool over = false;
  for (const PlanRow& row : plan.rows) {
    const RunPlan& run = row.run;
    const auto& quantize = row.quantize;
    line(printable(row.method), fmt::format("{:.2f}", row.bits_per_weight), human_bytes(row.disk_bytes),
         human_bytes(run.weight_bytes), human_bytes(run.kv_bytes), memory_cell(run.peak_memory, row.runs),
         rate_text(run.prefill_tokens_per_second), rate_text(run.decode_tokens_per_second),
         quantize ? memory_cell(quantize->peak_memory, row.can_be_quantized) : "",
         quantize ? time_text(quantize->seconds) : "");
    over = over || !row.runs || !row.can_be_quantized;
  }
  out += "\nbits: per weight of the linear layers; prompt, answer: tokens per second, about\n";
  if (over) out += fmt::format("* more than the {} that there are\n", human_bytes(plan.memory));
  for (const std::string& reason : plan.left_out) out += fmt::format("left out: {}\n", printable(reason));
  return out;
}

}  // namespace nibble
