#include "nibble/evaluation/speed_measurement.h"

#include <algorithm>
#include <chrono>

#include "nibble/base/cancel.h"
#include "nibble/base/machine.h"
#include "nibble/base/memory.h"
#include "nibble/base/progress.h"
#include "nibble/evaluation/speed_runner.h"
#include "nibble/evaluation/statistics.h"
#include "nibble/linalg/machine_speed.h"
#include "nibble/models/model_source.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kProbeSeconds = 0.2;
constexpr size_t kLeastProbeBytes = size_t{256} << 20;

double quantile_of(const std::vector<double>& values, double q) {
  return quantile(std::vector<float>(values.begin(), values.end()), q);
}

// The buffer of the probe; nothing if the machine is not probed.
std::optional<linalg::MachineProbe> make_probe(const BenchOptions& options) {
  if (!options.probe_limits) return std::nullopt;
  const Machine machine = read_machine();
  const size_t memory = machine.usable_memory_bytes();
  const size_t bytes = linalg::probe_buffer_bytes(machine.last_level_cache_bytes(), memory);
  const bool room = memory == 0 || memory / 4 > kLeastProbeBytes;
  return linalg::MachineProbe(room ? std::max(bytes, kLeastProbeBytes) : bytes);
}

void add_limits(const linalg::PoolSpeed& speed, MachineLimits& limits) {
  limits.read.values.push_back(speed.read);
  limits.f32.values.push_back(speed.f32);
  limits.int8.values.push_back(speed.int8);
}

// Every row once, number of threads by number of threads.
Status run_round(SpeedRunner& runner, const std::vector<NumaNode>& nodes, linalg::MachineProbe* probe,
                 Progress& progress, ModelBench& bench) {
  for (MachineLimits& limits : bench.limits) {
    ThreadPool pool(limits.threads, nodes);
    if (probe != nullptr) add_limits(probe->measure(kProbeSeconds, pool), limits);
    for (BenchRow& row : bench.rows) {
      if (row.threads != limits.threads) continue;
      NIBBLE_TRY(const double seconds, at(workload_name(row.workload), runner.run(row.workload, pool)));
      const auto tokens = static_cast<double>(row.workload.tokens * row.workload.batch);
      row.tokens_per_second.values.push_back(tokens / seconds);
      progress.advance();
    }
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
  }
  return {};
}

std::optional<double> share_of(double reached, const Repeats* limit) {
  if (reached <= 0 || limit == nullptr || limit->values.empty()) return std::nullopt;
  const double most = limit->median();
  return most > 0 ? std::optional<double>(reached / most) : std::nullopt;
}

// Whether a model's layers multiply bytes; its head alone may do so beside layers of floats.
bool multiplies_bytes(std::string_view kernels) {
  const auto has = [&](std::string_view part) { return kernels.find(part) != kernels.npos; };
  return has("-a8-") || has("llm-int8") || (has("-a16-") && !has("-f32-"));
}

}  // namespace

double Repeats::median() const { return quantile_of(values, 0.5); }
double Repeats::spread() const { return (quantile_of(values, 0.75) - quantile_of(values, 0.25)) / 2; }

double BenchRow::bytes_per_second() const {
  if (workload.kind != Workload::Kind::kDecode) return 0;
  const double steps_per_second = tokens_per_second.median() / static_cast<double>(workload.batch);
  return bytes_per_step * steps_per_second;
}

double BenchRow::operations_per_second() const {
  return operations * tokens_per_second.median() / static_cast<double>(workload.tokens);
}

const MachineLimits* ModelBench::limits_for(size_t threads) const {
  for (const MachineLimits& candidate : limits) {
    if (candidate.threads == threads) return &candidate;
  }
  return nullptr;
}

std::optional<double> ModelBench::share_of_read(const BenchRow& row) const {
  const MachineLimits* const limit = limits_for(row.threads);
  return share_of(row.bytes_per_second(), limit == nullptr ? nullptr : &limit->read);
}

std::optional<double> ModelBench::share_of_arithmetic(const BenchRow& row) const {
  const MachineLimits* const limit = limits_for(row.threads);
  if (limit == nullptr) return std::nullopt;
  return share_of(row.operations_per_second(), int8_activations ? &limit->int8 : &limit->f32);
}

Status check_model_context(const std::string& model, const FromPretrainedOptions& load,
                           const BenchOptions& options) {
  NIBBLE_TRY(const ModelFiles files, find_model(model, load.revision));
  NIBBLE_TRY(const ModelSource source, at(model, ModelSource::open(files)));
  return at(model, check_context(options.workloads,
                                 options.context.value_or(source.config.max_position_embeddings)));
}

Expected<ModelBench> bench_model(const std::string& model, const FromPretrainedOptions& load,
                                 const BenchOptions& options) {
  ModelBench bench;
  bench.model = model;
  reset_peak_memory();
  const auto begin = Clock::now();
  std::unique_ptr<CausalLM> loaded;
  {
    ThreadPool pool(*std::max_element(options.threads.begin(), options.threads.end()), options.nodes);
    NIBBLE_TRY(loaded, AutoModelForCausalLM::from_pretrained(model, load, pool));
    bench.load_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  const size_t peak_of_loading = peak_memory_bytes();
  bench.quantization = quantization_name(loaded->quantization_config());
  bench.compute = loaded->compute() == ComputeMode::kF32 ? "f32" : "auto";
  bench.kernels = loaded->kernels();
  bench.int8_activations = multiplies_bytes(bench.kernels);
  bench.parameters = loaded->num_parameters();
  bench.weight_bytes = loaded->weight_bytes().total();

  SpeedRunner runner(*loaded, options.workloads);
  for (const size_t threads : options.threads) bench.limits.push_back({.threads = threads});
  for (const Workload& workload : options.workloads) {
    const WorkloadCost cost = runner.cost(workload);
    for (const size_t threads : options.threads) {
      bench.rows.push_back({workload, threads, {}, cost.bytes_per_step, cost.operations});
    }
  }
  {
    ThreadPool pool(*std::max_element(options.threads.begin(), options.threads.end()), options.nodes);
    NIBBLE_RETURN_IF_ERROR(runner.prepare(pool));
  }
  auto probe = make_probe(options);
  {
    Progress progress(model, options.repetitions * bench.rows.size(), "timings");
    for (size_t round = 0; round < options.repetitions; ++round) {
      NIBBLE_RETURN_IF_ERROR(run_round(runner, options.nodes, probe ? &*probe : nullptr, progress, bench));
    }
  }
  // The probe's buffer is resident from the first round to the last.
  const size_t peak = peak_memory_bytes();
  const size_t probe_bytes = probe ? probe->buffer_bytes() : 0;
  bench.peak_memory_bytes = std::max(peak_of_loading, peak > probe_bytes ? peak - probe_bytes : 0);
  return bench;
}

}  // namespace nibble
