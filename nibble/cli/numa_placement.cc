#include "nibble/cli/numa_placement.h"

#include <string>

#include "nibble/base/log.h"
#include "nibble/base/numa.h"
#include "nibble/base/system_files.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble::cli {

std::vector<NumaNode> numa_placement(const ModelOption& model, size_t threads) {
  // "0", "0-1", "0,2"; to read all of a machine takes longer.
  if (read_system_file("/sys/devices/system/node/online").find_first_of("-,") == std::string::npos) return {};
  const Machine machine = read_machine();
  const auto files = find_model(model.model, model.revision);
  if (!files) return {};  // said where the model is loaded
  std::vector<NumaNode> nodes = nodes_for(machine, bytes_on_disk(*files), threads);
  if (nodes.size() == 1) {
    log_verbose("staying on NUMA node {} with its {} processors: the weights fit there", nodes.front().id,
                nodes.front().cpus.size());
  } else if (!nodes.empty()) {
    log_verbose("splitting the weights among {} NUMA nodes: none has the memory and the processors",
                nodes.size());
  }
  return nodes;
}

}  // namespace nibble::cli
