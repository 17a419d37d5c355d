#ifndef NIBBLE_EVALUATION_SPEED_WORKLOAD_H_
#define NIBBLE_EVALUATION_SPEED_WORKLOAD_H_

// What `nibble bench` times, in the words of llama-bench: pp512 reads a prompt of 512 tokens, tg128 decodes
// 128 tokens one after the other.

#include <cstddef>
#include <string>
#include <vector>

#include "nibble/base/error.h"

namespace nibble {

struct Workload {
  enum class Kind { kPrefill, kDecode };

  Kind kind = Kind::kPrefill;
  size_t tokens = 0;  // of each sequence
  size_t batch = 1;   // sequences that are decoded together
  size_t depth = 0;   // tokens that each sequence's cache holds before; filled beforehand, not timed

  bool operator==(const Workload&) const = default;
};

std::string workload_name(const Workload& workload);  // "pp512", "tg128 b4", "tg128 b4 @ d4096"

struct WorkloadLists {
  std::vector<size_t> prompts = {512};    // 0: no prefill
  std::vector<size_t> generated = {128};  // 0: no decode
  std::vector<size_t> batches = {1};      // of decode
  std::vector<size_t> depths = {0};
};

// The product of the lists, prefill first; in their order, each once.
std::vector<Workload> all_workloads(const WorkloadLists& lists);

// kInvalidArgument for a workload that is longer than `context` tokens (0: no limit).
Status check_context(const std::vector<Workload>& workloads, size_t context);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_SPEED_WORKLOAD_H_
