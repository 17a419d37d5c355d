#include "nibble/checkpoint/shard_index.h"

#include "nibble/base/json.h"

namespace nibble {
namespace {

constexpr std::string_view kShardSuffix = ".safetensors";

// A shard must lie in the folder itself. (It may be a link: the cache of huggingface_hub is made of
// links to ../../blobs.)
Status check_shard_name(const std::string& shard) {
  const bool plain = !shard.empty() && shard != "." && shard != ".." &&
                     shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  if (plain && shard.ends_with(kShardSuffix)) return {};
  return fail(ErrorCode::kDataLoss, "\"{}\" is not the name of a .safetensors file in the folder", shard)
      .with_fix("Nibble opens no files outside the model's folder; the index is wrong or hostile.");
}

}  // namespace

Expected<std::map<std::string, std::string>> parse_shard_index(std::string_view text) {
  NIBBLE_TRY(const Json json, parse_json(text));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end()) return fail(ErrorCode::kDataLoss, "there is no weight_map");
  if (!map->is_object()) {
    return fail(ErrorCode::kDataLoss, "weight_map is {}, but must be an object", json_type_name(*map));
  }
  if (map->empty()) return fail(ErrorCode::kDataLoss, "weight_map is empty");
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) {
      return fail(ErrorCode::kDataLoss, "the value is {}, but must be a file name", json_type_name(shard))
          .at("weight_map: " + tensor);
    }
    const auto& name = shard.get_ref<const std::string&>();
    NIBBLE_RETURN_IF_ERROR(at("weight_map: " + tensor, check_shard_name(name)));
    shards.emplace(tensor, name);
  }
  return shards;
}

}  // namespace nibble
