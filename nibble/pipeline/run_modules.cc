#include <chrono>

#include "nibble/pipeline/log_row.h"
#include "nibble/pipeline/run.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantizers/round_to_nearest.h"

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

void describe_module(const ModuleJob& job, QuantizedModule& row) {
  row.module = job.module;
  row.out_features = job.out_features;
  row.in_features = job.in_features;
  row.bits = job.settings.bits;
  row.group_size = job.group_size();
}

class ModuleRounder {
 public:
  explicit ModuleRounder(Run& run) : run_(run) {}

  Expected<Tensor> tensor(const ModuleJob& job, const std::string& suffix) {
    if (module_ != job.module) {
      tensors_.clear();
      NIBBLE_TRY(tensors_, at(job.module + ".weight", round(job)));
      module_ = job.module;
    }
    return tensors_.at(suffix);
  }

 private:
  Expected<std::map<std::string, Tensor>> round(const ModuleJob& job) {
    const auto start = std::chrono::steady_clock::now();
    const std::string name = job.module + ".weight";
    const Checkpoint& source = *run_.source.checkpoint;
    NIBBLE_TRY(Tensor weight, source.tensor(name));
    const bool is_read_as_it_is =
        weight.dtype == DType::kF16 || weight.dtype == DType::kBF16 || weight.dtype == DType::kF32;
    if (!is_read_as_it_is) {
      NIBBLE_TRY(weight, convert_tensor(weight, DType::kF32));
    }
    NIBBLE_TRY(SolvedWeight solved, round_to_nearest(weight, job.settings, run_.pool, std::move(codes_)));
    source.drop(name);
    NIBBLE_TRY(auto encoded, encode_affine(solved.weight, job.layout));
    codes_ = std::move(solved.weight.codes);
    QuantizedModule row;
    row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    describe_module(job, row);
    log_module(row);
    run_.result.modules.push_back(std::move(row));
    return encoded;
  }

  Run& run_;
  std::string module_;  // whose tensors these are
  std::map<std::string, Tensor> tensors_;
  std::vector<uint8_t> codes_;  // memory for the next ones
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
  describe_module(job, row);
  entry.row = to_json(row);
  NIBBLE_RETURN_IF_ERROR(run.folder.put(job.module, entry));
  log_module(row);
  if (run.progress) run.progress->advance(job.out_features * job.in_features);
  return {};
}

Expected<std::map<std::string, TensorSource>> rounded_tensors(Run& run) {
  std::map<std::string, TensorSource> tensors;
  const auto rounder = std::make_shared<ModuleRounder>(run);
  for (const auto& [module, job] : run.jobs.modules) {
    NIBBLE_TRY(const auto infos, at(module, encoded_tensors(job.layout, job.settings.bits, job.out_features,
                                                            job.in_features, job.settings.group_size)));
    for (const auto& [suffix, info] : infos) {
      const auto load = [rounder, &job = job, suffix = suffix] { return rounder->tensor(job, suffix); };
      tensors[module + "." + suffix] = {module + "." + suffix, info, load, {}};
    }
  }
  return tensors;
}

}  // namespace nibble
