#include "nibble/report/numbers.h"

#include <gtest/gtest.h>

namespace nibble::report {
namespace {

TEST(Numbers, ThreeSignificantDigits) {
  EXPECT_EQ(format_number(20.123), "20.1");
  EXPECT_EQ(format_number(4), "4.00");
  EXPECT_EQ(format_number(0.0512345), "0.0512");
  EXPECT_EQ(format_number(1608), "1,610");
  EXPECT_EQ(format_number(1234567), "1,230,000");
  EXPECT_EQ(format_number(999.6), "1,000");
  EXPECT_EQ(format_number(0.9996), "1.00");
  EXPECT_EQ(format_number(5.0123e-6), "5.01e-6");
  EXPECT_EQ(format_number(-0.05), "-0.0500");
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(kNotMeasured), "–");
}

TEST(Numbers, BytesAreDecimal) {
  EXPECT_EQ(format_bytes(88.1e6), "88.1 MB");
  EXPECT_EQ(format_bytes(999.9e6), "1.00 GB");
  EXPECT_EQ(format_bytes(512), "512 bytes");
  EXPECT_EQ(format_bytes(0), "0 bytes");
  EXPECT_EQ(format_bytes(kNotMeasured), "–");
}

TEST(Numbers, PercentNeverRoundsUpToAll) {
  EXPECT_EQ(format_percent(0.941), "94.1 %");
  EXPECT_EQ(format_percent(0.86), "86.0 %");
  EXPECT_EQ(format_confidence(0.95), "95 %");
  EXPECT_EQ(format_percent(1), "100 %");
  EXPECT_EQ(format_percent(0.99996), "99.996 %");
  EXPECT_EQ(format_percent(0.9999999), "99.999 %");
  EXPECT_EQ(format_percent(0), "0 %");
}

TEST(Numbers, TheMarginIsTheLongerArm) {
  EXPECT_EQ(format_with_margin({20.12, 19.8, 20.3}), "20.1 ± 0.3");
  EXPECT_EQ(format_with_margin({0.0512, 0.0491, 0.0533}), "0.0512 ± 0.0021");
  EXPECT_EQ(format_with_margin({1608, 1590, 1620}), "1,610 ± 20");
  EXPECT_EQ(format_with_margin({5e-6, 4e-6, 6e-6}), "5.00e-6 ± 1.0e-6");
}

TEST(Numbers, AMarginThatIsKnownDoesNotVanish) {
  EXPECT_EQ(format_with_margin({17.4, 17.3997, 17.4003}), "17.4 ± 0.0003");
}

TEST(Numbers, NoMarginWithoutAnInterval) {
  EXPECT_EQ(format_with_margin({20.12}), "20.1");
  EXPECT_EQ(format_with_margin({0, 0, 0}), "0");
  EXPECT_EQ(format_with_margin({}), "–");
  EXPECT_EQ(format_percent_with_margin({0.917, 0.915, 0.919}), "91.7 ± 0.2 %");
  EXPECT_EQ(format_percent_with_margin({1, 1, 1}), "100 %");
  EXPECT_EQ(format_bytes_with_margin({170e6, 169.9e6, 170.1e6}), "170 MB");
  EXPECT_EQ(format_bytes_with_margin({1.7e9, 1.6e9, 1.8e9}), "1.70 ± 0.10 GB");
}

TEST(Numbers, SignsAndChances) {
  EXPECT_EQ(format_signed(-0.012), "−0.0120");
  EXPECT_EQ(format_signed(0.5), "+0.500");
  EXPECT_EQ(format_p(1e-9), "p < 0.001");
  EXPECT_EQ(format_p(0.008), "p = 0.008");
  EXPECT_EQ(format_p(0.4), "p = 0.40");
  EXPECT_EQ(format_tick(1e-5), "1e-5");
  EXPECT_EQ(format_tick(1500), "1,500");
  EXPECT_EQ(format_tick(0.05), "0.05");
}

}  // namespace
}  // namespace nibble::report
