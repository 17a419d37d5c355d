#include "nibble/cli/doctor_report.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fixtures.h"

namespace nibble::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

DoctorReport quiet_machine() {
  DoctorReport report;
  report.machine.cpus_online = {0, 1, 2, 3};
  report.machine.cpus_allowed = {0, 1, 2, 3};
  report.machine.huge_pages.transparent = "madvise";
  report.machine.numa_nodes = {{0, {0, 1, 2, 3}, 1000}};
  report.machine.governor = "performance";
  report.targets_found = {CpuTarget::kScalar, CpuTarget::kAvx2, CpuTarget::kAvx512};
  report.target_used = CpuTarget::kAvx512;
  report.threads = 4;
  return report;
}

TEST(Doctor, HasNothingToSayOfAQuietMachine) {
  EXPECT_THAT(advice_for(quiet_machine()), IsEmpty());
  EXPECT_THAT(to_text(quiet_machine()), HasSubstr("Nothing here keeps"));
}

TEST(Doctor, NamesEachThingThatSlowsDown) {
  DoctorReport report = quiet_machine();
  report.target_used = CpuTarget::kAvx2;
  report.optimized = false;
  report.machine.cgroup.cpus = 1.5;
  report.machine.cpus_allowed = {1};
  report.machine.load_average = 1.9;
  report.machine.governor = "powersave";
  report.machine.huge_pages.transparent = "never";
  report.machine.numa_nodes.push_back({1, {}, 1000});
  EXPECT_THAT(advice_for(report),
              ElementsAre(HasSubstr("not optimised"), HasSubstr("NIBBLE_CPU=avx2 is set, so that avx512"),
                          HasSubstr("grants 1.5 of 4"), HasSubstr("mask allows 1 of 4"),
                          HasSubstr("about 1.9 of 4 processors"), HasSubstr("governor is powersave"),
                          HasSubstr("echo madvise"), HasSubstr("2 NUMA nodes")));
}

TEST(Doctor, JsonHasWhatWasMeasuredOrNull) {
  DoctorReport report = quiet_machine();
  EXPECT_TRUE(to_json(report)["measured"].is_null());
  report.speed = linalg::MachineSpeed{.threads = 4, .read = {1e9, 2e9}};
  const Json json = to_json(report);
  EXPECT_EQ(json["measured"]["read_bytes_per_second"]["all_threads"], 2e9);
  EXPECT_EQ(json["instruction_sets"]["found"], Json({"scalar", "avx2", "avx512"}));
  EXPECT_TRUE(json["memory"]["cgroup_limit_bytes"].is_null());
}

TEST(Doctor, CountsTheModelsOfTheCache) {
  const test::TemporaryFolder folder;
  for (const char* name : {"models--org--a", "models--b", "datasets--c", ".locks"}) {
    std::filesystem::create_directory(folder.path() / name);
  }
  const CacheFolder cache = look_at_cache(folder.path());
  EXPECT_TRUE(cache.exists);
  EXPECT_EQ(cache.models, 2u);
  EXPECT_GT(cache.free_bytes, 0u);
  const CacheFolder missing = look_at_cache(folder.path() / "not" / "there");
  EXPECT_FALSE(missing.exists);
  EXPECT_EQ(missing.models, 0u);
  EXPECT_GT(missing.free_bytes, 0u);  // of the disk where it would be
}

}  // namespace
}  // namespace nibble::cli
