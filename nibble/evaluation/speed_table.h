#ifndef NIBBLE_EVALUATION_SPEED_TABLE_H_
#define NIBBLE_EVALUATION_SPEED_TABLE_H_

// What `nibble bench` prints.

#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/evaluation/speed_measurement.h"

namespace nibble {

std::string bench_markdown(const std::vector<ModelBench>& models);  // the table, and what stands below it
std::string bench_csv(const std::vector<ModelBench>& models);       // a line for each row, one for the names
Json bench_json(const std::vector<ModelBench>& models);             // docs/cli.md

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_SPEED_TABLE_H_
