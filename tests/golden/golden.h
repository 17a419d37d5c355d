#ifndef NIBBLE_TESTS_GOLDEN_GOLDEN_H_
#define NIBBLE_TESTS_GOLDEN_GOLDEN_H_

// What the golden tests share: the files that the original libraries made, and our model beside them.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/arena.h"
#include "nibble/base/thread_pool.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/models/auto_model.h"
#include "nibble/nn/kv_cache.h"

namespace nibble::test {

// How far logits of a float model may be off, in standard deviations of the golden's logits.
inline constexpr double kFloatTolerance = 1e-3;

struct Golden {
  SafetensorsFile file;
  size_t sequences = 0;                            // of input_ids, logits, greedy
  std::vector<std::vector<int32_t>> prompts = {};  // [sequences][length]
  std::vector<std::vector<int32_t>> greedy = {};   // [sequences][steps]
  std::vector<float> logits = {};                  // [sequences, positions, vocab]
  std::vector<size_t> positions = {};              // in the prompt, of `logits`
  size_t vocab_size = 0;
  double logits_std = 0.0;

  std::span<const float> row(size_t sequence, size_t position_index) const {
    return std::span(logits).subspan((sequence * positions.size() + position_index) * vocab_size, vocab_size);
  }
};

Expected<Golden> load_golden(const std::filesystem::path& path);

// A tensor of a golden as T; the test fails if it is missing.
std::vector<float> golden_floats(const Golden& golden, std::string_view name);
std::vector<int32_t> golden_ints(const Golden& golden, std::string_view name);

// A model with threads and scratch memory. One thread, since ctest runs tests side by side; the result
// does not depend on it (determinism_test.cc).
struct Runner {
  Runner(const std::filesystem::path& folder, FromPretrainedOptions options, size_t num_threads = 1);

  ThreadPool pool;
  Arena arena;
  Expected<std::unique_ptr<CausalLM>> model;

  ExecutionContext context() { return {pool, arena}; }
  size_t vocab_size() const { return (*model)->config().vocab_size; }

  // Logits of every token: [tokens.size(), vocab]. chunk 0: all at once.
  Expected<std::vector<float>> logits(std::span<const int32_t> tokens, size_t chunk = 0);
  // The same, appending to a cache that holds what came before.
  Expected<std::vector<float>> logits_after(std::span<const int32_t> tokens, KvCache& cache,
                                            size_t chunk = 0);
  // All sequences in one forward pass each; one result per sequence.
  Expected<std::vector<std::vector<float>>> batch_logits(std::span<const std::vector<int32_t>> sequences);
};

FromPretrainedOptions in_float32();
FromPretrainedOptions in_auto();

std::span<const float> row_of(const std::vector<float>& logits, size_t row, size_t vocab_size);

// "gptq-4b-g-1" as a name that GoogleTest takes: "gptq_4b_g_1".
std::string test_name(std::string name);

// A line "golden: ..." on stdout, which run-tests collects.
void report(std::string_view line);

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_GOLDEN_GOLDEN_H_
