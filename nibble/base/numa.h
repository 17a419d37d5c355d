#ifndef NIBBLE_BASE_NUMA_H_
#define NIBBLE_BASE_NUMA_H_

// Machines whose memory is in several nodes, each near to some of the processors.

#include <cstddef>
#include <optional>

#include "nibble/base/machine.h"

namespace nibble {

// The node, with those of its processors that this process may use, for `threads` threads (0: as many as
// there are) on `bytes` of weights: a part of what they need is read for every token, and memory of another
// node is read at half the speed. Nothing where the process may use the processors of one node only, where no
// node has the memory, or where none has so many processors. Of several the one with the most processors.
std::optional<NumaNode> node_for(const Machine& machine, size_t bytes, size_t threads);

// From now on this thread, and those that it starts, run on the node's processors; memory that they touch
// first lies in the node. False where the system refuses.
bool stay_on(const NumaNode& node);

}  // namespace nibble

#endif  // NIBBLE_BASE_NUMA_H_
