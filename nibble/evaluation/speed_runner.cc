#include "nibble/evaluation/speed_runner.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "nibble/base/cancel.h"
#include "nibble/base/progress.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kPromptChunk = 512;  // tokens of a prompt that are read at once, as generate() does
constexpr size_t kWarmUpTokens = 32;

std::vector<int32_t> random_tokens(size_t count, size_t vocab) {
  std::mt19937 rng(0);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % vocab);
  return tokens;
}

// Of a cache, however it stores numbers: its first buffer over the tokens that fit it.
double kv_bytes_per_token(const CausalLM& model) {
  constexpr size_t kMost = 1 << 14;
  const auto cache = model.make_cache(kMost);
  size_t tokens = 1;
  if (!cache->reserve(tokens)) return 0;
  const size_t bytes = cache->memory_bytes();
  while (tokens < kMost && cache->reserve(tokens + 1) && cache->memory_bytes() == bytes) ++tokens;
  return static_cast<double>(bytes) / static_cast<double>(tokens);
}

bool has_experts(const PretrainedConfig& config) {
  return config.json.contains("num_local_experts") || config.json.contains("num_experts") ||
         config.json.contains("n_routed_experts");
}

}  // namespace

SpeedRunner::SpeedRunner(const CausalLM& model, const std::vector<Workload>& workloads)
    : model_(model), kv_bytes_per_token_(kv_bytes_per_token(model)) {
  size_t longest = kWarmUpTokens + 1;
  size_t largest_batch = 1;
  for (const Workload& workload : workloads) {
    Sequences& sequences = by_depth_[workload.depth];
    sequences.max_tokens = std::max(sequences.max_tokens, workload.depth + workload.tokens);
    sequences.caches.resize(std::max(sequences.caches.size(), workload.batch));
    longest = std::max(longest, sequences.max_tokens);
    largest_batch = std::max(largest_batch, workload.batch);
  }
  for (auto& [depth, sequences] : by_depth_) {
    for (auto& cache : sequences.caches) cache = model.make_cache(sequences.max_tokens);
  }
  tokens_ = random_tokens(longest, model.config().vocab_size);
  logits_.resize(largest_batch * model.config().vocab_size);
}

// The next `count` tokens of one sequence; logits for the last.
Status SpeedRunner::read(size_t count, KvCache& cache, size_t known_length, ThreadPool& pool) {
  const size_t end = cache.size() + count;
  const size_t vocab = model_.config().vocab_size;
  ExecutionContext context{pool, arena_};
  while (cache.size() < end) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const auto part = std::span(tokens_).subspan(cache.size(), std::min(kPromptChunk, end - cache.size()));
    const size_t num_logits = cache.size() + part.size() == end ? 1 : 0;
    const SequenceChunk chunk = {part, &cache, num_logits, known_length};
    NIBBLE_RETURN_IF_ERROR(
        model_.forward({&chunk, 1}, MatrixView<float>(logits_.data(), num_logits, vocab), context));
  }
  return {};
}

Status SpeedRunner::decode(size_t steps, Sequences& sequences, size_t batch, ThreadPool& pool) {
  std::vector<SequenceChunk> chunks(batch);
  const MatrixView<float> logits(logits_.data(), batch, model_.config().vocab_size);
  ExecutionContext context{pool, arena_};
  for (size_t step = 0; step < steps; ++step) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    for (size_t i = 0; i < batch; ++i) {
      KvCache& cache = *sequences.caches[i];
      chunks[i] = {std::span(tokens_).subspan(cache.size(), 1), &cache, 1, sequences.max_tokens};
    }
    NIBBLE_RETURN_IF_ERROR(model_.forward(chunks, logits, context));
  }
  return {};
}

Status SpeedRunner::prepare(ThreadPool& pool) {
  Sequences few = {kWarmUpTokens + 1, {}};
  few.caches.push_back(model_.make_cache(few.max_tokens));
  NIBBLE_RETURN_IF_ERROR(read(kWarmUpTokens, *few.caches.front(), few.max_tokens, pool));
  NIBBLE_RETURN_IF_ERROR(decode(1, few, 1, pool));
  size_t total = 0;
  for (const auto& [depth, sequences] : by_depth_) total += depth * sequences.caches.size();
  if (total == 0) return {};
  Progress progress("filling caches", total, "tokens");
  for (auto& [depth, sequences] : by_depth_) {
    for (auto& cache : sequences.caches) {
      while (cache->size() < depth) {
        const size_t count = std::min(kPromptChunk, depth - cache->size());
        NIBBLE_RETURN_IF_ERROR(read(count, *cache, sequences.max_tokens, pool));
        progress.advance(count);
      }
    }
  }
  return {};
}

Expected<double> SpeedRunner::run(const Workload& workload, ThreadPool& pool) {
  Sequences& sequences = by_depth_.at(workload.depth);
  for (auto& cache : sequences.caches) cache->truncate(workload.depth);
  const auto begin = Clock::now();
  if (workload.kind == Workload::Kind::kPrefill) {
    NIBBLE_RETURN_IF_ERROR(read(workload.tokens, *sequences.caches.front(), sequences.max_tokens, pool));
  } else {
    NIBBLE_RETURN_IF_ERROR(decode(workload.tokens, sequences, workload.batch, pool));
  }
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

WorkloadCost SpeedRunner::cost(const Workload& workload) const {
  WorkloadCost cost;
  const PretrainedConfig& config = model_.config();
  if (has_experts(config)) return cost;
  const auto tokens = static_cast<double>(workload.tokens);
  if (workload.kind == Workload::Kind::kDecode) {
    const WeightBytes bytes = model_.weight_bytes();
    const size_t weights = bytes.linear + bytes.norm + (bytes.head > 0 ? bytes.head : bytes.embedding);
    const double length = static_cast<double>(workload.depth) + (tokens + 1) / 2;
    cost.bytes_per_step =
        static_cast<double>(weights) + static_cast<double>(workload.batch) * length * kv_bytes_per_token_;
    return cost;
  }
  const double head = static_cast<double>(config.vocab_size) * static_cast<double>(model_.head_size());
  const double linear =
      static_cast<double>(model_.num_parameters()) - (config.tie_word_embeddings ? head : 2 * head);
  cost.operations = 2 * (tokens * linear + head);
  return cost;
}

}  // namespace nibble
