#include "nibble/report/scale.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/report/report_data.h"

namespace nibble::report {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Ge;
using testing::SizeIs;

TEST(Scale, LinearKeepsItsValuesInside) {
  const Scale scale = linear_scale({60, 170, kNotMeasured}, 50, 500);
  EXPECT_GT(scale.at(60), 50);
  EXPECT_LT(scale.at(170), 500);
  EXPECT_LT(scale.at(60), scale.at(170));
  EXPECT_THAT(scale.ticks(5), ElementsAre(60, 80, 100, 120, 140, 160));
}

TEST(Scale, OneValueOrNoneStillHaveRoomAndTicks) {
  for (const std::vector<double>& values :
       {std::vector<double>{}, {5}, {5, 5}, {0}, {kNotMeasured}, {1e12, 1e12}}) {
    const Scale linear = linear_scale(values, 0, 100);
    EXPECT_LT(linear.low, linear.high);
    EXPECT_THAT(linear.ticks(4), SizeIs(Ge(2u)));
    const Scale log = log_scale(values, 0, 100, 20);
    EXPECT_LT(log.low, log.high);
    EXPECT_TRUE(std::isfinite(log.at(values.empty() ? 0 : 5)));
  }
}

TEST(Scale, LogarithmicTicksArePowersOfTenOverManyDecades) {
  const Scale scale = log_scale({1e-5, 0.2}, 300, 20, 30);
  ASSERT_THAT(scale.ticks(5), SizeIs(5));
  EXPECT_THAT(scale.ticks(5).front(), DoubleNear(1e-5, 1e-12));
  EXPECT_GT(scale.at(1e-5), scale.at(0.2));  // upwards
}

TEST(Scale, LogarithmicTicksAreFineOverFewDecades) {
  EXPECT_THAT(log_scale({0.02, 0.3}, 0, 100, 30).ticks(5),
              ElementsAre(DoubleNear(0.02, 1e-9), DoubleNear(0.05, 1e-9), DoubleNear(0.1, 1e-9),
                          DoubleNear(0.2, 1e-9)));
  EXPECT_THAT(log_scale({0.0250, 0.0256}, 0, 100, 30).ticks(5), SizeIs(Ge(2u)));
}

TEST(Scale, ZeroHasALaneOfItsOwn) {
  const Scale scale = log_scale({0, 1e-12, 0.01, 0.1}, 300, 20, 30);
  EXPECT_EQ(scale.at(0), 285);
  EXPECT_EQ(scale.at(1e-12), 285);  // a rounding error, not three more decades
  EXPECT_LT(scale.at(0.01), 270);
  EXPECT_EQ(log_scale({0.01, 0.1}, 300, 20, 30).from, 300);
}

}  // namespace
}  // namespace nibble::report
