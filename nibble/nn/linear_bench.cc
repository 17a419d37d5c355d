// Linear layers on shapes of real models. Weights rotate through more memory than a last-level cache
// holds, as in a model, where each is read once per token.
//
//   nn_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
//
// of_read: weight bytes per second over what plain reading reaches with one thread, measured just
// before. GOP/s: two operations for each weight and token.

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <time.h>

#include <benchmark/benchmark.h>

#include "nibble/base/aligned_buffer.h"
#include "nibble/kernels/test_weights.h"
#include "nibble/nn/linear.h"

namespace nibble {
namespace {

constexpr size_t kRotatedBytes = size_t{320} << 20;
constexpr size_t kThreads = 1;

// Processor time, not wall time: neighbours on a shared machine then disturb the ratios less.
double cpu_seconds() {
  timespec time = {};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Bytes per second of one thread that only reads: the median of several searches for a byte that is
// not there, which the C library does with the widest loads.
double read_bandwidth() {
  static AlignedBuffer buffer(kRotatedBytes);
  std::memset(buffer.data(), 2, buffer.size());  // or all its pages are one
  std::vector<double> rates;
  for (int pass = 0; pass < 9; ++pass) {
    const double start = cpu_seconds();
    const void* found = std::memchr(buffer.data(), 1, buffer.size());
    benchmark::DoNotOptimize(found);
    rates.push_back(static_cast<double>(buffer.size()) / (cpu_seconds() - start));
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

// `make` until kRotatedBytes are reached; kept until another name asks, since the library calls a
// benchmark several times.
template <class Make>
const std::vector<std::unique_ptr<Linear>>& rotating(const std::string& name, Make make) {
  static std::string last_name;
  static std::vector<std::unique_ptr<Linear>> linears;
  if (name == last_name) return linears;
  last_name = name;
  linears.clear();
  size_t bytes = 0;
  while (bytes < kRotatedBytes) {
    linears.push_back(make());
    bytes += linears.back()->weight_bytes();
  }
  return linears;
}

void run_linears(benchmark::State& state, const std::vector<std::unique_ptr<Linear>>& linears,
                 size_t tokens) {
  const size_t in = linears.front()->in_features();
  const size_t out = linears.front()->out_features();
  const std::vector<float> inputs = normal_inputs(tokens, in, 1);
  std::vector<float> outputs(tokens * out);
  const MatrixView<const float> x(inputs.data(), tokens, in);
  const MatrixView<float> y(outputs.data(), tokens, out);
  ThreadPool pool(kThreads);
  Arena arena;
  ExecutionContext context{pool, arena};

  const double read = read_bandwidth();
  const double start = cpu_seconds();
  size_t next = 0;
  for (auto _ : state) {
    linears[next]->forward(x, y, context);
    next = (next + 1) % linears.size();
    benchmark::ClobberMemory();
  }
  const double seconds = cpu_seconds() - start;
  const auto iterations = static_cast<double>(state.iterations());
  const double weight_rate = iterations * static_cast<double>(linears.front()->weight_bytes()) / seconds;
  state.counters["of_read"] = weight_rate / read;
  state.counters["weights_GB/s"] = weight_rate * 1e-9;
  state.counters["read_GB/s"] = read * 1e-9;
  state.counters["GOP/s"] = iterations * 2e-9 * static_cast<double>(in * out * tokens) / seconds;
  state.SetLabel(std::string(linears.front()->kernel()));
}

void quantized(benchmark::State& state, const WeightCase& c, ComputeMode compute) {
  const std::string name = c.name() + (compute == ComputeMode::kAuto ? " auto" : " f32");
  std::optional<QuantizedWeight> weight;
  ThreadPool pool(1);
  const auto& linears = rotating(name, [&] {
    if (!weight) weight = random_weight(c, 1);
    return make_linear(*weight, {}, {compute, "auto"}, pool).value();
  });
  run_linears(state, linears, static_cast<size_t>(state.range(0)));
}

void BM_Gptq4(benchmark::State& state) {
  quantized(state, {WeightFormula::kAffine, 4096, 4096, 4, 128}, ComputeMode::kAuto);
}
void BM_Gptq2(benchmark::State& state) {
  quantized(state, {WeightFormula::kAffine, 4096, 4096, 2, 128}, ComputeMode::kAuto);
}
void BM_Gptq3(benchmark::State& state) {
  quantized(state, {WeightFormula::kAffine, 4096, 4096, 3, 128}, ComputeMode::kAuto);
}
void BM_Gptq4Exact(benchmark::State& state) {
  quantized(state, {WeightFormula::kAffine, 4096, 4096, 4, 128}, ComputeMode::kF32);
}
// A prompt through a layer of the 1.1B shape, whose codes and activations stay in a core's caches.
void BM_Gptq4Prompt(benchmark::State& state) {
  quantized(state, {WeightFormula::kAffine, 2048, 2048, 4, 128}, ComputeMode::kAuto);
}
void BM_Nf4(benchmark::State& state) {
  quantized(state, {WeightFormula::kCodebook, 4096, 4096, 4, 64}, ComputeMode::kAuto);
}
void BM_Gptq8(benchmark::State& state) {
  quantized(state, {WeightFormula::kAffine, 4096, 4096, 8, 128}, ComputeMode::kAuto);
}
void BM_LlmInt8(benchmark::State& state) {
  quantized(state, {WeightFormula::kRowAbsmax, 4096, 4096, 8, 0, false, false, false, DType::kF16, 6.f},
            ComputeMode::kAuto);
}
void BM_Half(benchmark::State& state) {
  std::vector<uint16_t> values;
  const auto& linears = rotating("half", [&] {
    if (values.empty()) {
      for (const float v : normal_inputs(4096, 4096, 2)) values.push_back(float_to_fp16(v * 0.02f));
    }
    auto buffer = std::make_shared<AlignedBuffer>(values.size() * sizeof(uint16_t));
    std::memcpy(buffer->data(), values.data(), buffer->size());
    const Tensor tensor = {DType::kF16, {4096, 4096}, {buffer->data(), buffer->size()}, buffer};
    return make_linear(tensor, {}, {}).value();
  });
  run_linears(state, linears, static_cast<size_t>(state.range(0)));
}

void token_counts(benchmark::internal::Benchmark* bench) {
  for (const int64_t tokens : {1, 4, 8, 64, 256}) bench->Arg(tokens)->ArgName("tokens");
}
BENCHMARK(BM_Gptq4)->Apply(token_counts);
BENCHMARK(BM_Gptq2)->Apply(token_counts);
BENCHMARK(BM_Gptq3)->Apply(token_counts);
BENCHMARK(BM_Gptq4Prompt)->Arg(510)->ArgName("tokens");
BENCHMARK(BM_Nf4)->Apply(token_counts);
BENCHMARK(BM_Gptq8)->Apply(token_counts);
BENCHMARK(BM_LlmInt8)->Apply(token_counts);
BENCHMARK(BM_Half)->Apply(token_counts);
BENCHMARK(BM_Gptq4Exact)->Apply(token_counts);

}  // namespace
}  // namespace nibble
