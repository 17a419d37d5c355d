#ifndef NIBBLE_BASE_NUMA_H_
#define NIBBLE_BASE_NUMA_H_

// Machines whose memory is in several nodes, each near to some of the processors.

#include <cstddef>
#include <vector>

#include "nibble/base/machine.h"

namespace nibble {

// Where `threads` threads (0: as many as there are) on `bytes` of weights are to run: a part of what they
// need is read for every token, and memory of another node is read at half the speed. Each with those of its
// processors that this process may use.
//   one      the one that has the memory and the processors; of several the one with the most processors
//   several  no node has both: all that have processors. The weights are to be split among them.
//   none     the process may use the processors of one node only, or there are fewer threads than nodes
std::vector<NumaNode> nodes_for(const Machine& machine, size_t bytes, size_t threads);

// From now on this thread, and those that it starts, run on the node's processors; memory that they touch
// first lies in the node. False where the system refuses.
bool stay_on(const NumaNode& node);

}  // namespace nibble

#endif  // NIBBLE_BASE_NUMA_H_
