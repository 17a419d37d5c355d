// The machine as its /proc and /sys tell it, from trees made for the test.

#include "nibble/base/machine.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/system_files.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class MachineTest : public testing::Test {
 protected:
  void add(const std::string& path, std::string_view content) const {
    fs::create_directories((root() / path).parent_path());
    ASSERT_TRUE(write_file(root() / path, content).has_value());
  }
  fs::path root() const { return folder_.path(); }
  Machine read() const { return read_machine(root()); }

  const test::TemporaryFolder folder_;
};

TEST_F(MachineTest, AnEmptyTreeIsNoError) {
  const Machine machine = read();
  EXPECT_EQ(machine.cpu_model, "");
  EXPECT_TRUE(machine.cpus_online.empty());
  EXPECT_TRUE(machine.caches.empty());
  EXPECT_TRUE(machine.numa_nodes.empty());
  EXPECT_TRUE(machine.accelerators.empty());
  EXPECT_EQ(machine.kernel, "");
  EXPECT_FALSE(machine.cgroup.cpus.has_value());
  EXPECT_FALSE(machine.cgroup.memory_bytes.has_value());
  EXPECT_FALSE(machine.huge_pages.enabled());
  EXPECT_EQ(machine.last_level_cache_bytes(), 0u);
  EXPECT_EQ(machine.usable_memory_bytes(), 0u);
}

TEST_F(MachineTest, ReadsTheFeaturesOfAnArmProcessor) {
  add("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd0c\n");
  EXPECT_EQ(read().cpu_features, (std::vector<std::string>{"asimd", "asimddp", "i8mm"}));
}

