#include "nibble/models/checkpoint_diff.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "nibble/base/cancel.h"
#include "nibble/base/progress.h"
#include "nibble/base/sha256.h"
#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/config/quantization_config.h"
#include "nibble/models/value_reader.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

constexpr size_t kChunkValues = 1 << 16;

// A weight as it is stored.
struct Stored {
  std::string module;  // empty: a tensor of its own
  std::string format;
  Shape shape;
};

// One of the two checkpoints: headers and settings.
struct Side {
  const ModelFiles* files = nullptr;
  Json config;
  std::optional<QuantizationConfig> quantization;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::map<std::string, Stored> weights;  // by name
};

Status list_weights(Side& side) {
  std::set<std::string> consumed;
  for (const std::string& module : quantized_modules(*side.checkpoint)) {
    if (!side.quantization) {
      return fail(ErrorCode::kDataLoss, "{} is stored as codes, but config.json has no quantization_config",
                  module);
    }
    NIBBLE_TRY(const ModuleSummary summary, summarize_module(*side.checkpoint, module, *side.quantization));
    side.weights[module + ".weight"] = {module, summary.format, {summary.out_features, summary.in_features}};
    for (std::string& name : tensors_of_module(*side.checkpoint, module)) consumed.insert(std::move(name));
  }
  for (const auto& [name, info] : side.checkpoint->tensors()) {
    if (consumed.contains(name)) continue;
    if (!side.weights.emplace(name, Stored{{}, std::string(torch_dtype_name(info.dtype)), info.shape})
             .second) {
      return fail(ErrorCode::kDataLoss, "the module is quantized and has a float weight as well").at(name);
    }
  }
  return {};
}

Expected<Side> open_side(const ModelFiles& files) {
  Side side;
  side.files = &files;
  NIBBLE_TRY(const std::string text, files.read_required("config.json"));
  NIBBLE_TRY(side.config, at("config.json", parse_json(text, {.allow_nan = true})));
  NIBBLE_TRY(const std::optional<Json> old_config, read_quantize_config(files));
  NIBBLE_TRY(ResolvedQuantization resolved, resolve_quantization(side.config, old_config, std::nullopt));
  side.quantization = std::move(resolved.config);
  NIBBLE_TRY(side.checkpoint, open_checkpoint(files));
  NIBBLE_RETURN_IF_ERROR(list_weights(side));
  return side;
}

std::vector<std::string> tensors_of(const Side& side, const std::string& name, const Stored& stored) {
  if (stored.module.empty()) return {name};
  return tensors_of_module(*side.checkpoint, stored.module);
}

// The same tensors with the same bytes.
Expected<bool> same_bytes(const Side& a, const Side& b, const std::string& name) {
  const Stored& of_a = a.weights.at(name);
  const Stored& of_b = b.weights.at(name);
  if (of_a.module.empty() != of_b.module.empty() || of_a.format != of_b.format) return false;
  const std::vector<std::string> names = tensors_of(a, name, of_a);
  if (names != tensors_of(b, name, of_b)) return false;
  for (const std::string& tensor : names) {
    NIBBLE_TRY(const Tensor left, a.checkpoint->tensor(tensor));
    NIBBLE_TRY(const Tensor right, b.checkpoint->tensor(tensor));
    if (left.info() != right.info() || left.bytes.size() != right.bytes.size() ||
        std::memcmp(left.bytes.data(), right.bytes.data(), left.bytes.size()) != 0) {
      return false;
    }
  }
  return true;
}

struct Sums {
  size_t differing = 0;
  size_t not_finite = 0;
  double largest = 0;
  double difference = 0;  // sum of squares
  double magnitude = 0;   // of a

  void add(float a, float b) {
    if (!std::isfinite(a) || !std::isfinite(b)) {
      ++not_finite;
      differing += a == b || (std::isnan(a) && std::isnan(b)) ? 0 : 1;
      return;
    }
    const double d = static_cast<double>(a) - static_cast<double>(b);
    differing += a != b ? 1 : 0;
    largest = std::max(largest, std::abs(d));
    difference += d * d;
    magnitude += static_cast<double>(a) * static_cast<double>(a);
  }
  void add(const Sums& other) {
    differing += other.differing;
    not_finite += other.not_finite;
    largest = std::max(largest, other.largest);
    difference += other.difference;
    magnitude += other.magnitude;
  }
};

