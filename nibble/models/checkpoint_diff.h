#ifndef NIBBLE_MODELS_CHECKPOINT_DIFF_H_
#define NIBBLE_MODELS_CHECKPOINT_DIFF_H_

// What differs between two checkpoints: configuration, other files, tensors and their values. Modules that
// are stored as codes are decoded, so that the same weights in two layouts are seen to be the same.

#include <optional>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/tensor.h"
#include "nibble/base/thread_pool.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

// A key of config.json or generation_config.json: "quantization_config.bits". A value that one side does not
// have is null, and is said by has_a and has_b.
struct KeyDifference {
  std::string file;
  std::string key;
  Json a, b;
  bool has_a = true, has_b = true;
};

// Any other small file: its SHA-256, empty where it is missing.
struct FileDifference {
  std::string file;
  std::string a, b;
};

// A weight by its name as a float tensor ("model.norm.weight", "...q_proj.weight" also where it is stored as
// codes), with what of it differs.
struct TensorDifference {
  std::string name;
  std::string stored_a, stored_b;  // "float16", "awq gemm"; empty where that side does not have it
  Shape shape_a, shape_b;
  // Of the values, where both sides have them in one shape.
  size_t elements = 0;
  size_t differing = 0;   // that are not the same number, once decoded
  double largest = 0.0;   // |a - b|
  double relative = 0.0;  // |a - b| / |a| over the whole tensor; infinity where only a is 0
  size_t not_finite = 0;  // NaN and infinities: they count as differing where they do, and nowhere else
  // Where both sides are scales and zero points on the same groups: how many of them differ.
  struct Codes {
    size_t codes = 0;
    size_t scales = 0;
    std::optional<size_t> zeros;  // nothing where one side has gemv_fast's zero terms
    size_t num_scales = 0;
  };
  std::optional<Codes> codes;

  bool same_values() const {
    return !stored_a.empty() && !stored_b.empty() && shape_a == shape_b && differing == 0;
  }
};

enum class DiffVerdict {
  kIdentical,     // every file says the same, every tensor has the same bytes
  kSameTensors,   // the tensors are the same bytes; other files differ
  kSameWeights,   // the same numbers, stored in another way
  kOtherWeights,  // some of the weights, or their names, are others
};
std::string_view verdict_text(DiffVerdict verdict);

struct CheckpointDiff {
  std::vector<KeyDifference> keys;
  std::vector<FileDifference> files;
  std::vector<TensorDifference> tensors;  // that differ in any way; those with the largest difference first
  size_t compared = 0;                    // weights that both sides have
  size_t same_bytes = 0;                  // of them
  size_t same_values = 0;                 // of them; also those with the same bytes

  DiffVerdict verdict() const;
};

// Streaming: one weight of each side in memory. Files that hold weights are not compared as files.
Expected<CheckpointDiff> diff_checkpoints(const ModelFiles& a, const ModelFiles& b, ThreadPool& pool,
                                          bool show_progress);

// Leaves of two JSON values that differ, by path; lists are leaves.
std::vector<KeyDifference> diff_json(const std::string& file, const Json& a, const Json& b);

}  // namespace nibble

#endif  // NIBBLE_MODELS_CHECKPOINT_DIFF_H_
