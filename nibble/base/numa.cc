#include "nibble/base/numa.h"

#include <algorithm>

#include <sched.h>

namespace nibble {

std::optional<NumaNode> node_for(const Machine& machine, size_t bytes, size_t threads) {
  // Beside the weights: the cache of keys and values, activations, what else runs there.
  const size_t needed = bytes + bytes / 4;
  std::optional<NumaNode> best;
  size_t usable_nodes = 0;
  for (NumaNode node : machine.numa_nodes) {
    std::erase_if(node.cpus, [&](size_t cpu) { return std::ranges::count(machine.cpus_allowed, cpu) == 0; });
    if (node.cpus.empty()) continue;  // memory alone, or processors for others
    ++usable_nodes;
    const bool fits = node.memory_bytes >= needed && node.cpus.size() >= threads;
    if (fits && (!best || node.cpus.size() > best->cpus.size())) best = std::move(node);
  }
  return usable_nodes > 1 ? best : std::nullopt;
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
