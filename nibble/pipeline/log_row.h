#ifndef NIBBLE_PIPELINE_LOG_ROW_H_
#define NIBBLE_PIPELINE_LOG_ROW_H_

// A QuantizedModule as JSON, as a line for -v, and as a row of quant_log.csv, whose first columns are
// GPTQModel's.

#include <span>
#include <string>

#include "nibble/base/json.h"
#include "nibble/pipeline/quantize.h"

namespace nibble {

Json to_json(const QuantizedModule& row);
QuantizedModule module_from_json(const Json& json);  // what to_json() wrote

void log_module(const QuantizedModule& row);  // with -v

std::string to_csv(std::span<const QuantizedModule> rows);

}  // namespace nibble

#endif  // NIBBLE_PIPELINE_LOG_ROW_H_
