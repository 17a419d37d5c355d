#include <chrono>

#include "nibble/base/cancel.h"
#include "nibble/pipeline/log_row.h"
#include "nibble/pipeline/run.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantizers/gptq_compat.h"

namespace nibble {
namespace {

// The tensors of one module as decode_module() wants to see them.
class TensorsInMemory final : public Checkpoint {
 public:
  explicit TensorsInMemory(std::map<std::string, Tensor> tensors) : values_(std::move(tensors)) {
    for (const auto& [name, tensor] : values_) tensors_.emplace(name, tensor.info());
  }
  Expected<Tensor> tensor(std::string_view name) const override {
    const auto found = values_.find(std::string(name));
    if (found == values_.end()) return fail(ErrorCode::kNotFound, "no tensor of that name").at(name);
    return found->second;
  }
  std::string file_of(std::string_view) const override { return "the journal"; }
  size_t file_bytes() const override { return 0; }

 private:
  std::map<std::string, Tensor> values_;
};

}  // namespace

bool is_known(const Run& run, std::span<const std::string> modules) {
  for (const std::string& module : modules) {
    if (run.jobs.find(module) != nullptr && !run.folder.has(module)) return false;
  }
  return true;
}

Expected<QuantizedWeight> finished_weight(const Run& run, const ModuleJob& job) {
  NIBBLE_TRY(JournalEntry entry, run.folder.get(job.module));
  const TensorsInMemory tensors(std::move(entry.tensors));
  NIBBLE_TRY(DecodedModule decoded, decode_module(tensors, job.module, run.jobs.config,
                                                  LinearShape{job.out_features, job.in_features}));
  return std::move(decoded.weight);
}

Status finish_module(Run& run, const ModuleJob& job, const QuantizedWeight& weight, QuantizedModule row) {
  JournalEntry entry;
  NIBBLE_TRY(auto encoded, at(job.module, encode_affine(weight, job.layout)));
  for (auto& [suffix, tensor] : encoded) entry.tensors[job.module + "." + suffix] = std::move(tensor);
  row.module = job.module;
  row.out_features = job.out_features;
  row.in_features = job.in_features;
  row.bits = job.settings.bits;
  row.group_size = job.group_size();
  entry.row = to_json(row);
  NIBBLE_RETURN_IF_ERROR(run.folder.put(job.module, entry));
  log_module(row);
  if (run.progress) run.progress->advance(job.out_features * job.in_features);
  return {};
}

Status round_modules(Run& run) {
  for (const auto& [module, job] : run.jobs.modules) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    if (run.folder.has(module)) continue;
    const auto start = std::chrono::steady_clock::now();
    NIBBLE_TRY(const std::vector<float> weight, run.source.weight(module));
    NIBBLE_TRY(const SolvedWeight solved,
               at(module, round_to_nearest({weight.data(), job.out_features, job.in_features}, job.settings,
                                           run.pool)));
    QuantizedModule row;
    row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    NIBBLE_RETURN_IF_ERROR(finish_module(run, job, solved.weight, std::move(row)));
  }
  return {};
}

}  // namespace nibble