// In chunks whose sums are added in their order, so that the number of threads changes no bit.
void compare_values(const ValueReader& a, const ValueReader& b, ThreadPool& pool, TensorDifference& out) {
  const size_t width = a.width();
  const size_t rows = std::max<size_t>(1, kChunkValues / std::max<size_t>(1, width));
  const size_t chunks = a.rows() / rows + (a.rows() % rows != 0);
  std::vector<Sums> sums(chunks);
  pool.parallel_for(chunks, 1, [&](size_t begin, size_t end, size_t) {
    std::vector<float> of_a(rows * width);
    std::vector<float> of_b(rows * width);
    for (size_t chunk = begin; chunk < end; ++chunk) {
      const size_t first = chunk * rows;
      const size_t last = std::min(a.rows(), first + rows);
      a.read(first, last, of_a.data());
      b.read(first, last, of_b.data());
      for (size_t i = 0; i < (last - first) * width; ++i) sums[chunk].add(of_a[i], of_b[i]);
    }
  });
  Sums all;
  for (const Sums& one : sums) all.add(one);
  out.elements = a.rows() * width;
  out.differing = all.differing;
  out.not_finite = all.not_finite;
  out.largest = all.largest;
  if (all.difference > 0) {
    out.relative = all.magnitude > 0 ? std::sqrt(all.difference / all.magnitude)
                                     : std::numeric_limits<double>::infinity();
  }
}

size_t count_differing(const std::vector<float>& a, const std::vector<float>& b) {
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += a[i] != b[i] ? 1 : 0;
  return count;
}

bool same_groups(const QuantizedWeight& a, const QuantizedWeight& b) {
  if (a.num_groups != b.num_groups || a.scales.size() != b.scales.size() || a.scales.empty()) return false;
  for (size_t i = 0; i < a.in_features; ++i) {
    if (a.group_of(i) != b.group_of(i)) return false;
  }
  return true;
}

// Nothing where the codes count on different grids.
std::optional<TensorDifference::Codes> compare_codes(const QuantizedWeight& a, const QuantizedWeight& b) {
  if (a.bits != b.bits || !same_groups(a, b)) return std::nullopt;
  TensorDifference::Codes codes;
  for (size_t i = 0; i < a.codes.size(); ++i) codes.codes += a.codes[i] != b.codes[i] ? 1 : 0;
  codes.num_scales = a.scales.size();
  codes.scales = count_differing(a.scales, b.scales);
  // gemv_fast has -(scale * zero) in their place.
  if (a.formula == b.formula) codes.zeros = count_differing(a.zeros, b.zeros);
  return codes;
}

Expected<ValueReader> open_values(const Side& side, const std::string& name, const Stored& stored) {
  if (stored.module.empty()) return ValueReader::open_tensor(*side.checkpoint, name);
  return ValueReader::open_module(*side.checkpoint, stored.module, *side.quantization);
}

bool is_integer(const Side& side, const std::string& name, const Stored& stored) {
  if (!stored.module.empty()) return false;
  const DType dtype = side.checkpoint->find(name)->dtype;
  return dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16;
}

// Elements of any type by their bytes; of different types all of them differ.
Status compare_elements(const Side& a, const Side& b, const std::string& name, TensorDifference& out) {
  NIBBLE_TRY(const Tensor left, a.checkpoint->tensor(name));
  NIBBLE_TRY(const Tensor right, b.checkpoint->tensor(name));
  out.elements = left.size();
  const size_t size = dtype_bits(left.dtype) / 8;
  if (left.dtype != right.dtype || size == 0) {
    out.differing = out.elements;
    return {};
  }
  for (size_t i = 0; i < out.elements; ++i) {
    out.differing +=
        std::memcmp(left.bytes.data() + i * size, right.bytes.data() + i * size, size) != 0 ? 1 : 0;
  }
  return {};
}

