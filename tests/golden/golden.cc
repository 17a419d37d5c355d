#include "tests/golden/golden.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <gtest/gtest.h>

#include "nibble/base/cpu_target.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

// NIBBLE_CPU may name an instruction set that this machine has not: nothing to test then. The words
// are those that tests/CMakeLists.txt looks for.
class CpuRequest : public testing::Environment {
  void SetUp() override {
    if (const Status possible = check_cpu_request(); !possible) {
      std::printf("this machine lacks the instruction set: %s\n", to_string(possible.error()).c_str());
      GTEST_SKIP();
    }
  }
};
[[maybe_unused]] const auto* const kCpuRequest = testing::AddGlobalTestEnvironment(new CpuRequest);

Expected<std::vector<std::vector<int32_t>>> rows(const SafetensorsFile& file, std::string_view name) {
  NIBBLE_TRY(const Tensor tensor, file.tensor(name));
  const std::vector<int32_t> values = copy_elements<int32_t>(tensor);
  const auto length = static_cast<std::ptrdiff_t>(tensor.shape.at(1));
  std::vector<std::vector<int32_t>> out;
  for (auto it = values.begin(); it != values.end(); it += length) out.emplace_back(it, it + length);
  return out;
}

}  // namespace

Expected<Golden> load_golden(const std::filesystem::path& path) {
  NIBBLE_TRY(SafetensorsFile file, SafetensorsFile::open(path));
  Golden golden{.file = std::move(file)};
  NIBBLE_TRY(golden.prompts, rows(golden.file, "input_ids"));
  NIBBLE_TRY(golden.greedy, rows(golden.file, "greedy"));
  NIBBLE_TRY(const Tensor logits, golden.file.tensor("logits"));
  golden.logits = copy_elements<float>(logits);
  golden.sequences = logits.shape.at(0);
  golden.vocab_size = logits.shape.at(2);
  golden.logits_std = standard_deviation(golden.logits);
  if (golden.file.header().tensors.contains("logits_positions")) {
    for (const int32_t position : golden_ints(golden, "logits_positions")) {
      golden.positions.push_back(static_cast<size_t>(position));
    }
  } else {
    for (size_t i = 0; i < logits.shape.at(1); ++i) golden.positions.push_back(i);
  }
  return golden;
}

std::vector<float> golden_floats(const Golden& golden, std::string_view name) {
  const auto tensor = golden.file.tensor(name);
  EXPECT_TRUE(tensor.has_value() && tensor->dtype == DType::kF32) << name;
  return tensor ? copy_elements<float>(*tensor) : std::vector<float>();
}

std::vector<int32_t> golden_ints(const Golden& golden, std::string_view name) {
  const auto tensor = golden.file.tensor(name);
  EXPECT_TRUE(tensor.has_value() && tensor->dtype == DType::kI32) << name;
  return tensor ? copy_elements<int32_t>(*tensor) : std::vector<int32_t>();
}

Runner::Runner(const std::filesystem::path& folder, FromPretrainedOptions options, size_t num_threads)
    : pool(num_threads), model(AutoModelForCausalLM::from_pretrained(folder.string(), options, pool)) {}

Expected<std::vector<float>> Runner::logits_after(std::span<const int32_t> tokens, KvCache& cache,
                                                  size_t chunk) {
  if (chunk == 0) chunk = tokens.size();
  std::vector<float> out(tokens.size() * vocab_size());
  const size_t length = cache.size() + tokens.size();
  ExecutionContext ctx = context();
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const size_t count = std::min(chunk, tokens.size() - begin);
    const SequenceChunk part{tokens.subspan(begin, count), &cache, count, length};
    NIBBLE_RETURN_IF_ERROR(
        (*model)->forward({&part, 1}, {out.data() + begin * vocab_size(), count, vocab_size()}, ctx));
  }
  return out;
}

Expected<std::vector<float>> Runner::logits(std::span<const int32_t> tokens, size_t chunk) {
  const std::unique_ptr<KvCache> cache = (*model)->make_cache(tokens.size());
  return logits_after(tokens, *cache, chunk);
}

Expected<std::vector<std::vector<float>>> Runner::batch_logits(
    std::span<const std::vector<int32_t>> sequences) {
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<SequenceChunk> chunks;
  size_t total = 0;
  for (const std::vector<int32_t>& tokens : sequences) {
    caches.push_back((*model)->make_cache(tokens.size()));
    chunks.push_back({tokens, caches.back().get(), tokens.size(), tokens.size()});
    total += tokens.size();
  }
  std::vector<float> all(total * vocab_size());
  ExecutionContext ctx = context();
  NIBBLE_RETURN_IF_ERROR((*model)->forward(chunks, {all.data(), total, vocab_size()}, ctx));

  std::vector<std::vector<float>> out;
  auto begin = all.begin();
  for (const std::vector<int32_t>& tokens : sequences) {
    const auto end = begin + static_cast<std::ptrdiff_t>(tokens.size() * vocab_size());
    out.emplace_back(begin, end);
    begin = end;
  }
  return out;
}

FromPretrainedOptions in_float32() {
  FromPretrainedOptions options;
  options.compute = ComputeMode::kF32;
  return options;
}

FromPretrainedOptions in_auto() { return {}; }

std::span<const float> row_of(const std::vector<float>& logits, size_t row, size_t vocab_size) {
  return std::span(logits).subspan(row * vocab_size, vocab_size);
}

std::string test_name(std::string name) {
  for (char& c : name) {
    if (c == '-' || c == '.' || c == '/') c = '_';
  }
  return name;
}

void report(std::string_view line) {
  std::printf("golden: %.*s\n", static_cast<int>(line.size()), line.data());
}

}  // namespace nibble::test
