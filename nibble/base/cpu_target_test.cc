#include "nibble/base/cpu_target.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string_view>

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(CpuTarget, PlainLoopsComeFirstAndNamesDiffer) {
  const auto targets = supported_cpu_targets();
  ASSERT_FALSE(targets.empty());
  EXPECT_EQ(targets.front(), CpuTarget::kScalar);
  EXPECT_TRUE(std::ranges::is_sorted(targets));
  std::set<std::string_view> names;
  for (const CpuTarget target : targets) names.insert(cpu_target_name(target));
  EXPECT_EQ(names.size(), targets.size());
  EXPECT_FALSE(names.contains(""));
}

TEST(CpuTarget, IsTheOneAskedForOrTheBest) {
  const char* const request = std::getenv("NIBBLE_CPU");
  if (request == nullptr) {
    EXPECT_EQ(cpu_target(), supported_cpu_targets().back());
  } else {
    EXPECT_TRUE(check_cpu_request());
    EXPECT_EQ(cpu_target_name(cpu_target()), request);
  }
}

#if defined(__aarch64__)
TEST(CpuTarget, ArmHasNeon) { EXPECT_GE(cpu_target(), CpuTarget::kNeon); }
#endif

}  // namespace
}  // namespace nibble
