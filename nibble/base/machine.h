#ifndef NIBBLE_BASE_MACHINE_H_
#define NIBBLE_BASE_MACHINE_H_

// What this machine is, as the kernel tells it; nothing is measured. What cannot be read is empty or 0.

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nibble/base/cgroup.h"

namespace nibble {

struct CpuCache {
  size_t level = 0;
  std::string type;  // "Data", "Instruction", "Unified"
  size_t bytes = 0;
  size_t shared_by = 1;  // processors
};

struct NumaNode {
  size_t id = 0;
  std::vector<size_t> cpus;
  size_t memory_bytes = 0;
};

struct HugePages {
  std::string transparent;    // "always", "madvise", "never"
  size_t page_bytes = 0;      // 2 MiB most often
  size_t reserved_pages = 0;  // of hugetlbfs, which Nibble does not use
  size_t free_pages = 0;

  // Whether large buffers get them: they ask for it.
  bool enabled() const { return transparent == "always" || transparent == "madvise"; }
};

// Named only: Nibble runs on the CPU.
struct Accelerator {
  std::string kind;    // "NVIDIA", "AMD", "Intel", "GPU"
  std::string device;  // "/dev/nvidia0"
};

struct Machine {
  std::string cpu_model;
  std::vector<std::string> cpu_features;  // those that matter for kernels, as /proc/cpuinfo spells them
  std::string hypervisor;                 // "" on bare metal, "yes" where only a flag tells
  std::vector<size_t> cpus_online;
  std::vector<size_t> cpus_allowed;  // affinity mask of this process
  std::string governor;              // of the first allowed processor: "performance", "powersave"
  double load_average = 0;           // runnable processes over the last minute
  std::vector<CpuCache> caches;      // of the first allowed processor
  size_t memory_bytes = 0;
  size_t memory_available_bytes = 0;  // without swapping, of the machine
  size_t swap_bytes = 0;
  CgroupLimits cgroup;
  HugePages huge_pages;
  std::vector<NumaNode> numa_nodes;
  std::vector<Accelerator> accelerators;
  std::string kernel;  // "Linux 6.1.0"
  std::string system;  // "Debian GNU/Linux 12 (bookworm)"

  size_t last_level_cache_bytes() const;  // 0 where unknown
  // What this process may take: the machine's and the cgroup's; 0 where neither is known.
  size_t usable_memory_bytes() const;
};

// root: where /proc, /sys, /dev and /etc lie, for tests.
Machine read_machine(const std::filesystem::path& root = "/");

}  // namespace nibble

#endif  // NIBBLE_BASE_MACHINE_H_
