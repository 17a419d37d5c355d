#include "nibble/cli/doctor_features.h"

#include <gtest/gtest.h>

namespace nibble::cli {
namespace {

const std::vector<std::string> kServer = {"avx2",     "fma",         "f16c",       "avx_vnni",
                                          "avx512f",  "avx512bw",    "avx512cd",   "avx512dq",
                                          "avx512vl", "avx512_vnni", "avx512_bf16"};
constexpr CpuTarget kTargets[] = {CpuTarget::kScalar, CpuTarget::kAvx2, CpuTarget::kAvx512};

FeatureState state_of(const std::vector<CpuFeature>& features, std::string_view name) {
  for (const CpuFeature& feature : features) {
    if (feature.name == name) return feature.state;
  }
  ADD_FAILURE() << name << " is not listed";
  return FeatureState::kNotFound;
}

TEST(CpuFeatures, AreUsedPassedOverWithoutKernelOrNotFound) {
  const auto features = cpu_features(kServer, kTargets, CpuTarget::kAvx512);
  EXPECT_EQ(state_of(features, "avx2"), FeatureState::kUsed);
  EXPECT_EQ(state_of(features, "avx512-vnni"), FeatureState::kUsed);
  EXPECT_EQ(state_of(features, "avx512-bf16"), FeatureState::kNoKernel);
  EXPECT_EQ(state_of(features, "amx-int8"), FeatureState::kNotFound);
}

TEST(CpuFeatures, OfALowerRequestAreNotUsed) {
  const auto features = cpu_features(kServer, kTargets, CpuTarget::kAvx2);
  EXPECT_EQ(state_of(features, "avx2"), FeatureState::kUsed);
  EXPECT_EQ(state_of(features, "avx512"), FeatureState::kPassedOver);
  EXPECT_EQ(state_of(cpu_features(kServer, kTargets, CpuTarget::kScalar), "avx2"), FeatureState::kPassedOver);
}

TEST(CpuFeatures, OfAmxAreUsedWithThoseOfAvx512) {
  constexpr CpuTarget kAll[] = {CpuTarget::kScalar, CpuTarget::kAvx2, CpuTarget::kAvx512, CpuTarget::kAmx};
  std::vector<std::string> flags = kServer;
  flags.insert(flags.end(), {"amx_tile", "amx_int8", "amx_bf16"});
  const auto features = cpu_features(flags, kAll, CpuTarget::kAmx);
  EXPECT_EQ(state_of(features, "amx-int8"), FeatureState::kUsed);
  EXPECT_EQ(state_of(features, "avx512-vnni"), FeatureState::kUsed);
  EXPECT_EQ(state_of(features, "amx-bf16"), FeatureState::kNoKernel);
  // The system does not grant the tiles: nothing runs on them.
  EXPECT_EQ(state_of(cpu_features(flags, kTargets, CpuTarget::kAvx512), "amx-int8"), FeatureState::kNoKernel);
}

TEST(CpuFeatures, NeedAllOfTheirFlags) {
  const auto features = cpu_features({"avx2", "amx_int8"}, {kTargets, 1}, CpuTarget::kScalar);
  EXPECT_EQ(state_of(features, "avx2"), FeatureState::kNotFound);
  EXPECT_EQ(state_of(features, "amx-int8"), FeatureState::kNotFound);
}

TEST(CpuFeatures, OfTheTargetInUseAreUsed) {
  constexpr CpuTarget kLaptop[] = {CpuTarget::kScalar, CpuTarget::kAvx2, CpuTarget::kAvxVnni};
  const auto features = cpu_features({"avx2", "fma", "f16c", "avx_vnni"}, kLaptop, CpuTarget::kAvxVnni);
  EXPECT_EQ(state_of(features, "avx2"), FeatureState::kUsed);
  EXPECT_EQ(state_of(features, "avx-vnni"), FeatureState::kUsed);
}

TEST(CpuFeatures, OfArmAreListedThere) {
  constexpr CpuTarget kArm[] = {CpuTarget::kScalar, CpuTarget::kNeon, CpuTarget::kDotprod};
  const auto features = cpu_features({"asimd", "asimddp"}, kArm, CpuTarget::kDotprod);
  EXPECT_EQ(to_text(features), "used: neon dotprod; not found: i8mm");
  EXPECT_EQ(to_json(features)[2], Json({{"name", "i8mm"}, {"state", "not found"}}));
}

}  // namespace
}  // namespace nibble::cli
