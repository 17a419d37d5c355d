#include "nibble/base/numa.h"

#include <algorithm>

#include <sched.h>

namespace nibble {

std::vector<NumaNode> nodes_for(const Machine& machine, size_t bytes, size_t threads) {
  // Beside the weights: the cache of keys and values, activations, what else runs there.
  const size_t needed = bytes + bytes / 4;
  std::vector<NumaNode> usable;
  const NumaNode* best = nullptr;
  usable.reserve(machine.numa_nodes.size());
  for (NumaNode node : machine.numa_nodes) {
    std::erase_if(node.cpus, [&](size_t cpu) { return std::ranges::count(machine.cpus_allowed, cpu) == 0; });
    if (node.cpus.empty()) continue;  // memory alone, or processors for others
    const NumaNode& added = usable.emplace_back(std::move(node));
    const bool fits = added.memory_bytes >= needed && added.cpus.size() >= threads;
    if (fits && (best == nullptr || added.cpus.size() > best->cpus.size())) best = &added;
  }
  if (usable.size() < 2) return {};
  if (best != nullptr) return {*best};
  return threads == 0 || threads >= usable.size() ? usable : std::vector<NumaNode>();
}

bool stay_on(const NumaNode& node) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const size_t cpu : node.cpus) {
    if (cpu >= CPU_SETSIZE) return false;
    CPU_SET(cpu, &set);
  }
  return ::sched_setaffinity(0, sizeof(set), &set) == 0;
}

}  // namespace nibble
