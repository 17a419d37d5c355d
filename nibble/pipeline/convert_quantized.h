#ifndef NIBBLE_PIPELINE_CONVERT_QUANTIZED_H_
#define NIBBLE_PIPELINE_CONVERT_QUANTIZED_H_

// A quantized checkpoint written in another layout: GPTQ v1, v2 and planar, AWQ gemm, gemv and gemv_fast,
// pack-quantized of compressed-tensors. Where the layout can hold them, codes, scales and zero points stay
// what they are, which is proved on the written file before it becomes a model.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/thread_pool.h"
#include "nibble/checkpoint/model_files.h"
#include "nibble/pipeline/quantize.h"

namespace nibble {

// The layouts by name: "gptq", "gptq_v2", "gptq_p", "gemm", "gemv", "gemv_fast", "compressed-tensors".
std::vector<std::string> conversion_layouts();

enum class StoredAs {
  kExact,        // the same codes, scales and zero points: the same weights, bit by bit
  kSameCodes,    // the same codes and scales; scale * zero point is rounded at another place (gemv_fast)
  kRequantized,  // decoded and rounded to nearest on another grid
  kFloat,        // decoded: the layout has no place for the module
};
std::string_view stored_as_name(StoredAs stored_as);  // "exact", "same_codes", "requantized", "float"

struct ConvertedModule {
  std::string module;
  StoredAs stored_as = StoredAs::kExact;
  std::string why;  // it is not exact; empty otherwise
};

struct ConvertOptions {
  std::string layout = {};  // one of conversion_layouts()
  bool requantize = false;  // what the layout cannot hold is rounded anew, and what that cost is measured
  bool check = true;        // measure it
  size_t max_shard_size = 5'000'000'000;
  bool show_progress = false;
};

struct ConversionResult {
  std::string from;                      // "awq gemm": of most modules
  std::vector<ConvertedModule> modules;  // that were quantized, by name
  size_t proved = 0;   // modules whose written codes, scales and weights were compared bit by bit
  size_t copied = 0;   // other tensors, compared byte by byte
  size_t tensors = 0;  // written
  size_t bytes = 0;    // of them
  // The result beside the model it was made of, on text held out for that; nothing where everything is
  // exact or there is no tokenizer.
  std::optional<SanityCheck> check;

  size_t count(StoredAs stored_as) const;
};

// What would become of each module; nothing is written.
Expected<std::vector<ConvertedModule>> preview_conversion(const ModelFiles& files, std::string_view layout);

// kUnsupported without `requantize` where a module does not go into the layout as it is: the message says
// why. kDataLoss where the written file is not what was read. On an error `folder` holds no config.json.
Expected<ConversionResult> convert_quantized(const ModelFiles& files, const std::filesystem::path& folder,
                                             const ConvertOptions& options, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_CONVERT_QUANTIZED_H_
