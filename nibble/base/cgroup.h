#ifndef NIBBLE_BASE_CGROUP_H_
#define NIBBLE_BASE_CGROUP_H_

// What the control group of this process grants: containers and services run inside one.

#include <cstddef>
#include <filesystem>
#include <optional>

namespace nibble {

struct CgroupLimits {
  std::optional<double> cpus;          // 1.5: one and a half processors' time
  std::optional<size_t> memory_bytes;  // the limit
  std::optional<size_t>
      memory_used_bytes;  // of it, by all of the group; not what the kernel can drop at once

  // What of the limit may still be taken; nothing without a limit.
  std::optional<size_t> memory_left_bytes() const;
};

// Version 2 and version 1: the tightest limits of the group and those around it; what cannot be read sets
// none. root: where /proc and /sys lie, for tests.
CgroupLimits read_cgroup_limits(const std::filesystem::path& root = "/");

}  // namespace nibble

#endif  // NIBBLE_BASE_CGROUP_H_
