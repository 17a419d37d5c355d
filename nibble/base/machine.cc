#include "nibble/base/machine.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <set>
#include <sstream>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "nibble/base/system_files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 21> kFeatures = {
    "sse4_2",     "avx",      "f16c",     "fma",      "avx2",        "avx_vnni",    "avx512f",
    "avx512bw",   "avx512cd", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx512vbmi", "amx_tile", "amx_int8", "amx_bf16", "asimd",       "asimddp",     "i8mm"};

// Names in a folder that begin with `prefix`, sorted.
std::vector<std::string> names_in(const fs::path& folder, std::string_view prefix) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (name.starts_with(prefix)) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The number behind the prefix: "node12" -> 12; nothing for "node_x".
std::optional<size_t> number_behind(const std::string& name, size_t prefix) {
  if (name.size() == prefix) return std::nullopt;
  const bool digits = std::all_of(name.begin() + static_cast<ptrdiff_t>(prefix), name.end(),
                                  [](unsigned char c) { return std::isdigit(c) != 0; });
  return digits ? parse_system_size(std::string_view(name).substr(prefix)) : std::nullopt;
}

// "model name\t: Xeon", the first one.
std::string cpuinfo_value(const std::string& text, std::string_view key) {
  std::string value = find_system_value(text, key);
  const size_t begin = value.find_first_not_of(": \t");
  return begin == std::string::npos ? std::string() : value.substr(begin);
}

void read_cpu(const fs::path& root, Machine& machine) {
  const std::string info = read_system_file(root / "proc/cpuinfo");
  machine.cpu_model = cpuinfo_value(info, "model name");
  std::istringstream words(cpuinfo_value(info, "flags") + " " +
                           cpuinfo_value(info, "Features"));  // or of ARM
  std::set<std::string> flags;
  for (std::string word; words >> word;) flags.insert(std::move(word));
  for (const std::string_view feature : kFeatures) {
    if (flags.contains(std::string(feature))) machine.cpu_features.emplace_back(feature);
  }
  machine.hypervisor = read_system_file(root / "sys/hypervisor/type");
  if (machine.hypervisor.empty() && flags.contains("hypervisor")) machine.hypervisor = "yes";

  const fs::path cpus = root / "sys/devices/system/cpu";
  machine.cpus_online = parse_cpu_list(read_system_file(cpus / "online"));
  const std::string status = read_system_file(root / "proc/self/status");
  machine.cpus_allowed = parse_cpu_list(find_system_value(status, "Cpus_allowed_list:"));
  if (machine.cpus_allowed.empty()) machine.cpus_allowed = machine.cpus_online;
  const size_t first = machine.cpus_allowed.empty() ? 0 : machine.cpus_allowed.front();
  machine.governor = read_system_file(cpus / fmt::format("cpu{}/cpufreq/scaling_governor", first));
  machine.load_average = std::strtod(read_system_file(root / "proc/loadavg").c_str(), nullptr);

  const fs::path caches = cpus / fmt::format("cpu{}/cache", first);
  for (const std::string& name : names_in(caches, "index")) {
    const fs::path folder = caches / name;
    const auto bytes = parse_system_size(read_system_file(folder / "size"));
    const auto level = parse_system_size(read_system_file(folder / "level"));
    if (!bytes || !level) continue;
    const size_t shared_by = parse_cpu_list(read_system_file(folder / "shared_cpu_list")).size();
    machine.caches.push_back(
        {*level, read_system_file(folder / "type"), *bytes, std::max<size_t>(1, shared_by)});
  }
}

void read_memory(const fs::path& root, Machine& machine) {
  const std::string info = read_system_file(root / "proc/meminfo");
  const auto value = [&](std::string_view key) {
    return parse_system_size(find_system_value(info, key)).value_or(0);
  };
  machine.memory_bytes = value("MemTotal:");
  machine.memory_available_bytes = value("MemAvailable:");
  machine.swap_bytes = value("SwapTotal:");
  machine.huge_pages.page_bytes = value("Hugepagesize:");
  machine.huge_pages.reserved_pages = value("HugePages_Total:");
  machine.huge_pages.free_pages = value("HugePages_Free:");
  // "always [madvise] never"
  const std::string modes = read_system_file(root / "sys/kernel/mm/transparent_hugepage/enabled");
  const size_t begin = modes.find('[');
  const size_t end = modes.find(']');
  if (begin != std::string::npos && end != std::string::npos && begin < end) {
    machine.huge_pages.transparent = modes.substr(begin + 1, end - begin - 1);
  }
  machine.cgroup = read_cgroup_limits(root);
}

void read_numa(const fs::path& root, Machine& machine) {
  constexpr std::string_view kNode = "node";
  const fs::path nodes = root / "sys/devices/system/node";
  for (const std::string& name : names_in(nodes, kNode)) {
    const auto id = number_behind(name, kNode.size());
    if (!id) continue;
    // "Node 0 MemTotal:       65536 kB"
    const std::string info = read_system_file(nodes / name / "meminfo");
    const std::string total = find_system_value(info, fmt::format("Node {} MemTotal:", *id));
    machine.numa_nodes.push_back({*id, parse_cpu_list(read_system_file(nodes / name / "cpulist")),
                                  parse_system_size(total).value_or(0)});
  }
  std::sort(machine.numa_nodes.begin(), machine.numa_nodes.end(),
            [](const NumaNode& a, const NumaNode& b) { return a.id < b.id; });
}

std::string vendor_name(const std::string& pci_vendor) {
  if (pci_vendor == "0x10de") return "NVIDIA";
  if (pci_vendor == "0x1002") return "AMD";
  if (pci_vendor == "0x8086") return "Intel";
  return "GPU";
}

void read_accelerators(const fs::path& root, Machine& machine) {
  for (const std::string& name : names_in(root / "dev", "nvidia")) {
    if (number_behind(name, std::string_view("nvidia").size())) {
      machine.accelerators.push_back({"NVIDIA", "/dev/" + name});
    }
  }
  for (const std::string& name : names_in(root / "dev/dri", "renderD")) {
    const std::string vendor = vendor_name(read_system_file(root / "sys/class/drm" / name / "device/vendor"));
    machine.accelerators.push_back({vendor, "/dev/dri/" + name});
  }
  std::error_code error;
  if (fs::exists(root / "dev/kfd", error)) machine.accelerators.push_back({"AMD", "/dev/kfd"});
}

std::string unquoted(std::string text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') return text.substr(1, text.size() - 2);
  return text;
}

}  // namespace

size_t Machine::last_level_cache_bytes() const {
  size_t bytes = 0;
  size_t level = 0;
  for (const CpuCache& cache : caches) {
    if (cache.level < level || cache.type == "Instruction") continue;
    level = cache.level;
    bytes = cache.bytes;
  }
  return bytes;
}

size_t Machine::usable_memory_bytes() const {
  const std::optional<size_t> left = cgroup.memory_left_bytes();
  if (!left) return memory_available_bytes;
  return memory_available_bytes == 0 ? *left : std::min(memory_available_bytes, *left);
}

Machine read_machine(const fs::path& root) {
  Machine machine;
  read_cpu(root, machine);
  read_memory(root, machine);
  read_numa(root, machine);
  read_accelerators(root, machine);
  machine.kernel = fmt::format("{} {}", read_system_file(root / "proc/sys/kernel/ostype"),
                               read_system_file(root / "proc/sys/kernel/osrelease"));
  if (machine.kernel == " ") machine.kernel.clear();
  machine.system = unquoted(find_system_value(read_system_file(root / "etc/os-release"), "PRETTY_NAME="));
  return machine;
}

}  // namespace nibble
