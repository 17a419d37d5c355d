#include "nibble/evaluation/speed_table.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include <fmt/format.h>

#include "nibble/base/memory.h"

namespace nibble {
namespace {

// What all models were run with; the table says it once.
size_t repetitions(const std::vector<ModelBench>& models) {
  size_t most = 0;
  for (const ModelBench& model : models) {
    for (const BenchRow& row : model.rows) most = std::max(most, row.tokens_per_second.values.size());
  }
  return most;
}

// --- Markdown ---

struct Column {
  std::string title;
  bool right = true;  // numbers
};

const Column kColumns[] = {{"model", false}, {"weights"}, {"params"},  {"threads"}, {"test"},
                           {"t/s"},          {"GB/s"},    {"of read"}, {"GOP/s"},   {"of peak"}};
constexpr size_t kNumColumns = std::size(kColumns);

using Cells = std::array<std::string, kNumColumns>;

std::string short_name(const ModelBench& model) {
  std::filesystem::path path(model.model);
  if (!path.has_filename()) path = path.parent_path();
  std::string name = path.filename().string();
  if (model.quantization != "none") name += " " + model.quantization;
  return name;
}

std::string rate(double value, double spread) { return fmt::format("{:.1f} ± {:.1f}", value, spread); }

std::string giga(double value) { return value > 0 ? fmt::format("{:.1f}", value / 1e9) : ""; }

std::string percent(const std::optional<double>& share) {
  return share ? fmt::format("{:.0f} %", 100 * *share) : "";
}

std::string count_of(size_t parameters) {
  const auto count = static_cast<double>(parameters);
  return count >= 1e9 ? fmt::format("{:.2f} B", count / 1e9) : fmt::format("{:.0f} M", count / 1e6);
}

Cells cells_of(const ModelBench& model, const BenchRow& row) {
  return {short_name(model),
          human_bytes(model.weight_bytes),
          count_of(model.parameters),
          std::to_string(row.threads),
          workload_name(row.workload),
          rate(row.tokens_per_second.median(), row.tokens_per_second.spread()),
          giga(row.bytes_per_second()),
          percent(model.share_of_read(row)),
          giga(row.operations_per_second()),
          percent(model.share_of_arithmetic(row))};
}

// Characters as a terminal counts them: the only ones that are no ASCII are signs of one column.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, size_t width, bool right) {
  const std::string gap(width - width_of(text), ' ');
  return right ? gap + text : text + gap;
}

std::string table_of(const std::vector<Cells>& rows) {
  std::array<size_t, kNumColumns> widths;
  for (size_t c = 0; c < kNumColumns; ++c) {
    widths[c] = kColumns[c].title.size();
    for (const Cells& row : rows) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string out = "|";
  for (size_t c = 0; c < kNumColumns; ++c) {
    out += " " + padded(kColumns[c].title, widths[c], kColumns[c].right) + " |";
  }
  out += "\n|";
  for (size_t c = 0; c < kNumColumns; ++c) {
    out += " " + std::string(widths[c] - 1, '-') + (kColumns[c].right ? ":" : "-") + " |";
  }
  out += "\n";
  for (const Cells& row : rows) {
    out += "|";
    for (size_t c = 0; c < kNumColumns; ++c) out += " " + padded(row[c], widths[c], kColumns[c].right) + " |";
    out += "\n";
  }
  return out;
}

std::string limits_line(const MachineLimits& limits) {
  const auto figure = [](const Repeats& repeats) {
    return rate(repeats.median() / 1e9, repeats.spread() / 1e9);
  };
  std::string line = fmt::format("- {} thread{}: read {} GB/s, f32 {} GOP/s", limits.threads,
                                 limits.threads == 1 ? "" : "s", figure(limits.read), figure(limits.f32));
  if (limits.int8.median() > 0) line += fmt::format(", int8 {} GOP/s", figure(limits.int8));
  return line + "\n";
}

// --- CSV ---

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string number(double value) { return value > 0 ? fmt::format("{:.6g}", value) : ""; }

// One name and one value for each field of a line; JSON has the same names.
std::vector<std::pair<std::string, std::string>> csv_fields(const ModelBench& model, const BenchRow& row) {
  const MachineLimits* const limits = model.limits_for(row.threads);
  const bool probed = limits != nullptr && !limits->read.values.empty();
  const auto limit = [&](Repeats MachineLimits::*which) {
    return probed ? number((limits->*which).median()) : std::string();
  };
  return {{"model", model.model},
          {"quantization", model.quantization},
          {"compute", model.compute},
          {"kernels", model.kernels},
          {"parameters", std::to_string(model.parameters)},
          {"weight_bytes", std::to_string(model.weight_bytes)},
          {"load_seconds", number(model.load_seconds)},
          {"peak_memory_bytes", std::to_string(model.peak_memory_bytes)},
          {"threads", std::to_string(row.threads)},
          {"test", workload_name(row.workload)},
          {"kind", row.workload.kind == Workload::Kind::kPrefill ? "prefill" : "decode"},
          {"tokens", std::to_string(row.workload.tokens)},
          {"batch", std::to_string(row.workload.batch)},
          {"depth", std::to_string(row.workload.depth)},
          {"repetitions", std::to_string(row.tokens_per_second.values.size())},
          {"tokens_per_second", number(row.tokens_per_second.median())},
          {"spread", fmt::format("{:.6g}", row.tokens_per_second.spread())},
          {"bytes_per_step", number(row.bytes_per_step)},
          {"bytes_per_second", number(row.bytes_per_second())},
          {"share_of_read", number(model.share_of_read(row).value_or(0))},
          {"operations_per_second", number(row.operations_per_second())},
          {"share_of_arithmetic", number(model.share_of_arithmetic(row).value_or(0))},
          {"read_limit", limit(&MachineLimits::read)},
          {"f32_limit", limit(&MachineLimits::f32)},
          {"int8_limit", limit(&MachineLimits::int8)}};
}

// --- JSON ---

Json to_json(const Repeats& repeats) {
  if (repeats.values.empty()) return nullptr;
  return {{"median", repeats.median()}, {"spread", repeats.spread()}, {"all", repeats.values}};
}

Json known(double value) { return value > 0 ? Json(value) : Json(); }

Json to_json(const ModelBench& model, const BenchRow& row) {
  const Workload& workload = row.workload;
  return {{"test", workload_name(workload)},
          {"kind", workload.kind == Workload::Kind::kPrefill ? "prefill" : "decode"},
          {"tokens", workload.tokens},
          {"batch", workload.batch},
          {"depth", workload.depth},
          {"threads", row.threads},
          {"tokens_per_second", to_json(row.tokens_per_second)},
          {"bytes_per_step", known(row.bytes_per_step)},
          {"bytes_per_second", known(row.bytes_per_second())},
          {"share_of_read", known(model.share_of_read(row).value_or(0))},
          {"operations_per_second", known(row.operations_per_second())},
          {"share_of_arithmetic", known(model.share_of_arithmetic(row).value_or(0))}};
}

Json to_json(const ModelBench& model) {
  Json limits = Json::array();
  for (const MachineLimits& limit : model.limits) {
    if (limit.read.values.empty()) continue;
    limits.push_back(
        {{"threads", limit.threads},
         {"read_bytes_per_second", to_json(limit.read)},
         {"f32_operations_per_second", to_json(limit.f32)},
         {"int8_operations_per_second", limit.int8.median() > 0 ? to_json(limit.int8) : Json()}});
  }
  Json rows = Json::array();
  for (const BenchRow& row : model.rows) rows.push_back(to_json(model, row));
  return {{"model", model.model},
          {"quantization", model.quantization},
          {"compute", model.compute},
          {"kernels", model.kernels},
          {"arithmetic", model.int8_activations ? "int8" : "f32"},
          {"parameters", model.parameters},
          {"weight_bytes", model.weight_bytes},
          {"load_seconds", model.load_seconds},
          {"peak_memory_bytes", model.peak_memory_bytes},
          {"limits", limits},
          {"tests", rows}};
}

}  // namespace

std::string bench_markdown(const std::vector<ModelBench>& models) {
  std::vector<Cells> rows;
  bool probed = false;
  for (const ModelBench& model : models) {
    for (const BenchRow& row : model.rows) rows.push_back(cells_of(model, row));
    probed = probed || std::any_of(model.limits.begin(), model.limits.end(),
                                   [](const MachineLimits& limits) { return !limits.read.values.empty(); });
  }
  std::string out = table_of(rows);
  out += fmt::format("\nt/s: median of {} ± half the distance between the quartiles.", repetitions(models));
  out += " GB/s: weights and KV cache that a step reads. GOP/s: of the linear layers.\n";
  for (const ModelBench& model : models) {
    out +=
        fmt::format("\n{}: --compute {}, load {:.2f} s, peak memory {}; kernels {}\n", short_name(model),
                    model.compute, model.load_seconds, human_bytes(model.peak_memory_bytes), model.kernels);
    if (!probed) continue;
    out += fmt::format("What the machine reached between the repetitions (\"of peak\" is of {}):\n",
                       model.int8_activations ? "int8" : "f32");
    for (const MachineLimits& limits : model.limits) out += limits_line(limits);
  }
  return out;
}

std::string bench_csv(const std::vector<ModelBench>& models) {
  std::string out;
  for (const ModelBench& model : models) {
    for (const BenchRow& row : model.rows) {
      std::string names, values;
      for (const auto& [name, value] : csv_fields(model, row)) {
        names += (names.empty() ? "" : ",") + name;
        values += (values.empty() ? "" : ",") + quoted(value);
      }
      if (out.empty()) out = names + "\n";
      out += values + "\n";
    }
  }
  return out;
}

Json bench_json(const std::vector<ModelBench>& models) {
  Json json = {{"repetitions", repetitions(models)},
               {"statistic", "median; spread: half the distance between the quartiles"},
               {"models", Json::array()}};
  for (const ModelBench& model : models) json["models"].push_back(to_json(model));
  return json;
}

}  // namespace nibble
