#include "nibble/report/numbers.h"

#include <algorithm>

#include <fmt/format.h>

namespace nibble::report {
namespace {

constexpr const char* kMissing = "–";
constexpr int kDigits = 3;

// Decimals that show kDigits significant ones; negative where the last of them stands before the point.
int decimals_of(double value) {
  // Rounded first: 0.9996 is 1.00, which needs one decimal less.
  const std::string rounded = fmt::format("{:.{}e}", std::abs(value), kDigits - 1);
  return kDigits - 1 - std::stoi(rounded.substr(rounded.find('e') + 1));
}

std::string with_thousands(std::string digits) {
  const size_t point = std::min(digits.find('.'), digits.size());
  const size_t first = digits.starts_with('-') ? 1 : 0;
  for (size_t at = point; at > first + 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string fixed(double value, int decimals) {
  if (decimals < 0) {
    const double unit = std::pow(10.0, -decimals);
    value = std::round(value / unit) * unit;
    decimals = 0;
  }
  std::string text = with_thousands(fmt::format("{:.{}f}", value, decimals));
  if (text.find_first_not_of("-0.,") == text.npos && text.starts_with('-')) text.erase(0, 1);  // no "-0.00"
  return text;
}

// 5.01e-06 as 5.01e-6.
std::string scientific(double value, int digits) {
  std::string text = fmt::format("{:.{}e}", value, digits - 1);
  const size_t e = text.find('e');
  return fmt::format("{}e{}", text.substr(0, e), std::stoi(text.substr(e + 1)));
}

bool needs_exponent(double value) {
  const double magnitude = std::abs(value);
  return value != 0 && (magnitude < 1e-4 || magnitude >= 1e12);
}

double margin_of(const Measured& m) {
  const double margin = std::max(m.high - m.value, m.value - m.low);
  return is_known(margin) && margin > 0 ? margin : kNotMeasured;
}

struct Unit {
  double size;
  const char* name;
};

Unit byte_unit(double bytes) {
  // The border is where three digits would round to a thousand.
  for (const Unit unit : {Unit{1e12, "TB"}, Unit{1e9, "GB"}, Unit{1e6, "MB"}, Unit{1e3, "kB"}}) {
    if (std::abs(bytes) >= 0.9995 * unit.size) return unit;
  }
  return {1, "bytes"};
}

}  // namespace

std::string format_number(double value) {
  if (!is_known(value)) return kMissing;
  if (value == 0) return "0";
  if (needs_exponent(value)) return scientific(value, kDigits);
  return fixed(value, decimals_of(value));
}

std::string format_count(double value) {
  return is_known(value) ? with_thousands(fmt::format("{:.0f}", value)) : kMissing;
}

std::string format_bytes(double bytes) {
  if (!is_known(bytes)) return kMissing;
  const Unit unit = byte_unit(bytes);
  if (unit.size == 1) return fmt::format("{:.0f} bytes", bytes);
  return fmt::format("{} {}", format_number(bytes / unit.size), unit.name);
}

std::string format_percent(double share) {
  if (!is_known(share)) return kMissing;
  const double percent = share * 100;
  // 99.98 % must not read as 100 %: between 99 and 100 the distance to 100 is what counts.
  if (percent > 99.9 && percent < 100) return fmt::format("{} %", fixed(std::min(percent, 99.999), 3));
  if (percent == 0 || percent == 100) return fmt::format("{:.0f} %", percent);
  return fmt::format("{} %", format_number(percent));
}

std::string format_confidence(double share) { return fmt::format("{:.4g} %", share * 100); }

std::string format_signed(double value) {
  if (!is_known(value)) return kMissing;
  if (value == 0) return "0";
  return fmt::format("{}{}", value < 0 ? "−" : "+", format_number(std::abs(value)));
}

std::string format_tick(double value) {
  if (needs_exponent(value)) return scientific(value, 1);
  return with_thousands(fmt::format("{:.6g}", value));
}

std::string format_p(double p) {
  if (!is_known(p)) return kMissing;
  if (p < 0.001) return "p < 0.001";
  return fmt::format("p = {}", fixed(p, p < 0.1 ? 3 : 2));
}

std::string format_with_margin(const Measured& m) {
  if (!is_known(m.value)) return kMissing;
  const double margin = margin_of(m);
  if (!is_known(margin)) return format_number(m.value);
  if (needs_exponent(m.value) || m.value == 0) {
    return fmt::format("{} ± {}", format_number(m.value),
                       needs_exponent(margin) ? scientific(margin, 2) : format_number(margin));
  }
  // As many decimals as the value; more only if the margin would vanish.
  const int decimals = decimals_of(m.value);
  const double unit = std::pow(10.0, -decimals);
  const std::string right =
      margin >= unit / 2
          ? fixed(margin, decimals)
          : (needs_exponent(margin) ? scientific(margin, 1)
                                    : fixed(margin, static_cast<int>(-std::floor(std::log10(margin)))));
  return fmt::format("{} ± {}", fixed(m.value, decimals), right);
}

std::string format_percent_with_margin(const Measured& share) {
  const double margin = margin_of(share);
  std::string value = format_percent(share.value);
  if (!is_known(share.value) || !is_known(margin)) return value;
  value.resize(value.size() - 2);  // " %"
  return fmt::format("{} ± {} %", value, fixed(margin * 100, margin >= 0.0005 ? 1 : 2));
}

std::string format_bytes_with_margin(const Measured& bytes) {
  const double margin = margin_of(bytes);
  const Unit unit = byte_unit(bytes.value);
  if (!is_known(bytes.value) || unit.size == 1 || !(margin >= 0.01 * bytes.value)) {
    return format_bytes(bytes.value);
  }
  return fmt::format(
      "{} {}", format_with_margin({bytes.value / unit.size, bytes.low / unit.size, bytes.high / unit.size}),
      unit.name);
}

}  // namespace nibble::report
