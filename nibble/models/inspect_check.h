#ifndef NIBBLE_MODELS_INSPECT_CHECK_H_
#define NIBBLE_MODELS_INSPECT_CHECK_H_

// `nibble inspect --check`: reads every weight, and names what is wrong or odd in it.

#include <cstddef>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/checkpoint/model_files.h"

namespace nibble {

enum class Severity {
  kFault,  // no writer means this: the model is damaged, or was made wrongly
  kNote,   // possible, and seldom meant
};

struct CheckFinding {
  std::string kind;  // "nan", "inf", "zero_group", "zero_point", "absmax", "duplicate", "structure", "codes"
  Severity severity = Severity::kFault;
  std::string name;       // of the tensor or module; empty: of the whole model
  size_t count = 1;       // elements, groups or tensors
  std::string what = {};  // "2 of 4096 values are NaN, the first at [0, 7]"
};

struct ModelCheck {
  size_t tensors = 0;  // that were read
  size_t bytes = 0;
  size_t modules = 0;  // that were decoded
  std::vector<CheckFinding> findings;

  size_t num_faults() const;
};

// An error only where there is nothing to check: files that cannot be opened, headers that contradict
// themselves. Missing, misshapen and unused tensors are findings.
Expected<ModelCheck> check_model(const ModelFiles& files);

Json to_json(const ModelCheck& check);
std::string to_text(const ModelCheck& check);

}  // namespace nibble

#endif  // NIBBLE_MODELS_INSPECT_CHECK_H_
