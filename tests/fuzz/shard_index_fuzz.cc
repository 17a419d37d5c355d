// model.safetensors.index.json: no shard may lie outside the folder.

#include <filesystem>

#include "nibble/checkpoint/shard_index.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto shards = parse_shard_index(fuzz::as_text(data, size));
  if (!fuzz::accepted(shards)) return 0;
  NIBBLE_CHECK(!shards->empty());
  for (const auto& [tensor, shard] : *shards) {
    const std::filesystem::path path = std::filesystem::path("folder") / shard;
    NIBBLE_CHECK(path.lexically_normal() == path && path.parent_path() == "folder");
    NIBBLE_CHECK(shard.find('\0') == shard.npos);
  }
  return 0;
}
