// What the multipliers of this CPU can do at most, from registers: linalg_bench's products are to be read
// beside these. One thread, CPU time.

#include <benchmark/benchmark.h>

namespace {

// Twelve independent sums: more than any latency needs.
#define NIBBLE_TWELVE(op)                                                                            \
  op ", %%zmm0\n" op ", %%zmm1\n" op ", %%zmm2\n" op ", %%zmm3\n" op ", %%zmm4\n" op ", %%zmm5\n" op \
     ", %%zmm6\n" op ", %%zmm7\n" op ", %%zmm8\n" op ", %%zmm9\n" op ", %%zmm10\n" op ", %%zmm11\n"
#define NIBBLE_PEAK(name, op, operations, feature)                                                         \
  void name(benchmark::State& state) {                                                                     \
    if (!__builtin_cpu_supports(feature)) return state.SkipWithError("this CPU has no " feature);          \
    constexpr int kRounds = 100000;                                                                        \
    for (auto _ : state) {                                                                                 \
      for (int i = 0; i < kRounds; ++i) {                                                                  \
        asm volatile(NIBBLE_TWELVE(op)::                                                                   \
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                           "xmm10", "xmm11");                                                              \
      }                                                                                                    \
    }                                                                                                      \
    state.counters["GFLOP/s"] =                                                                            \
        benchmark::Counter(12e-9 * (operations)*kRounds, benchmark::Counter::kIsIterationInvariantRate);   \
  }                                                                                                        \
  BENCHMARK(name)->Unit(benchmark::kMillisecond)

NIBBLE_PEAK(peak_f32, "vfmadd231ps %%zmm12, %%zmm13", 32, "avx512f");
NIBBLE_PEAK(peak_f64, "vfmadd231pd %%zmm12, %%zmm13", 16, "avx512f");
NIBBLE_PEAK(peak_bf16, "vdpbf16ps %%zmm12, %%zmm13", 64, "avx512bf16");
NIBBLE_PEAK(peak_int16, "vpdpwssd %%zmm12, %%zmm13", 64, "avx512vnni");
NIBBLE_PEAK(peak_int8, "vpdpbusd %%zmm12, %%zmm13", 128, "avx512vnni");

}  // namespace
