// Attention of a whole sequence, as calibration and prompts need it.
//
// GFLOP/s: four operations for each channel of each pair of tokens that see each other; CPU time.

#include <vector>

#include <benchmark/benchmark.h>

#include "nibble/kernels/attention.h"

namespace nibble::kernels {
namespace {

constexpr size_t kQueriesAtOnce = 16;

void attend_causally(benchmark::State& state) {
  const auto tokens = static_cast<size_t>(state.range(0));
  const auto head_dim = static_cast<size_t>(state.range(1));
  const auto group = static_cast<size_t>(state.range(2));  // query heads that share keys and values
  const AttentionShape shape = {head_dim, head_dim, 0.125f};
  uint32_t seed = 1;
  const auto fill = [&](std::vector<float>& values) {
    for (float& value : values) {
      seed = seed * 1664525u + 1013904223u;
      value = static_cast<float>(seed >> 8) * 0x1p-23f - 1.f;
    }
  };
  std::vector<std::vector<float>> memory((tokens + kAttentionBlock - 1) / kAttentionBlock);
  std::vector<const float*> blocks;
  for (auto& block : memory) {
    block.resize(2 * kAttentionBlock * head_dim);
    fill(block);
    blocks.push_back(block.data());
  }
  std::vector<float> query(tokens * group * head_dim), out(query.size());
  fill(query);
  std::vector<float> scratch(attention_scratch(kQueriesAtOnce * group));
  std::vector<AttentionRow> rows;
  for (size_t r = 0; r < tokens * group; ++r) {
    rows.push_back({query.data() + r * head_dim, out.data() + r * head_dim, 0, r / group + 1});
  }
  for (auto _ : state) {
    for (size_t r = 0; r < rows.size(); r += kQueriesAtOnce * group) {
      const size_t count = std::min(kQueriesAtOnce * group, rows.size() - r);
      attend(shape, std::span(rows).subspan(r, count), {blocks.data(), 0, kAttentionBlock * head_dim},
             scratch.data());
    }
  }
  const double pairs = 0.5 * static_cast<double>(tokens * (tokens + 1) * group);
  state.counters["GFLOP/s"] = benchmark::Counter(4e-9 * pairs * static_cast<double>(head_dim),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(attend_causally)
    ->ArgNames({"tokens", "head_dim", "group"})
    ->Unit(benchmark::kMillisecond)
    ->Args({512, 64, 3})
    ->Args({512, 64, 1})
    ->Args({2048, 128, 4});

}  // namespace
}  // namespace nibble::kernels
