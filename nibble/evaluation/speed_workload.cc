#include "nibble/evaluation/speed_workload.h"

#include <algorithm>

namespace nibble {

std::string workload_name(const Workload& workload) {
  std::string name =
      fmt::format("{}{}", workload.kind == Workload::Kind::kPrefill ? "pp" : "tg", workload.tokens);
  if (workload.batch > 1) name += fmt::format(" b{}", workload.batch);
  if (workload.depth > 0) name += fmt::format(" @ d{}", workload.depth);
  return name;
}

std::vector<Workload> all_workloads(const WorkloadLists& lists) {
  std::vector<Workload> all;
  const auto add = [&all](const Workload& workload) {
    if (workload.tokens > 0 && std::find(all.begin(), all.end(), workload) == all.end()) {
      all.push_back(workload);
    }
  };
  for (const size_t depth : lists.depths) {
    for (const size_t tokens : lists.prompts) add({Workload::Kind::kPrefill, tokens, 1, depth});
    for (const size_t tokens : lists.generated) {
      for (const size_t batch : lists.batches) add({Workload::Kind::kDecode, tokens, batch, depth});
    }
  }
  return all;
}

Status check_context(const std::vector<Workload>& workloads, size_t context) {
  for (const Workload& workload : workloads) {
    const size_t length = workload.depth + workload.tokens;
    if (context == 0 || length <= context) continue;
    return fail(ErrorCode::kInvalidArgument, "{} makes a sequence of {} tokens, but the context is {}",
                workload_name(workload), length, context)
        .with_fix("Use smaller values of -p, -n and -d, or allow more with --ctx-size.");
  }
  return {};
}

}  // namespace nibble
