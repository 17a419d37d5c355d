#include "nibble/kernels/probe.h"

#include <gtest/gtest.h>

#include "nibble/kernels/probe_targets.h"

namespace nibble::kernels {
namespace {

TEST(Probe, MultipliesAsOftenAsItSays) {
  for (const CpuTarget target : supported_cpu_targets()) {
    const ProbeLoops* const loops = probe_loops(target);
    if (loops == nullptr) {
      EXPECT_EQ(target, CpuTarget::kScalar);
      EXPECT_EQ(multiply_add_int8(5, target), 0);
      EXPECT_EQ(multiply_add_f32(5, target), 2.0 * 5 * kProbeSums);
      continue;
    }
    // Each lane of a sum gains four products of one by one in each round.
    EXPECT_EQ(loops->multiply_add_int8(5), static_cast<int32_t>(5 * 4 * kProbeSums))
        << cpu_target_name(target);
    // x = x / 2 + 1 / 2 from 0: 1 - 2^-rounds.
    EXPECT_EQ(loops->multiply_add_f32(5), 0.96875f * kProbeSums) << cpu_target_name(target);
    const auto lanes = static_cast<double>(loops->float_lanes);
    EXPECT_EQ(multiply_add_f32(5, target), 2.0 * 5 * kProbeSums * lanes);
    EXPECT_EQ(multiply_add_int8(5, target), 2.0 * 5 * kProbeSums * 4 * lanes);
  }
}

}  // namespace
}  // namespace nibble::kernels
