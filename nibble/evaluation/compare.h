#ifndef NIBBLE_EVALUATION_COMPARE_H_
#define NIBBLE_EVALUATION_COMPARE_H_

// Which quantization of a model to take here: makes the candidates, measures all of them under one protocol,
// and says which one.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "nibble/calibration/dataset.h"
#include "nibble/evaluation/method.h"
#include "nibble/evaluation/multiple_choice.h"
#include "nibble/evaluation/speed.h"
#include "nibble/evaluation/text_windows.h"
#include "nibble/evaluation/verdict.h"

namespace nibble {

struct CompareOptions {
  // One: it is the reference, and `methods` make the candidates. Several: they are the candidates.
  std::vector<std::string> models;
  std::vector<Method> methods;
  // One of `models`; empty: the first that is not quantized, else the first.
  std::string reference = {};

  // Everything is kept here, and what is there is not done again: models/ID, candidates/ID, reference/.
  std::filesystem::path workdir;

  std::string text = {}, text_name = {};
  TextProtocol protocol = {};
  ComputeMode compute = ComputeMode::kAuto;
  double confidence = 0.95;

  // For candidates that are calibrated here.
  std::vector<DataSource> dataset = {};
  DatasetOptions data = {};

  std::vector<Question> questions = {};   // none: no tasks
  std::vector<std::string> prompts = {};  // none: no sample answers
  size_t sample_tokens = 64;
  size_t layer_tokens = 0;  // looked at layer by layer; 0: not

  size_t speed_rounds = 0;  // interleaved over all candidates; 0: speed is not measured
  SpeedOptions speed = {};
  // Measures in a process of its own, whose memory is the model's alone. Null: in this one.
  std::function<Expected<SpeedSample>(const std::string& model, const SpeedOptions& speed)> measure_speed =
      {};

  Limits limits = {};
  std::string command = {};  // that repeats it, for the report
  bool show_progress = false;
};

// The report: docs/compare-report.md describes it. A comparison that was stopped goes on with the same call.
// Errors leave what was measured in workdir. kInvalidArgument for models with different tokenizers.
Expected<Json> compare(const CompareOptions& options, ThreadPool& pool);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_COMPARE_H_
