#ifndef NIBBLE_CLI_NUMA_PLACEMENT_H_
#define NIBBLE_CLI_NUMA_PLACEMENT_H_

#include <vector>

#include "nibble/base/machine.h"
#include "nibble/cli/options.h"

namespace nibble::cli {

// For ThreadPool, on a machine whose memory is in several nodes (base/numa.h): the node that the program
// stays on, where the model's weights fit there, or the nodes that they are split among. Empty elsewhere.
// threads: 0 for as many as there are. A mask that numactl or taskset has set to one node is left as it is.
std::vector<NumaNode> numa_placement(const ModelOption& model, size_t threads);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_NUMA_PLACEMENT_H_