Expected<TensorDifference> compare_weight(const Side& a, const Side& b, const std::string& name,
                                          ThreadPool& pool) {
  const Stored& of_a = a.weights.at(name);
  const Stored& of_b = b.weights.at(name);
  TensorDifference out;
  out.name = name;
  out.stored_a = of_a.format;
  out.stored_b = of_b.format;
  out.shape_a = of_a.shape;
  out.shape_b = of_b.shape;
  if (of_a.shape != of_b.shape) return out;
  if (is_integer(a, name, of_a) || is_integer(b, name, of_b)) {
    if (of_a.module.empty() && of_b.module.empty()) {
      NIBBLE_RETURN_IF_ERROR(compare_elements(a, b, name, out));
      return out;
    }
    out.elements = out.differing = num_elements(of_a.shape).value_or(0);
    return out;
  }
  NIBBLE_TRY(const ValueReader left, at(a.files->name, open_values(a, name, of_a)));
  NIBBLE_TRY(const ValueReader right, at(b.files->name, open_values(b, name, of_b)));
  compare_values(left, right, pool, out);
  if (left.codes() != nullptr && right.codes() != nullptr) {
    out.codes = compare_codes(*left.codes(), *right.codes());
  }
  return out;
}

TensorDifference one_sided(const std::string& name, const Stored& stored, bool in_a) {
  TensorDifference out;
  out.name = name;
  (in_a ? out.stored_a : out.stored_b) = stored.format;
  (in_a ? out.shape_a : out.shape_b) = stored.shape;
  return out;
}

Status diff_weights(const Side& a, const Side& b, ThreadPool& pool, bool show_progress,
                    CheckpointDiff& diff) {
  const bool same_settings =
      a.quantization && b.quantization && to_json(*a.quantization) == to_json(*b.quantization);
  std::optional<Progress> progress;
  if (show_progress) progress.emplace("comparing", a.weights.size(), "weights");
  for (const auto& [name, stored] : a.weights) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    if (progress) progress->advance();
    const auto other = b.weights.find(name);
    if (other == b.weights.end()) {
      diff.tensors.push_back(one_sided(name, stored, true));
      continue;
    }
    ++diff.compared;
    NIBBLE_TRY(const bool same, same_bytes(a, b, name));
    // What codes stand for may depend on the settings.
    if (same && (stored.module.empty() || same_settings)) {
      ++diff.same_bytes;
      ++diff.same_values;
    } else {
      NIBBLE_TRY(TensorDifference difference, compare_weight(a, b, name, pool));
      const bool same_values = difference.same_values();
      diff.same_values += same_values ? 1 : 0;
      diff.same_bytes += same && same_values ? 1 : 0;
      if (!same || !same_values) diff.tensors.push_back(std::move(difference));
    }
    for (const std::string& tensor : tensors_of(a, name, stored)) a.checkpoint->drop(tensor);
    for (const std::string& tensor : tensors_of(b, name, other->second)) b.checkpoint->drop(tensor);
  }
  for (const auto& [name, stored] : b.weights) {
    if (!a.weights.contains(name)) diff.tensors.push_back(one_sided(name, stored, false));
  }
  return {};
}

// Missing, of another shape, other values, other types: in this order.
int kind_of(const TensorDifference& difference) {
  if (difference.stored_a.empty() || difference.stored_b.empty()) return 0;
  if (difference.shape_a != difference.shape_b) return 1;
  return difference.differing > 0 ? 2 : 3;
}

void sort_by_size(std::vector<TensorDifference>& tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorDifference& a, const TensorDifference& b) {
    if (kind_of(a) != kind_of(b)) return kind_of(a) < kind_of(b);
    return a.relative > b.relative;
  });
}

// Both values at the same path; the pointers are null where there is none.
void diff_values(const std::string& file, const std::string& path, const Json* a, const Json* b,
                 std::vector<KeyDifference>& out) {
  if (a != nullptr && b != nullptr && a->is_object() && b->is_object()) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : a->items()) keys.push_back(key);
    for (const auto& [key, value] : b->items()) {
      if (!a->contains(key)) keys.push_back(key);
    }
    for (const std::string& key : keys) {
      const auto of_a = a->find(key);
      const auto of_b = b->find(key);
      diff_values(file, path.empty() ? key : path + "." + key, of_a == a->end() ? nullptr : &*of_a,
                  of_b == b->end() ? nullptr : &*of_b, out);
    }
    return;
  }
  if (a != nullptr && b != nullptr && *a == *b) return;
  out.push_back(
      {file, path, a == nullptr ? Json() : *a, b == nullptr ? Json() : *b, a != nullptr, b != nullptr});
}

