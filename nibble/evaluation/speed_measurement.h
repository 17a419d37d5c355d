#ifndef NIBBLE_EVALUATION_SPEED_MEASUREMENT_H_
#define NIBBLE_EVALUATION_SPEED_MEASUREMENT_H_

// `nibble bench`: every workload on every number of threads, several times in turns, next to what the machine
// can do at most at the same time.

#include <optional>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/machine.h"
#include "nibble/evaluation/speed_workload.h"
#include "nibble/models/auto_model.h"

namespace nibble {

struct BenchOptions {
  std::vector<Workload> workloads = {};
  std::vector<size_t> threads = {1};
  std::vector<NumaNode> nodes = {};  // ThreadPool's
  size_t repetitions = 5;
  bool probe_limits = true;            // measure the machine between the repetitions
  std::optional<size_t> context = {};  // --ctx-size: nothing for what the model was made for
};

// Repeats of one figure.
struct Repeats {
  std::vector<double> values;

  double median() const;
  double spread() const;  // half the distance between the quartiles
};

// What the machine reached on `threads` threads, per second; one value per repetition. Empty: not probed.
struct MachineLimits {
  size_t threads = 1;
  Repeats read = {};  // bytes
  Repeats f32 = {};   // operations; a multiplication and an addition are two
  Repeats int8 = {};  // 0 where the instruction set has no such product
};

struct BenchRow {
  Workload workload;
  size_t threads = 1;
  Repeats tokens_per_second;  // of all sequences together
  double bytes_per_step = 0;  // decode: speed_runner.h; 0: not known
  double operations = 0;      // prefill

  double bytes_per_second() const;  // decode: what a step reads over its median time; 0: not known
  double operations_per_second() const;
};

struct ModelBench {
  std::string model;         // as it was named
  std::string quantization;  // "gptq", "bitsandbytes nf4", "none"
  std::string compute;       // "auto", "f32"
  std::string kernels;
  bool int8_activations = false;  // linear layers multiply integers: their limit is that of int8
  size_t parameters = 0;
  size_t weight_bytes = 0;  // as they stand in memory
  double load_seconds = 0;
  // The most that was resident while this model was loaded and ran, without the memory that the probe reads;
  // 0 where the system does not tell.
  size_t peak_memory_bytes = 0;
  std::vector<MachineLimits> limits;  // one for each number of threads
  std::vector<BenchRow> rows;         // in the order of the workloads, then of threads

  const MachineLimits* limits_for(size_t threads) const;
  // Of what the machine reached in this run; nothing where one of both is not known.
  std::optional<double> share_of_read(const BenchRow& row) const;
  std::optional<double> share_of_arithmetic(const BenchRow& row) const;
};

// Headers only: that the workloads fit the context.
Status check_model_context(const std::string& model, const FromPretrainedOptions& load,
                           const BenchOptions& options);

// Loads the model and measures it. kCancelled after Ctrl-C. Says on stderr how far it is.
Expected<ModelBench> bench_model(const std::string& model, const FromPretrainedOptions& load,
                                 const BenchOptions& options);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_SPEED_MEASUREMENT_H_
