#ifndef NIBBLE_EVALUATION_SPEED_H_
#define NIBBLE_EVALUATION_SPEED_H_

// How fast a model runs here, and the memory it takes: of this process, which should do nothing else. One
// figure of each kind, for comparisons; speed_measurement.h has the whole table.

#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/base/thread_pool.h"
#include "nibble/models/auto_model.h"

namespace nibble {

struct SpeedOptions {
  size_t prompt_tokens = 512;
  size_t generated_tokens = 64;
};

struct SpeedSample {
  double load_seconds = 0.0;
  double prefill_tokens_per_second = 0.0;
  double decode_tokens_per_second = 0.0;
  size_t peak_memory_bytes = 0;  // the most that was resident in this process meanwhile
};

// Loads the model, reads a prompt of pseudo-random tokens, and decodes from an empty cache, once each.
Expected<SpeedSample> measure_speed(std::string_view model, const FromPretrainedOptions& load,
                                    const SpeedOptions& options, ThreadPool& pool);

// From what `nibble bench -p P -n N -r 1 --json` prints for one model (speed_table.h).
Expected<SpeedSample> speed_sample_from_json(const Json& bench);

// Repeats of one model: {"median", "min", "max"} of each figure.
Json summarize(const std::vector<SpeedSample>& samples);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_SPEED_H_