Status diff_generation_config(const ModelFiles& a, const ModelFiles& b, CheckpointDiff& diff) {
  constexpr const char* kFile = "generation_config.json";
  NIBBLE_TRY(const std::optional<std::string> of_a, a.read(kFile));
  NIBBLE_TRY(const std::optional<std::string> of_b, b.read(kFile));
  if (of_a && of_b) {
    const JsonLimits limits = {.allow_nan = true};
    NIBBLE_TRY(const Json left, at(fmt::format("{}: {}", a.name, kFile), parse_json(*of_a, limits)));
    NIBBLE_TRY(const Json right, at(fmt::format("{}: {}", b.name, kFile), parse_json(*of_b, limits)));
    for (KeyDifference& key : diff_json(kFile, left, right)) diff.keys.push_back(std::move(key));
  } else if (of_a || of_b) {
    diff.files.push_back({kFile, of_a ? sha256(*of_a) : "", of_b ? sha256(*of_b) : ""});
  }
  return {};
}

bool is_compared_as_file(const std::string& name) {
  return !name.starts_with('.') && name != "config.json" && name != "generation_config.json" &&
         !is_weight_file(name);
}

Status diff_files(const ModelFiles& a, const ModelFiles& b, CheckpointDiff& diff) {
  std::set<std::string> names;
  for (const ModelFiles* files : {&a, &b}) {
    for (const std::string& name : files->list()) {
      if (is_compared_as_file(name)) names.insert(name);
    }
  }
  for (const std::string& name : names) {
    NIBBLE_TRY(const std::optional<std::string> of_a, a.read(name));
    NIBBLE_TRY(const std::optional<std::string> of_b, b.read(name));
    if (of_a == of_b) continue;
    diff.files.push_back({name, of_a ? sha256(*of_a) : "", of_b ? sha256(*of_b) : ""});
  }
  return {};
}

Json metadata_of(const Side& side) {
  Json json = Json::object();
  for (const auto& [key, value] : side.checkpoint->metadata()) json[key] = value;
  return json;
}

}  // namespace

std::vector<KeyDifference> diff_json(const std::string& file, const Json& a, const Json& b) {
  std::vector<KeyDifference> out;
  diff_values(file, {}, &a, &b, out);
  return out;
}

std::string_view verdict_text(DiffVerdict verdict) {
  constexpr std::string_view kTexts[] = {"identical", "the same tensors; other files differ",
                                         "the same weights, stored in another way", "other weights"};
  return kTexts[static_cast<size_t>(verdict)];
}

DiffVerdict CheckpointDiff::verdict() const {
  const auto same = [](const TensorDifference& tensor) { return tensor.same_values(); };
  if (!std::all_of(tensors.begin(), tensors.end(), same)) return DiffVerdict::kOtherWeights;
  if (!tensors.empty()) return DiffVerdict::kSameWeights;
  return keys.empty() && files.empty() ? DiffVerdict::kIdentical : DiffVerdict::kSameTensors;
}

Expected<CheckpointDiff> diff_checkpoints(const ModelFiles& a, const ModelFiles& b, ThreadPool& pool,
                                          bool show_progress) {
  NIBBLE_TRY(const Side left, at(a.name, open_side(a)));
  NIBBLE_TRY(const Side right, at(b.name, open_side(b)));
  CheckpointDiff diff;
  diff.keys = diff_json("config.json", left.config, right.config);
  NIBBLE_RETURN_IF_ERROR(diff_generation_config(a, b, diff));
  for (KeyDifference& key : diff_json("__metadata__", metadata_of(left), metadata_of(right))) {
    diff.keys.push_back(std::move(key));
  }
  NIBBLE_RETURN_IF_ERROR(diff_files(a, b, diff));
  NIBBLE_RETURN_IF_ERROR(diff_weights(left, right, pool, show_progress, diff));
  sort_by_size(diff.tensors);
  return diff;
}

}  // namespace nibble
