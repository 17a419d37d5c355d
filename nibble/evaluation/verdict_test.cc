#include "nibble/evaluation/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

using testing::HasSubstr;
using testing::Not;

Contender contender(std::string id, double kl, size_t disk, double decode, double peak, double top1) {
  Contender c;
  c.id = id;
  c.label = std::move(id);
  c.kl = {kl, kl, kl};
  c.disk_bytes = disk;
  c.bits_per_weight = static_cast<double>(disk) / 270e6 * 16;
  c.decode = decode;
  c.peak_memory = peak;
  c.top1_agreement = top1;
  return c;
}

std::vector<Contender> usual() {
  std::vector<Contender> all = {contender("float", 0.0, 270'000'000, 60, 330e6, 1.0),
                                contender("nf4", 0.26, 113'000'000, 167, 172e6, 0.84),
                                contender("int8", 0.01, 164'000'000, 115, 231e6, 0.95),
                                contender("gptq", 0.06, 112'000'000, 165, 170e6, 0.87),
                                contender("awq", 0.05, 114'000'000, 160, 172e6, 0.88)};
  all[0].is_reference = true;
  return all;
}

std::string choose(const Limits& limits) {
  const std::vector<Contender> all = usual();
  const Verdict verdict = decide(all, {}, limits);
  return verdict.choice ? all[*verdict.choice].id : "nothing";
}

TEST(Verdict, EachPreferenceTakesItsOwn) {
  EXPECT_EQ(choose({}), "awq");  // int8 is closer, but not for three bits more
  EXPECT_EQ(choose({.prefer = Preference::kQuality}), "int8");
  EXPECT_EQ(choose({.prefer = Preference::kSpeed}), "gptq");  // nf4 is faster but too far away
  EXPECT_EQ(choose({.prefer = Preference::kSize}), "gptq");
}

TEST(Verdict, LimitsExclude) {
  EXPECT_EQ(choose({.max_memory = 200'000'000, .prefer = Preference::kQuality}), "awq");
  EXPECT_EQ(choose({.min_speed = 162}), "gptq");
  EXPECT_EQ(choose({.max_kl = 0.03}), "int8");
  EXPECT_EQ(choose({.max_kl = 0.001}), "float");
  EXPECT_EQ(choose({.min_speed = 200}), "nothing");
  const Verdict verdict = decide(usual(), {}, {.min_speed = 200});
  EXPECT_THAT(verdict.headline, HasSubstr("keeps all limits"));
  EXPECT_THAT(verdict.excluded_because[1][0], HasSubstr("decodes 167.0 tok/s, at least 200.0"));
}

TEST(Verdict, SaysWhetherTheRunnerUpIsDifferent) {
  const std::vector<Contender> all = usual();
  Pair pair;
  pair.a = 3;
  pair.b = 4;
  pair.test.difference = {0.0005, -0.001, 0.002};
  pair.test.p_value = 0.4;
  pair.finding = judge(pair.test, 0.0505, 0.05, 0.95);
  const Verdict verdict = decide(all, {pair}, {});
  EXPECT_EQ(verdict.runner_up, std::optional<size_t>(3));
  EXPECT_THAT(verdict.runner_up_note, HasSubstr("not significantly different"));
  EXPECT_THAT(verdict.runner_up_note, Not(HasSubstr("calibration text")));
  pair.test.p_value = 0.002;  // small, but so is the difference
  pair.finding = judge(pair.test, 0.0505, 0.05, 0.95);
  EXPECT_THAT(decide(all, {pair}, {}).runner_up_note,
              HasSubstr("p = 0.002; other calibration text makes up to 8 %"));
  EXPECT_THAT(verdict.would_change, testing::Contains(HasSubstr("--prefer quality would take int8")));
}

TEST(Judge, NeedsMoreThanAnotherSeedWouldMake) {
  PairedTest test;
  test.difference = {-0.001, -0.0015, -0.0005};
  test.p_value = 1e-6;
  EXPECT_EQ(judge(test, 0.099, 0.1, 0.95), Finding::kNoDifference);  // 1 %
  EXPECT_EQ(judge(test, 0.009, 0.01, 0.95), Finding::kFirstIsBetter);
  test.difference.value = 0.001;
  EXPECT_EQ(judge(test, 0.01, 0.009, 0.95), Finding::kSecondIsBetter);
  test.p_value = 0.2;
  EXPECT_EQ(judge(test, 0.01, 0.009, 0.95), Finding::kNoDifference);
  EXPECT_EQ(judge({}, 0.01, 0.01, 0.95), Finding::kIdentical);
}

TEST(Verdict, AnIdenticalCandidateIsCalledThat) {
  std::vector<Contender> all = {contender("a", 0, 100, 10, 1, 1), contender("b", 0, 100, 10, 1, 1)};
  all[0].is_reference = true;
  all[1].identical = true;
  const Verdict verdict = decide(all, {}, {});
  EXPECT_EQ(verdict.headline, "b: identical to the reference.");
}

TEST(Preference, AnUnknownOneIsRefused) {
  EXPECT_THAT(to_string(preference_from_name("cheap").error()),
              HasSubstr("balanced, quality, speed or size"));
}

}  // namespace
}  // namespace nibble
