#ifndef NIBBLE_PIPELINE_WALK_DRIVER_H_
#define NIBBLE_PIPELINE_WALK_DRIVER_H_

// Takes a BlockWalk from the first block, or from where an earlier run stopped, to the last one.

#include <functional>

#include "nibble/calibration/block_walk.h"
#include "nibble/pipeline/run.h"

namespace nibble {

WalkOptions walk_options(const Run& run);

// Calls step(walk, layer) for every block, and for num_hidden_layers once more where the head is to be
// quantized. Keeps snapshots of the activations.
Status drive_walk(Run& run, const CalibrationData& data, const WalkOptions& options,
                  const std::function<Status(BlockWalk&, size_t layer)>& step);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_WALK_DRIVER_H_