TEST_F(MachineTest, ReadsAServerWithTwoNodes) {
  add("proc/cpuinfo",
      "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 fma avx512f mmx hypervisor\n\n"
      "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n");
  add("sys/devices/system/cpu/online", "0-3\n");
  add("proc/self/status", "Name:\tx\nCpus_allowed_list:\t2-3\n");
  add("proc/loadavg", "1.90 0.50 0.10 2/100 77\n");
  const std::string cache = "sys/devices/system/cpu/cpu2/cache/";
  add(cache + "index0/level", "1\n");
  add(cache + "index0/type", "Data\n");
  add(cache + "index0/size", "48K\n");
  add(cache + "index1/level", "1\n");
  add(cache + "index1/type", "Instruction\n");
  add(cache + "index1/size", "32K\n");
  add(cache + "index3/level", "3\n");
  add(cache + "index3/type", "Unified\n");
  add(cache + "index3/size", "32M\n");
  add(cache + "index3/shared_cpu_list", "0-3\n");
  add("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave\n");
  add("proc/meminfo",
      "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\nSwapTotal: 8 kB\nHugePages_Total:  "
      "5\n"
      "HugePages_Free:  4\nHugepagesize:    2048 kB\n");
  add("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  add("sys/devices/system/node/node0/cpulist", "0-1\n");
  add("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:  500 kB\n");
  add("sys/devices/system/node/node10/cpulist", "2,3\n");
  add("sys/devices/system/node/node10/meminfo", "Node 10 MemFree: 1 kB\nNode 10 MemTotal:  400 kB\n");
  add("sys/devices/system/node/node_list", "");
  add("dev/nvidia0", "");
  add("dev/nvidiactl", "");
  add("dev/kfd", "");
  add("dev/dri/renderD128", "");
  add("sys/class/drm/renderD128/device/vendor", "0x8086\n");
  add("proc/sys/kernel/ostype", "Linux\n");
  add("proc/sys/kernel/osrelease", "6.1.0\n");
  add("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian 12\"\n");

  const Machine machine = read();
  EXPECT_EQ(machine.cpu_model, "Some CPU @ 2 GHz");
  EXPECT_THAT(machine.cpu_features, ElementsAre("fma", "avx2", "avx512f"));
  EXPECT_EQ(machine.hypervisor, "yes");
  EXPECT_THAT(machine.cpus_online, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(machine.cpus_allowed, ElementsAre(2, 3));
  EXPECT_EQ(machine.governor, "powersave");
  EXPECT_EQ(machine.load_average, 1.9);
  ASSERT_EQ(machine.caches.size(), 3u);
  EXPECT_EQ(machine.caches[2].shared_by, 4u);
  EXPECT_EQ(machine.caches[0].bytes, 48u << 10);
  EXPECT_EQ(machine.last_level_cache_bytes(), 32u << 20);
  EXPECT_EQ(machine.memory_bytes, 1000u << 10);
  EXPECT_EQ(machine.usable_memory_bytes(), 600u << 10);
  EXPECT_EQ(machine.swap_bytes, 8u << 10);
  EXPECT_EQ(machine.huge_pages.transparent, "never");
  EXPECT_FALSE(machine.huge_pages.enabled());
  EXPECT_EQ(machine.huge_pages.page_bytes, 2u << 20);
  EXPECT_EQ(machine.huge_pages.reserved_pages, 5u);
  ASSERT_EQ(machine.numa_nodes.size(), 2u);
  EXPECT_EQ(machine.numa_nodes[1].id, 10u);
  EXPECT_THAT(machine.numa_nodes[1].cpus, ElementsAre(2, 3));
  EXPECT_EQ(machine.numa_nodes[1].memory_bytes, 400u << 10);
  std::vector<std::string> devices;
  for (const Accelerator& found : machine.accelerators) devices.push_back(found.kind + " " + found.device);
  EXPECT_THAT(devices, ElementsAre("NVIDIA /dev/nvidia0", "Intel /dev/dri/renderD128", "AMD /dev/kfd"));
  EXPECT_EQ(machine.kernel, "Linux 6.1.0");
  EXPECT_EQ(machine.system, "Debian 12");
}

TEST_F(MachineTest, TheTightestCgroupOfVersion2Counts) {
  add("proc/self/cgroup", "0::/outer/inner\n");
  add("proc/meminfo", "MemAvailable: 100 kB\n");
  add("sys/fs/cgroup/outer/cpu.max", "150000 100000\n");
  add("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
  add("sys/fs/cgroup/outer/memory.max", "50000\n");
  add("sys/fs/cgroup/outer/memory.current", "45000\n");
  add("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 15000\nactive_file 9\n");
  add("sys/fs/cgroup/outer/inner/memory.max", "40000\n");
  add("sys/fs/cgroup/outer/inner/memory.current", "1000\n");
  const Machine machine = read();
  EXPECT_EQ(machine.cgroup.cpus, 1.5);
  // The outer group has less room: 50000 - (45000 - 15000).
  EXPECT_EQ(machine.cgroup.memory_bytes, 50000u);
  EXPECT_EQ(machine.cgroup.memory_left_bytes(), 20000u);
  EXPECT_EQ(machine.usable_memory_bytes(), 20000u);
}

TEST_F(MachineTest, Version1AndPathsOfTheHostAreUnderstood) {
  add("proc/self/cgroup", "7:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n");
  add("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  add("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  add("sys/fs/cgroup/memory/memory.limit_in_bytes", "9000\n");
  add("sys/fs/cgroup/memory/memory.usage_in_bytes", "10000\n");
  const CgroupLimits limits = read_cgroup_limits(root());
  EXPECT_EQ(limits.cpus, 0.5);
  EXPECT_EQ(limits.memory_left_bytes(), 0u);  // over its limit
}

TEST_F(MachineTest, NoLimitIsWrittenInTwoWays) {
  add("proc/self/cgroup", "7:memory:/\n4:cpu:/\n");
  add("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  add("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  add("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  add("sys/fs/cgroup/memory.max", "max\n");
  const CgroupLimits limits = read_cgroup_limits(root());
  EXPECT_FALSE(limits.cpus.has_value());
  EXPECT_FALSE(limits.memory_left_bytes().has_value());
}

TEST(SystemFiles, SizesAndListsAreRead) {
  EXPECT_EQ(parse_system_size("4096\n"), 4096u);
  EXPECT_EQ(parse_system_size("48K"), 48u << 10);
  EXPECT_EQ(parse_system_size("12 kB"), 12u << 10);
  EXPECT_FALSE(parse_system_size("max").has_value());
  EXPECT_FALSE(parse_system_size("").has_value());
  EXPECT_FALSE(parse_system_size("18446744073709551615K").has_value());
  EXPECT_THAT(parse_cpu_list("0-2,7\n"), ElementsAre(0, 1, 2, 7));
  EXPECT_THAT(parse_cpu_list("3-1,x"), testing::IsEmpty());
  EXPECT_LE(parse_cpu_list("0-99999999999").size(), 1u << 16);
  EXPECT_EQ(find_system_value("a: 1\nab: 2", "ab:"), "2");
  EXPECT_EQ(find_system_value("a: 1", "b:"), "");
}

}  // namespace
}  // namespace nibble
