#ifndef NIBBLE_REPORT_NUMBERS_H_
#define NIBBLE_REPORT_NUMBERS_H_

// Numbers as the report writes them: three significant digits, decimal units. What was not measured
// (kNotMeasured) is "–".

#include <string>

#include "nibble/report/report_data.h"

namespace nibble::report {

std::string format_number(double value);                        // 20.1, 1,610, 0.0512, 5.01e-6
std::string format_count(double value);                         // 134,515,008: all digits
std::string format_bytes(double bytes);                         // 88.1 MB
std::string format_percent(double share);                       // 0.941 -> "94.1 %"
std::string format_confidence(double share);                    // 0.95 -> "95 %"
std::string format_signed(double value);                        // +0.012, −0.012
std::string format_tick(double value);                          // of an axis: 0.05, 1e-5, 1,500
std::string format_p(double p);                                 // "p = 0.4", "p < 0.001"
std::string format_with_margin(const Measured& m);              // 20.1 ± 0.3: the longer arm of the interval
std::string format_percent_with_margin(const Measured& share);  // 94.1 ± 0.2 %
std::string format_bytes_with_margin(const Measured& bytes);    // the margin only where it shows

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_NUMBERS_H_
