// Choosing a token of a large vocabulary. CPU time.

#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "nibble/generation/sampler.h"

namespace nibble {
namespace {

constexpr size_t kVocabulary = 151'936;  // Qwen2.5's

// 20 likely tokens and a long tail, which has together as much weight as a head of 13.
std::vector<float> some_logits(float head) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(-2.f, 2.5f);
  std::vector<float> logits(kVocabulary);
  for (float& v : logits) v = normal(rng);
  for (size_t i = 0; i < 20; ++i) logits[i * 7001] = head - static_cast<float>(i) / 4;
  return logits;
}

void choose(benchmark::State& state, const GenerationConfig& config, float head = 20.f) {
  const std::vector<float> logits = some_logits(head);
  std::vector<float> copy = logits;
  Sampler sampler(config, {}, logits.size());
  for (auto _ : state) {
    state.PauseTiming();
    copy = logits;
    state.ResumeTiming();
    benchmark::DoNotOptimize(sampler.sample(copy));
  }
}

GenerationConfig sampling(size_t top_k, double top_p, double min_p = 0.0) {
  GenerationConfig config;
  config.do_sample = true;
  config.seed = 1;
  config.top_k = top_k;
  config.top_p = top_p;
  config.min_p = min_p;
  return config;
}

GenerationConfig penalized() {
  GenerationConfig config = sampling(50, 0.9);
  config.repetition_penalty = 1.1;
  return config;
}

BENCHMARK_CAPTURE(choose, greedy, GenerationConfig())->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(choose, top_k_50, sampling(50, 1.0))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(choose, top_k_50_top_p_and_penalty, penalized())->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(choose, top_p, sampling(0, 0.9))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(choose, top_p_of_a_flat_distribution, sampling(0, 0.9), 12.f)
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(choose, min_p, sampling(0, 1.0, 0.05))->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(choose, everything, sampling(0, 1.0))->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace nibble
