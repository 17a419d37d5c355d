#ifndef NIBBLE_CLI_STAY_ON_NODE_H_
#define NIBBLE_CLI_STAY_ON_NODE_H_

#include "nibble/cli/options.h"

namespace nibble::cli {

// Before the threads start: on a machine whose memory is in several nodes, the program stays on one of them
// where the model's weights fit there (base/numa.h). threads: 0 for as many as there are. A mask that numactl
// or taskset has set to one node is left as it is.
void stay_on_node(const ModelOption& model, size_t threads);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_STAY_ON_NODE_H_
