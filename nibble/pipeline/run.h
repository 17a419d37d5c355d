#ifndef NIBBLE_PIPELINE_RUN_H_
#define NIBBLE_PIPELINE_RUN_H_

// One quantization while it runs, and its phases.

#include <map>
#include <optional>
#include <span>
#include <string>

#include "nibble/base/progress.h"
#include "nibble/calibration/block_walk.h"
#include "nibble/calibration/dataset.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/pipeline/jobs.h"
#include "nibble/pipeline/quantize.h"
#include "nibble/pipeline/run_folder.h"

namespace nibble {

// Without calibration the codes are made when they are written: a second run makes them again.
inline bool quantizes_while_writing(const QuantizeOptions& options) {
  return options.round_to_nearest || std::holds_alternative<BitsAndBytesConfig>(options.config);
}

struct Run {
  const ModelSource& source;
  const Jobs& jobs;
  const QuantizeOptions& options;
  RunFolder& folder;
  ThreadPool& pool;
  QuantizeResult& result;
  std::optional<Progress> progress = {};  // in weights that became codes
};

// --- run_description.cc ---

// Everything that the bytes of the result depend on: model files, data, settings, version, arithmetic.
Expected<Json> describe_run(const ModelSource& source, const Jobs& jobs, const QuantizeOptions& options,
                            const QuantizePlan& plan, const CalibrationData& data);
// kDataLoss where a file of the model is not the one that the run began with.
Status check_unchanged(const ModelSource& source, const Json& run);

// --- run_modules.cc ---

// Whether all of these modules are finished, or not to be quantized.
bool is_known(const Run& run, std::span<const std::string> modules);
// What an earlier run made of a module.
Expected<QuantizedWeight> finished_weight(const Run& run, const ModuleJob& job);
// Encodes a finished module and writes it into the journal together with its row.
Status finish_module(Run& run, const ModuleJob& job, const QuantizedWeight& weight, QuantizedModule row);
// What rounding every module without calibration gives, by name of the tensor. A module is rounded when the
// first of its tensors is loaded, and kept until another's is; its row goes into run.result.modules.
Expected<std::map<std::string, TensorSource>> rounded_tensors(Run& run);

// --- run_calibrated.cc, run_awq.cc ---

// GPTQ, and the same solver for AWQ files: one walk over the data.
Status quantize_calibrated(Run& run, const CalibrationData& data);
// AutoAWQ's algorithm: scales are searched, folded, proved; then clipping and rounding.
Status quantize_awq(Run& run, const CalibrationData& data);

// --- write_result.cc ---

// The finished folder: weights, configurations, tokenizer, log and manifest; config.json last.
Status write_result(Run& run, const Json& description);

// --- sanity_check.cc ---

// Both models side by side, at every token of `text` that has a next one (sequences of at least two tokens).
// Beside one block at a time and its activations it holds what the heads read, and so many rows of each
// head's weight and columns of logits as a slice of the vocabulary has. options: arithmetic, type of
// activations, tokens_at_once. kInvalidArgument for different vocabularies.
Expected<SanityCheck> compare_models(const ModelSource& original, const ModelSource& written,
                                     const CalibrationData& text, const WalkOptions& options,
                                     ThreadPool& pool, size_t vocabulary_slice = 2048);
// Reads a written model back and compares it with the original on text held out for that; nothing where
// the model has no tokenizer.
Expected<std::optional<SanityCheck>> check_model_folder(const ModelSource& original,
                                                        const std::filesystem::path& folder,
                                                        const WalkOptions& options, ThreadPool& pool);
Expected<std::optional<SanityCheck>> check_written_model(const Run& run);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_RUN_H_
