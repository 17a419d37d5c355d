#include "nibble/base/cgroup.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>

#include "nibble/base/system_files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Version 1 writes "no limit" as the largest multiple of a page.
constexpr size_t kNoLimit = size_t{1} << 62;

// "0::/a/b" of version 2, "4:cpu,cpuacct:/a" of version 1: the path behind the controllers, "/a/b".
std::string group_of(std::string_view groups, std::string_view controller) {
  std::istringstream lines{std::string(groups)};
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string list = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_it = controller.empty()
                           ? list == ",,"
                           : list.find("," + std::string(controller) + ",") != std::string::npos;
    if (is_it) return line.substr(second + 1);
  }
  return "/";
}

// Calls `look` with the folder of the group and with those around it. Inside a container /proc may show the
// path on the host, which is not mounted here: folders that do not exist are passed over.
template <class Look>
void walk_up(const fs::path& mount, const std::string& group, Look look) {
  for (fs::path path = fs::path(group).relative_path();; path = path.parent_path()) {
    look(mount / path);
    if (path.empty()) return;
  }
}

void take_cpus(double quota, double period, CgroupLimits& limits) {
  if (!(quota > 0) || !(period > 0)) return;  // -1: no limit
  limits.cpus = std::min(limits.cpus.value_or(quota / period), quota / period);
}

// The group with the least room counts. Pages of files that nobody maps go when memory is wanted, as in
// MemAvailable. inactive: their key in memory.stat.
void take_memory(const fs::path& limit_file, const fs::path& used_file, std::string_view inactive,
                 CgroupLimits& limits) {
  CgroupLimits found;
  found.memory_bytes = parse_system_size(read_system_file(limit_file));
  if (!found.memory_bytes || *found.memory_bytes >= kNoLimit) return;
  const size_t used = parse_system_size(read_system_file(used_file)).value_or(0);
  const std::string stat = read_system_file(limit_file.parent_path() / "memory.stat");
  const size_t files = parse_system_size(find_system_value(stat, inactive)).value_or(0);
  found.memory_used_bytes = used - std::min(used, files);
  if (limits.memory_bytes && *limits.memory_left_bytes() <= *found.memory_left_bytes()) return;
  limits.memory_bytes = found.memory_bytes;
  limits.memory_used_bytes = found.memory_used_bytes;
}

double number(const std::string& text) { return text.empty() ? 0 : std::strtod(text.c_str(), nullptr); }

}  // namespace

std::optional<size_t> CgroupLimits::memory_left_bytes() const {
  if (!memory_bytes) return std::nullopt;
  return *memory_bytes - std::min(*memory_bytes, memory_used_bytes.value_or(0));
}

CgroupLimits read_cgroup_limits(const fs::path& root) {
  CgroupLimits limits;
  const std::string groups = read_system_file(root / "proc/self/cgroup");
  const fs::path mount = root / "sys/fs/cgroup";
  walk_up(mount, group_of(groups, ""), [&](const fs::path& folder) {
    std::istringstream cpu(read_system_file(folder / "cpu.max"));  // "150000 100000", "max 100000"
    std::string quota;
    std::string period;
    cpu >> quota >> period;
    take_cpus(number(quota), number(period), limits);
    take_memory(folder / "memory.max", folder / "memory.current", "inactive_file ", limits);
  });
  walk_up(mount / "cpu", group_of(groups, "cpu"), [&](const fs::path& folder) {
    take_cpus(number(read_system_file(folder / "cpu.cfs_quota_us")),
              number(read_system_file(folder / "cpu.cfs_period_us")), limits);
  });
  walk_up(mount / "memory", group_of(groups, "memory"), [&](const fs::path& folder) {
    take_memory(folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes", "total_inactive_file ",
                limits);
  });
  return limits;
}

}  // namespace nibble
