#include "nibble/cli/stay_on_node.h"

#include <filesystem>
#include <system_error>

#include "nibble/base/log.h"
#include "nibble/base/numa.h"
#include "nibble/base/system_files.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble::cli {
namespace {

size_t bytes_of_weights(const ModelFiles& files) {
  const auto size_of = [](const std::filesystem::path& file) -> size_t {
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    return error ? 0 : size;
  };
  if (!files.gguf.empty()) return size_of(files.gguf);
  size_t bytes = 0;
  for (const std::string& name : files.list()) {
    if (name.ends_with(".safetensors")) bytes += size_of(files.folder / name);
  }
  return bytes;
}

}  // namespace

void stay_on_node(const ModelOption& model, size_t threads) {
  // "0", "0-1", "0,2"; to read all of a machine takes longer.
  if (read_system_file("/sys/devices/system/node/online").find_first_of("-,") == std::string::npos) return;
  const Machine machine = read_machine();
  const auto files = find_model(model.model, model.revision);
  if (!files) return;  // said where the model is loaded
  const auto node = node_for(machine, bytes_of_weights(*files), threads);
  if (!node) return;
  if (stay_on(*node)) {
    log_verbose("staying on NUMA node {} with its {} processors: the weights fit there", node->id,
                node->cpus.size());
  } else {
    log_verbose("NUMA node {} was refused by the system", node->id);
  }
}

}  // namespace nibble::cli
