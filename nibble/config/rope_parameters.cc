#include "nibble/config/rope_parameters.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace nibble {
namespace {

constexpr std::array<std::string_view, 6> kRopeTypes = {"default", "linear",   "dynamic",
                                                        "yarn",    "longrope", "llama3"};

// Where faults of one set of parameters are; "rope_scaling" or "rope_parameters".
struct Place {
  std::string name;
  Faults& faults;

  void positive(std::string_view key, double value) const {
    if (!(value > 0.0)) faults.add("{}.{} is {}, but must be positive", name, key, value);
  }
};

void read_factors(const Json& json, std::string_view key, size_t count, const Place& place,
                  std::vector<double>& factors) {
  const auto it = json.find(key);
  const bool is_list = it != json.end() && it->is_array();
  if (!is_list ||
      !std::all_of(it->begin(), it->end(), [](const Json& v) { return v.is_number() && v > 0; })) {
    place.faults.add("{}.{} must be a list of {} positive numbers", place.name, key, count);
    return;
  }
  if (it->size() != count) {
    place.faults.add("{}.{} has {} entries, but half the rotary dimensions are {}", place.name, key,
                     it->size(), count);
    return;
  }
  for (const Json& value : *it) factors.push_back(value.get<double>());
}

std::string read_rope_type(const Json& json, const std::string& model_type, const Place& place) {
  std::string rope_type = "default";
  FieldReader reader(json, place.faults);
  // "type" is the older name; files with both are read by the newer one.
  if (reader.find({"rope_type"}) != nullptr) {
    reader.read({"rope_type"}, rope_type);
  } else {
    reader.read({"type"}, rope_type);
  }
  // Early Phi-3 files call longrope "su" or "yarn".
  if (rope_type == "su" || (rope_type == "yarn" && model_type == "phi3")) rope_type = "longrope";
  return rope_type;
}

// A factor that is left out is the ratio of the lengths, as in Transformers 5.
void read_factor(const Json& json, const PretrainedConfig& config, const Place& place, RopeParameters& rope) {
  const auto it = json.find("factor");
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  const bool may_be_derived = rope.rope_type == "yarn" || rope.rope_type == "longrope";
  if (it != json.end() && !it->is_null()) {
    FieldReader(json, place.faults).read({"factor"}, rope.factor);
    place.positive("factor", rope.factor);
  } else if (may_be_derived && original > 0.0) {
    rope.factor = static_cast<double>(config.max_position_embeddings) / original;
  } else {
    place.faults.add("{}.factor is missing, which {} needs", place.name, rope.rope_type);
  }
}

void read_original_length(const Json& json, const PretrainedConfig& config, Faults& faults,
                          RopeParameters& rope) {
  int64_t original = 0;
  // Phi-3 has it beside rope_scaling instead of in it.
  for (const Json* object : {&config.json, &json}) {
    FieldReader(*object, faults)
        .read_integer({"original_max_position_embeddings"}, 1, INT32_MAX, "a positive integer", original);
  }
  rope.original_max_position_embeddings = static_cast<size_t>(original);
}

void read_yarn(const Json& json, const Place& place, RopeParameters& rope) {
  FieldReader reader(json, place.faults);
  reader.read({"beta_fast"}, rope.beta_fast);
  reader.read({"beta_slow"}, rope.beta_slow);
  reader.read({"mscale"}, rope.mscale);
  reader.read({"mscale_all_dim"}, rope.mscale_all_dim);
  reader.read({"truncate"}, rope.truncate);
  place.positive("beta_slow", rope.beta_slow);
  if (rope.beta_fast < rope.beta_slow) {
    place.faults.add("{}.beta_fast is {}, but must not be below beta_slow {}", place.name, rope.beta_fast,
                     rope.beta_slow);
  }
  if (rope.rope_theta == 1.0) place.faults.add("rope_theta is 1, which yarn cannot use");
}

void read_llama3(const Json& json, const Place& place, RopeParameters& rope) {
  FieldReader reader(json, place.faults);
  for (const std::string_view key : {"low_freq_factor", "high_freq_factor"}) {
    if (!has_field(json, {key})) place.faults.add("{}.{} is missing, which llama3 needs", place.name, key);
  }
  reader.read({"low_freq_factor"}, rope.low_freq_factor);
  reader.read({"high_freq_factor"}, rope.high_freq_factor);
  place.positive("low_freq_factor", rope.low_freq_factor);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    place.faults.add("{}.high_freq_factor is {}, but must be above low_freq_factor {}", place.name,
                     rope.high_freq_factor, rope.low_freq_factor);
  }
  if (rope.original_max_position_embeddings == 0) {
    place.faults.add("{}.original_max_position_embeddings is missing, which llama3 needs", place.name);
  }
}

