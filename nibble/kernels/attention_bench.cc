// Attention of a whole prompt, and of one token behind many others.
//
// GFLOP/s: four operations for each channel of each pair of tokens that see each other; GB/s: bytes of
// the cache that are read. One thread, CPU time.

#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "nibble/base/aligned_buffer.h"
#include "nibble/kernels/attention.h"

namespace nibble::kernels {
namespace {

constexpr size_t kQueriesAtOnce = 16;

std::vector<float> noise(size_t count) {
  std::vector<float> values(count);
  uint32_t seed = 1;
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) * 0x1p-23f - 1.f;
  }
  return values;
}

// One head's cache of `tokens` tokens.
struct Cache {
  Cache(KvCacheType type, size_t tokens, size_t head_dim) {
    const size_t bytes = head_block_layout(type, head_dim, head_dim).bytes;
    memory = AlignedBuffer((tokens + kAttentionBlock - 1) / kAttentionBlock * bytes);
    for (size_t at = 0; at < memory.size(); at += bytes) blocks.push_back(memory.data() + at);
    const auto channels = noise(tokens + head_dim);
    for (size_t t = 0; t < tokens; ++t) {
      store_token(type, head_dim, head_dim, t % kAttentionBlock, channels.data() + t, channels.data() + t,
                  blocks[t / kAttentionBlock]);
    }
    kv = {blocks.data(), 0, type};
  }

  AlignedBuffer memory;
  std::vector<std::byte*> blocks;
  AttentionBlocks kv{};
};

void attend_causally(benchmark::State& state) {
  const auto tokens = static_cast<size_t>(state.range(0));
  const auto head_dim = static_cast<size_t>(state.range(1));
  const auto group = static_cast<size_t>(state.range(2));  // query heads that share keys and values
  const AttentionShape shape = {head_dim, head_dim, 0.125f};
  const Cache cache(static_cast<KvCacheType>(state.range(3)), tokens, head_dim);
  const std::vector<float> query = noise(tokens * group * head_dim);
  std::vector<float> out(query.size());
  std::vector<float> scratch(attention_scratch(shape, kQueriesAtOnce * group));
  std::vector<AttentionRow> rows;
  for (size_t r = 0; r < tokens * group; ++r) {
    rows.push_back({query.data() + r * head_dim, out.data() + r * head_dim, 0, r / group + 1});
  }
  for (auto _ : state) {
    for (size_t r = 0; r < rows.size(); r += kQueriesAtOnce * group) {
      const size_t count = std::min(kQueriesAtOnce * group, rows.size() - r);
      attend(shape, std::span(rows).subspan(r, count), cache.kv, scratch.data());
    }
  }
  const double pairs = 0.5 * static_cast<double>(tokens * (tokens + 1) * group);
  state.counters["GFLOP/s"] = benchmark::Counter(4e-9 * pairs * static_cast<double>(head_dim),
                                                 benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(std::string(kv_cache_type_name(cache.kv.type)));
}
BENCHMARK(attend_causally)
    ->ArgNames({"tokens", "head_dim", "group", "type"})
    ->Unit(benchmark::kMillisecond)
    ->Args({512, 64, 3, 0})
    ->Args({512, 64, 3, 1})
    ->Args({512, 64, 3, 2})
    ->Args({512, 64, 1, 1})
    ->Args({2048, 64, 3, 1})
    ->Args({2048, 128, 4, 1});

// One token, 90 heads one behind the other (SmolLM2 has so many in 30 layers): more than a cache holds.
void attend_one_token(benchmark::State& state) {
  constexpr size_t kHeads = 90;
  const auto tokens = static_cast<size_t>(state.range(0));
  const auto head_dim = static_cast<size_t>(state.range(1));
  const auto group = static_cast<size_t>(state.range(2));
  const AttentionShape shape = {head_dim, head_dim, 0.125f};
  const Cache cache(static_cast<KvCacheType>(state.range(3)), tokens * kHeads, head_dim);
  const std::vector<float> query = noise(group * head_dim);
  std::vector<float> out(query.size());
  std::vector<float> scratch(attention_scratch(shape, group));
  std::vector<AttentionRow> rows;
  for (size_t g = 0; g < group; ++g) {
    rows.push_back({query.data() + g * head_dim, out.data() + g * head_dim, 0, tokens});
  }
  for (auto _ : state) {
    for (size_t head = 0; head < kHeads; ++head) {
      AttentionBlocks kv = cache.kv;
      kv.blocks += head * tokens / kAttentionBlock;
      attend(shape, rows, kv, scratch.data());
    }
  }
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(cache.memory.size()),
                                              benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(std::string(kv_cache_type_name(cache.kv.type)));
}
BENCHMARK(attend_one_token)
    ->ArgNames({"tokens", "head_dim", "group", "type"})
    ->Unit(benchmark::kMillisecond)
    ->Args({4096, 64, 3, 0})
    ->Args({4096, 64, 3, 1})
    ->Args({4096, 64, 3, 2})
    ->Args({4096, 64, 1, 1})
    ->Args({4096, 64, 8, 1})
    ->Args({4096, 64, 8, 2})
    ->Args({2048, 128, 4, 1})
    ->Args({2048, 128, 4, 2});

}  // namespace
}  // namespace nibble::kernels
