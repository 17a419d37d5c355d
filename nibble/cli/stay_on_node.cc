#include "nibble/cli/stay_on_node.h"

#include <string>

#include "nibble/base/log.h"
#include "nibble/base/numa.h"
#include "nibble/base/system_files.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble::cli {

void stay_on_node(const ModelOption& model, size_t threads) {
  // "0", "0-1", "0,2"; to read all of a machine takes longer.
  if (read_system_file("/sys/devices/system/node/online").find_first_of("-,") == std::string::npos) return;
  const Machine machine = read_machine();
  const auto files = find_model(model.model, model.revision);
  if (!files) return;  // said where the model is loaded
  const auto node = node_for(machine, bytes_on_disk(*files), threads);
  if (!node) return;
  if (stay_on(*node)) {
    log_verbose("staying on NUMA node {} with its {} processors: the weights fit there", node->id,
                node->cpus.size());
  } else {
    log_verbose("NUMA node {} was refused by the system", node->id);
  }
}

}  // namespace nibble::cli