// json: one set of parameters (rope_theta is then also in it, or in `rope` already).
RopeParameters read_one(const Json& json, RopeParameters rope, size_t rotated_dims,
                        const PretrainedConfig& config, const Place& place) {
  FieldReader reader(json, place.faults);
  reader.read({"rope_theta"}, rope.rope_theta);
  place.positive("rope_theta", rope.rope_theta);
  reader.read({"partial_rotary_factor"}, rope.partial_rotary_factor);
  if (!(rope.partial_rotary_factor > 0.0 && rope.partial_rotary_factor <= 1.0)) {
    place.faults.add("partial_rotary_factor is {}, but must lie in (0, 1]", rope.partial_rotary_factor);
    return rope;
  }
  const auto rotary_dims =
      static_cast<size_t>(static_cast<double>(rotated_dims) * rope.partial_rotary_factor);
  if (rotary_dims == 0 || rotary_dims % 2 != 0) {
    place.faults.add(
        "{} dimensions of each head are rotated (head_dim {}, partial_rotary_factor {}), but it must be "
        "an even number",
        rotary_dims, rotated_dims, rope.partial_rotary_factor);
  }

  rope.rope_type = read_rope_type(json, config.model_type, place);
  if (rope.rope_type == "default") return rope;
  if (std::find(kRopeTypes.begin(), kRopeTypes.end(), rope.rope_type) == kRopeTypes.end()) {
    place.faults.add("{}.rope_type is {}, but must be one of {}", place.name, shown(rope.rope_type),
                     joined(kRopeTypes));
    return rope;
  }
  read_original_length(json, config, place.faults, rope);
  read_factor(json, config, place, rope);
  reader.read({"attention_factor"}, rope.attention_factor);
  if (rope.attention_factor) place.positive("attention_factor", *rope.attention_factor);
  if (rope.rope_type == "yarn") read_yarn(json, place, rope);
  if (rope.rope_type == "llama3") read_llama3(json, place, rope);
  if (rope.rope_type == "longrope") {
    read_factors(json, "short_factor", rotary_dims / 2, place, rope.short_factor);
    read_factors(json, "long_factor", rotary_dims / 2, place, rope.long_factor);
  }
  return rope;
}

// What stands beside rope_scaling (Transformers 4) or for all sets together.
RopeParameters read_top_level(const ModelType& type, size_t rotated_dims, const Json& json, Faults& faults) {
  RopeParameters rope;
  rope.rope_theta = type.rope_theta;
  rope.partial_rotary_factor = type.partial_rotary_factor;
  FieldReader reader(json, faults);
  reader.read({"rope_theta", {"rotary_emb_base"}}, rope.rope_theta);
  reader.read({"partial_rotary_factor", {"rotary_pct", "rope_pct"}}, rope.partial_rotary_factor);
  int64_t rotary_dim = 0;  // GPT-J; null: all of them
  if (type.default_rotary_dim > 0 && !json.contains("rotary_dim")) {
    rotary_dim = static_cast<int64_t>(std::min(type.default_rotary_dim, rotated_dims));
  }
  reader.read_integer({"rotary_dim"}, 1, static_cast<int64_t>(rotated_dims), "at most the head_dim",
                      rotary_dim);
  if (rotary_dim > 0) {
    rope.partial_rotary_factor = static_cast<double>(rotary_dim) / static_cast<double>(rotated_dims);
  }
  return rope;
}

const Json& object_or_empty(const Json& json, std::string_view key, Faults& faults) {
  static const Json kEmpty = Json::object();
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return kEmpty;
  if (it->is_object()) return *it;
  faults.add("{} is {}, but must be an object", key, shown(*it));
  return kEmpty;
}

}  // namespace

void read_rope(const ModelType& type, size_t rotated_dims, PretrainedConfig& config, Faults& faults) {
  const Json& json = config.json;
  const RopeParameters top = read_top_level(type, rotated_dims, json, faults);
  const Json& parameters = object_or_empty(json, "rope_parameters", faults);
  std::optional<RopeParameters> sliding;

  const auto is_nested = [&](std::string_view layer_type) {
    const auto it = parameters.find(layer_type);
    return it != parameters.end() && it->is_object();
  };
  if (is_nested("full_attention") || is_nested("sliding_attention")) {
    // One set per layer type. A model whose layers are all of one type may have just that set.
    const std::string_view full = is_nested("full_attention") ? "full_attention" : "sliding_attention";
    config.rope = read_one(*parameters.find(full), top, rotated_dims, config,
                           {fmt::format("rope_parameters.{}", full), faults});
    if (is_nested("sliding_attention")) {
      sliding = read_one(*parameters.find("sliding_attention"), top, rotated_dims, config,
                         {"rope_parameters.sliding_attention", faults});
    }
  } else if (!parameters.empty()) {
    config.rope = read_one(parameters, top, rotated_dims, config, {"rope_parameters", faults});
  } else {
    config.rope = read_one(object_or_empty(json, "rope_scaling", faults), top, rotated_dims, config,
                           {"rope_scaling", faults});
    if (type.model_type == "gemma3_text") {
      // Its local layers are never scaled.
      sliding = top;
      sliding->rope_theta = 10000.0;
      FieldReader(json, faults).read({"rope_local_base_freq"}, sliding->rope_theta);
      Place{"config.json", faults}.positive("rope_local_base_freq", sliding->rope_theta);
    }
  }
  if (sliding && *sliding != config.rope) config.rope_sliding = std::move(sliding);
}

}  // namespace nibble
