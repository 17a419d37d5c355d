#include "nibble/cli/doctor_report.h"

#include <algorithm>
#include <string_view>
#include <system_error>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "nibble/base/memory.h"

namespace nibble::cli {
namespace {

namespace fs = std::filesystem;

// Below this the other processes take too little to matter.
constexpr double kBusyLoad = 0.5;

std::string_view plural(size_t count) { return count == 1 ? "" : "s"; }

std::string giga(double value, std::string_view unit) { return fmt::format("{:.1f} G{}", value / 1e9, unit); }

// Powers of two, as caches and huge pages are spoken of.
std::string binary_bytes(size_t bytes) {
  if (bytes >= size_t{1} << 20) return fmt::format("{} MiB", bytes >> 20);
  return fmt::format("{} KiB", bytes >> 10);
}

std::string or_unknown(const std::string& text) { return text.empty() ? "unknown" : text; }

std::string cpus_text(const DoctorReport& report) {
  const Machine& machine = report.machine;
  std::string text = fmt::format("{} thread{} of {} processor{}", report.threads, plural(report.threads),
                                 machine.cpus_online.size(), plural(machine.cpus_online.size()));
  if (machine.cpus_allowed.size() < machine.cpus_online.size()) {
    text += fmt::format("; affinity allows {}", machine.cpus_allowed.size());
  }
  if (machine.cgroup.cpus) text += fmt::format("; cgroup limit {:.2g}", *machine.cgroup.cpus);
  return text + fmt::format("; load {:.2f}", machine.load_average);
}

std::string caches_text(const Machine& machine) {
  std::vector<std::string> parts;
  for (const CpuCache& cache : machine.caches) {
    if (cache.type == "Instruction") continue;
    const std::string shared =
        cache.shared_by > 1 ? fmt::format(" (shared by {})", cache.shared_by) : std::string();
    parts.push_back(fmt::format("L{}{} {}{}", cache.level, cache.type == "Data" ? "d" : "",
                                binary_bytes(cache.bytes), shared));
  }
  return parts.empty() ? "unknown" : fmt::format("{}", fmt::join(parts, ", "));
}

std::string memory_text(const Machine& machine) {
  std::string text = fmt::format("{}, {} available", human_bytes(machine.memory_bytes),
                                 human_bytes(machine.memory_available_bytes));
  if (const auto limit = machine.cgroup.memory_bytes) {
    text += fmt::format("; cgroup limit {}, {} left of it", human_bytes(*limit),
                        human_bytes(machine.cgroup.memory_left_bytes().value_or(0)));
  }
  if (machine.swap_bytes > 0) text += fmt::format("; swap {}", human_bytes(machine.swap_bytes));
  return text;
}

std::string huge_pages_text(const HugePages& pages) {
  std::string text = fmt::format("transparent: {}", or_unknown(pages.transparent));
  if (pages.page_bytes > 0) text += fmt::format(", {}", binary_bytes(pages.page_bytes));
  return text + fmt::format("; {} reserved, {} of them free", pages.reserved_pages, pages.free_pages);
}

std::string numa_text(const Machine& machine) {
  if (machine.numa_nodes.empty()) return "unknown";
  std::vector<std::string> parts;
  for (const NumaNode& node : machine.numa_nodes) {
    parts.push_back(fmt::format("node {}: {} processor{}, {}", node.id, node.cpus.size(),
                                plural(node.cpus.size()), human_bytes(node.memory_bytes)));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string accelerators_text(const Machine& machine) {
  if (machine.accelerators.empty()) return "none found";
  std::vector<std::string> parts;
  for (const Accelerator& found : machine.accelerators) {
    parts.push_back(fmt::format("{} {}", found.kind, found.device));
  }
  return fmt::format("{} (not used: Nibble runs on the CPU)", fmt::join(parts, ", "));
}

std::string cache_text(const CacheFolder& cache) {
  const std::string free = cache.free_bytes > 0
                               ? fmt::format(", {} free on its disk", human_bytes(cache.free_bytes))
                               : std::string();
  if (!cache.exists) return fmt::format("{} (not there yet{})", cache.path.string(), free);
  return fmt::format("{}: {} model{}{}", cache.path.string(), cache.models, plural(cache.models), free);
}

std::string peak_text(const linalg::Peak& peak, size_t threads, std::string_view unit) {
  if (threads == 1) return giga(peak.one_thread, unit);
  return fmt::format("{} on {} threads, {} on one", giga(peak.all_threads, unit), threads,
                     giga(peak.one_thread, unit));
}

Json to_json(const linalg::Peak& peak) {
  return {{"one_thread", peak.one_thread}, {"all_threads", peak.all_threads}};
}

template <class T>
Json optional_json(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json machine_json(const Machine& machine) {
  Json caches = Json::array();
  for (const CpuCache& cache : machine.caches) {
    caches.push_back({{"level", cache.level},
                      {"type", cache.type},
                      {"bytes", cache.bytes},
                      {"shared_by", cache.shared_by}});
  }
  Json nodes = Json::array();
  for (const NumaNode& node : machine.numa_nodes) {
    nodes.push_back({{"id", node.id}, {"cpus", node.cpus}, {"memory_bytes", node.memory_bytes}});
  }
  Json accelerators = Json::array();
  for (const Accelerator& found : machine.accelerators) {
    accelerators.push_back({{"kind", found.kind}, {"device", found.device}});
  }
  const HugePages& pages = machine.huge_pages;
  return {{"cpu",
           {{"model", machine.cpu_model},
            {"features", machine.cpu_features},
            {"hypervisor", machine.hypervisor},
            {"online", machine.cpus_online},
            {"allowed", machine.cpus_allowed},
            {"cgroup_limit", optional_json(machine.cgroup.cpus)},
            {"governor", machine.governor},
            {"load_average", machine.load_average},
            {"caches", caches}}},
          {"memory",
           {{"total_bytes", machine.memory_bytes},
            {"available_bytes", machine.memory_available_bytes},
            {"cgroup_limit_bytes", optional_json(machine.cgroup.memory_bytes)},
            {"cgroup_left_bytes", optional_json(machine.cgroup.memory_left_bytes())},
            {"swap_bytes", machine.swap_bytes},
            {"huge_pages",
             {{"transparent", pages.transparent},
              {"page_bytes", pages.page_bytes},
              {"reserved", pages.reserved_pages},
              {"free", pages.free_pages}}},
            {"numa_nodes", nodes}}},
          {"accelerators", accelerators}};
}

}  // namespace

CacheFolder look_at_cache(const fs::path& path) {
  CacheFolder cache = {.path = path};
  std::error_code error;
  cache.exists = fs::is_directory(path, error);
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with("models--")) ++cache.models;
  }
  // A folder that is not there yet will be made on the disk of the nearest one that is.
  fs::path place = fs::absolute(path, error);
  while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  const fs::space_info space = fs::space(place, error);
  if (!error) cache.free_bytes = space.available;
  return cache;
}

std::vector<std::string> advice_for(const DoctorReport& report) {
  const Machine& machine = report.machine;
  const size_t online = machine.cpus_online.size();
  std::vector<std::string> lines;
  if (!report.optimized) {
    lines.emplace_back("this build is not optimised: cmake --preset release, and build again");
  }
  if (report.target_used != report.targets_found.back()) {
    lines.push_back(fmt::format("NIBBLE_CPU={} is set, so that {} is not used: unset it",
                                cpu_target_name(report.target_used),
                                cpu_target_name(report.targets_found.back())));
  }
  if (report.targets_found.back() == CpuTarget::kScalar) {
    lines.emplace_back(
        "this CPU has no AVX2, and plain loops are many times slower: if it is a virtual machine, let it see "
        "the "
        "host's CPU");
  }
  if (machine.cgroup.cpus && *machine.cgroup.cpus < static_cast<double>(online)) {
    lines.push_back(fmt::format("the cgroup grants {:.2g} of {} processors: raise its limit (docker: --cpus)",
                                *machine.cgroup.cpus, online));
  }
  if (machine.cpus_allowed.size() < online) {
    lines.push_back(fmt::format("the affinity mask allows {} of {} processors: start it without taskset",
                                machine.cpus_allowed.size(), online));
  }
  if (machine.load_average >= kBusyLoad && online > 0) {
    const double taken = std::min(machine.load_average, static_cast<double>(online));
    lines.push_back(
        fmt::format("about {:.1f} of {} processors are taken by other processes (load {:.1f}): stop them",
                    taken, online, machine.load_average));
  }
  if (machine.governor == "powersave" || machine.governor == "conservative") {
    lines.push_back(fmt::format(
        "the frequency governor is {}: as root, cpupower frequency-set -g performance", machine.governor));
  }
  if (machine.huge_pages.transparent == "never") {
    lines.emplace_back(
        "transparent huge pages are off: as root, echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled");
  }
  if (machine.numa_nodes.size() > 1) {
    lines.push_back(
        fmt::format("{} NUMA nodes: a model that fits one is kept there (run, chat, eval, logits and bench); "
                    "for another, "
                    "numactl --interleave=all",
                    machine.numa_nodes.size()));
  }
  return lines;
}

Json to_json(const DoctorReport& report) {
  Json found = Json::array();
  for (const CpuTarget target : report.targets_found) found.push_back(cpu_target_name(target));
  Json json = {{"nibble", report.version},
               {"compiler", report.compiler},
               {"optimized", report.optimized},
               {"libc", report.libc},
               {"kernel", report.machine.kernel},
               {"system", report.machine.system},
               {"threads", report.threads},
               {"instruction_sets",
                {{"found", found},
                 {"used", cpu_target_name(report.target_used)},
                 {"features", to_json(report.features)}}}};
  json.update(machine_json(report.machine));
  json["measured"] = nullptr;
  if (const auto& speed = report.speed) {
    json["measured"] = {{"threads", speed->threads},
                        {"buffer_bytes", speed->buffer_bytes},
                        {"streams_per_thread", speed->streams},
                        {"read_one_stream_bytes_per_second", speed->read_one_stream},
                        {"read_bytes_per_second", to_json(speed->read)},
                        {"f32_operations_per_second", to_json(speed->f32)},
                        {"int8_operations_per_second", to_json(speed->int8)}};
  }
  json["cache"] = {{"path", report.cache.path.string()},
                   {"exists", report.cache.exists},
                   {"models", report.cache.models},
                   {"free_bytes", report.cache.free_bytes}};
  json["model"] = report.model ? to_json(*report.model) : Json();
  json["advice"] = advice_for(report);
  return json;
}

std::string to_text(const DoctorReport& report) {
  const Machine& machine = report.machine;
  std::string out;
  const auto line = [&out](std::string_view label, std::string_view value) {
    out += fmt::format("{:<18} {}\n", label, value);
  };
  line("nibble",
       fmt::format("{}, {}{}", report.version, report.compiler, report.optimized ? "" : ", not optimised"));
  line("system",
       fmt::format("{}, {}, {}", or_unknown(machine.system), or_unknown(machine.kernel), report.libc));
  line("processor", fmt::format("{}{}", or_unknown(machine.cpu_model),
                                machine.hypervisor.empty() ? "" : " (virtual machine)"));
  line("instruction sets", fmt::format("found {}; used {}", cpu_target_name(report.targets_found.back()),
                                       cpu_target_name(report.target_used)));
  line("features", fmt::format("{}", fmt::join(machine.cpu_features, " ")));
  line("for kernels", to_text(report.features));
  line("processors", cpus_text(report));
  if (!machine.governor.empty()) line("governor", machine.governor);
  line("caches", caches_text(machine));
  line("memory", memory_text(machine));
  line("huge pages", huge_pages_text(machine.huge_pages));
  line("NUMA", numa_text(machine));
  line("accelerators", accelerators_text(machine));
  line("model cache", cache_text(report.cache));
  if (const auto& speed = report.speed) {
    line("memory reads", fmt::format("{} ({} with one stream)", peak_text(speed->read, speed->threads, "B/s"),
                                     giga(speed->read_one_stream, "B/s")));
    line("float32", peak_text(speed->f32, speed->threads, "FLOP/s"));
    if (speed->int8.all_threads > 0) line("int8", peak_text(speed->int8, speed->threads, "OP/s"));
  }
  if (report.model) out += "\n" + to_text(*report.model);
  const std::vector<std::string> advice = advice_for(report);
  out += advice.empty() ? "\nNothing here keeps Nibble from being fast.\n" : "\nTo make it faster:\n";
  for (const std::string& item : advice) out += fmt::format("- {}\n", item);
  return out;
}

}  // namespace nibble::cli
