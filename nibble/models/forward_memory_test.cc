// Scratch memory foretold from sizes against the arena after a real pass.

#include "nibble/models/forward_memory.h"

#include <gtest/gtest.h>

#include "nibble/models/auto_model.h"
#include "nibble/models/model_source.h"
#include "nibble/nn/kv_cache.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

size_t arena_of(const std::string& folder, size_t tokens) {
  ThreadPool pool(2);
  Arena arena;
  const auto model = AutoModelForCausalLM::from_pretrained(folder, {}, pool);
  EXPECT_TRUE(model.has_value()) << (model ? "" : to_string(model.error()));
  if (!model) return 0;
  const auto cache = (*model)->make_cache(tokens);
  const std::vector<int32_t> ids(tokens, 3);
  std::vector<float> logits((*model)->config().vocab_size);
  const SequenceChunk chunk = {.tokens = ids, .cache = cache.get()};
  ExecutionContext context{pool, arena};
  EXPECT_TRUE((*model)->forward({&chunk, 1}, {logits.data(), 1, logits.size()}, context).has_value());
  return arena.capacity_bytes();
}

class ForwardMemory : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Architectures, ForwardMemory, testing::ValuesIn(test::architecture_names()),
                         [](const auto& test) { return test.param; });

TEST_P(ForwardMemory, IsWhatTheArenaHolds) {
  const std::string folder = (test::data_folder() / "architectures" / GetParam()).string();
  const ModelSource source = ModelSource::open(find_model(folder).value()).value();
  const ForwardShape shape = {source.spec, source.config, source.prefix_missing};
  const auto dense = [&](const std::string& module) {
    for (const ModuleSlot& slot : source.slots) {
      if (slot.name == module)
        return linear_size(slot.shape[0], slot.shape[1], {.dtype = DType::kF32}, false);
    }
    return LinearSize();  // a head that is the embedding
  };
  // Enough that the sizes of these tiny models show behind the first megabyte.
  const size_t limit = source.config.max_position_embeddings;
  const size_t longest = limit > 0 ? limit : 512;  // 0: no limit (ALiBi)
  for (const size_t tokens : {size_t{16}, std::min<size_t>(longest, 2000)}) {
    const auto real = static_cast<double>(arena_of(folder, tokens));
    const auto foretold = static_cast<double>(forward_arena_bytes(shape, dense, tokens, 1, 2));
    EXPECT_NEAR(foretold / real, 1.0, 0.1) << tokens << " tokens: " << foretold << " for " << real;
  }
}

}  // namespace
}  // namespace nibble
