// Matrix products and factors on shapes of real models.
//
//   linalg_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
//
// GFLOP/s: two operations for each element and step of depth that the result needs; time of the one thread
// that works.

#include <algorithm>
#include <vector>

#include <benchmark/benchmark.h>

#include "nibble/linalg/cholesky.h"
#include "nibble/linalg/gemm.h"

namespace nibble::linalg {
namespace {

constexpr size_t kThreads = 1;

template <class T>
std::vector<T> values(size_t count) {
  std::vector<T> result(count);
  uint32_t state = 1;
  for (T& value : result) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<T>(state >> 8) / static_cast<T>(1 << 24) - T(0.5);
  }
  return result;
}

void report(benchmark::State& state, double operations) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(operations * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

struct Shape {
  size_t m, n, k;
  bool a_transposed, b_transposed;
};

Shape shape_of(const benchmark::State& state) {
  return {static_cast<size_t>(state.range(0)), static_cast<size_t>(state.range(1)),
          static_cast<size_t>(state.range(2)), state.range(3) != 0, state.range(4) != 0};
}

template <class T>
void run_product(benchmark::State& state, const GemmOptions& options) {
  const Shape s = shape_of(state);
  const std::vector<T> a = values<T>(s.m * s.k);
  const std::vector<T> b = values<T>(s.k * s.n);
  std::vector<T> c(s.m * s.n);
  const Operand<T> left = {{a.data(), s.a_transposed ? s.k : s.m, s.a_transposed ? s.m : s.k},
                           s.a_transposed};
  const Operand<T> right = {{b.data(), s.b_transposed ? s.n : s.k, s.b_transposed ? s.k : s.n},
                            s.b_transposed};
  ThreadPool pool(kThreads);
  for (auto _ : state) gemm(left, right, {c.data(), s.m, s.n}, options, pool);
  const double half =
      options.lower_triangle ? 0.5 * static_cast<double>(s.m + 1) / static_cast<double>(s.m) : 1;
  report(state, 2 * half * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k));
}

void product_f32(benchmark::State& state) { run_product<float>(state, {}); }
void product_int16(benchmark::State& state) { run_product<float>(state, {.arithmetic = Arithmetic::kInt16}); }
void product_f64(benchmark::State& state) { run_product<double>(state, {}); }
void symmetric_f32(benchmark::State& state) {
  run_product<float>(state, {.accumulate = true, .lower_triangle = true});
}
void symmetric_int16(benchmark::State& state) {
  run_product<float>(state, {.accumulate = true, .lower_triangle = true, .arithmetic = Arithmetic::kInt16});
}

// X Wᵀ of a layer, Aᵀ B over tokens, feedback within a block of columns.
void product_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"m", "n", "k", "ta", "tb"})->Unit(benchmark::kMillisecond);
  b->Args({2048, 576, 576, 0, 1})->Args({2048, 1536, 576, 0, 1})->Args({2048, 4096, 4096, 0, 1});
  b->Args({2048, 2048, 2048, 1, 0})->Args({4096, 128, 2048, 0, 0});
}
void symmetric_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"m", "n", "k", "ta", "tb"})->Unit(benchmark::kMillisecond);
  b->Args({576, 576, 2048, 1, 0})->Args({4096, 4096, 2048, 1, 0});
}
BENCHMARK(product_f32)->Apply(product_shapes);
BENCHMARK(product_int16)->Apply(product_shapes);
BENCHMARK(product_f64)->Apply(product_shapes);
BENCHMARK(symmetric_f32)->Apply(symmetric_shapes);
BENCHMARK(symmetric_int16)->Apply(symmetric_shapes);

// A well conditioned matrix: small numbers, and n on the diagonal.
std::vector<double> positive_definite(size_t n) {
  std::vector<double> a = values<double>(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < i; ++j) a[i * n + j] = a[j * n + i];
    a[i * n + i] = static_cast<double>(n);
  }
  return a;
}

template <class Factor>
void run_factor(benchmark::State& state, Factor factor) {
  const auto n = static_cast<size_t>(state.range(0));
  const std::vector<double> original = positive_definite(n);
  std::vector<double> a(original.size());
  ThreadPool pool(kThreads);
  for (auto _ : state) {
    state.PauseTiming();
    std::copy(original.begin(), original.end(), a.begin());
    state.ResumeTiming();
    factor(MatrixView<double>(a.data(), n, n), pool);
  }
  report(state, static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / 3);
}

void factor_lower(benchmark::State& state) { run_factor(state, cholesky_lower); }
void factor_upper(benchmark::State& state) { run_factor(state, cholesky_upper); }
void inverse(benchmark::State& state) { run_factor(state, invert_upper); }
BENCHMARK(factor_lower)->Arg(576)->Arg(2048)->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK(factor_upper)->Arg(576)->Arg(2048)->Arg(4096)->Unit(benchmark::kMillisecond);
BENCHMARK(inverse)->Arg(576)->Arg(2048)->Arg(4096)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace nibble::linalg
