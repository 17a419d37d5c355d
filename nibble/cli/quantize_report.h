#ifndef NIBBLE_CLI_QUANTIZE_REPORT_H_
#define NIBBLE_CLI_QUANTIZE_REPORT_H_

// What `nibble quantize` says in the end.

#include <string>

#include "nibble/base/json.h"
#include "nibble/pipeline/quantize.h"

namespace nibble::cli {

Json to_json(const QuantizeResult& result);
Json check_json(const std::optional<SanityCheck>& check);  // null where nothing was checked

// Bytes by class, the worst and the slowest modules, the sanity check: on stderr.
void report_quantization(const QuantizeResult& result, const std::string& output, const std::string& method);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_QUANTIZE_REPORT_H_
