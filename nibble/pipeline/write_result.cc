#include <algorithm>
#include <set>

#include "nibble/base/atomic_file.h"
#include "nibble/base/sha256.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/convert.h"
#include "nibble/models/transposed_checkpoint.h"
#include "nibble/pipeline/log_row.h"
#include "nibble/pipeline/run.h"
#include "nibble/quantization/bitsandbytes.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::string module_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

// Tensors of the finished modules, from the journal; they replace those of the model with the same name.
Expected<std::map<std::string, TensorSource>> journal_tensors(const Run& run) {
  // One that is missing would be written as it was, in floating point, as if that were meant.
  for (const auto& [module, job] : run.jobs.modules) NIBBLE_CHECK(run.folder.has(module));
  std::map<std::string, TensorSource> tensors;
  for (const std::string& entry : run.folder.names()) {
    NIBBLE_TRY(const auto infos, run.folder.tensors_of(entry));
    for (const auto& [name, info] : infos) {
      const auto load = [&run, entry, tensor = name]() -> Expected<Tensor> {
        NIBBLE_TRY(JournalEntry read, run.folder.get(entry));
        return std::move(read.tensors.at(tensor));
      };
      tensors[name] = {name, info, load, {}};
    }
  }
  return tensors;
}

// Readers of AWQ ask for the scales of an activation also where it has none: AutoAWQ saves ones.
void add_input_scales(const ModelSource& source, std::map<std::string, TensorSource>& tensors) {
  for (const ModuleSlot& slot : source.slots) {
    const std::string& name = slot.input_scales;
    if (name.empty() || tensors.contains(name)) continue;
    const Shape shape = {slot.shape[1]};
    const auto ones = [shape]() {
      return convert_tensor(Tensor::of(DType::kF32, shape, std::vector<float>(shape[0], 1.f)), DType::kF16);
    };
    tensors[name] = {name, {DType::kF16, shape}, ones, {}};
  }
}

// What the result consists of, by name.
Expected<std::map<std::string, TensorSource>> result_tensors(Run& run) {
  std::shared_ptr<const Checkpoint> checkpoint = run.source.checkpoint;
  std::map<std::string, TensorSource> tensors;
  if (const auto* const bnb = std::get_if<BitsAndBytesConfig>(&run.jobs.config)) {
    std::set<std::string> modules;
    for (const auto& job : run.jobs.modules) modules.insert(job.first);
    checkpoint =
        quantize_on_the_fly(checkpoint, *bnb, std::move(modules), run.pool, run.options.bnb_blocksize);
  } else if (run.options.round_to_nearest) {
    NIBBLE_TRY(tensors, rounded_tensors(run));
  } else {
    NIBBLE_TRY(tensors, journal_tensors(run));
  }
  checkpoint = transpose_linears(checkpoint, run.source.spec, run.source.prefix_missing);
  for (const auto& [name, info] : checkpoint->tensors()) {
    const bool replaced = tensors.contains(module_of(name) + ".qweight") && name.ends_with(".weight");
    if (replaced || tensors.contains(name)) continue;
    tensors[name] = {name, info, [checkpoint, tensor = name]() { return checkpoint->tensor(tensor); },
                     [checkpoint, tensor = name]() { checkpoint->drop(tensor); }};
  }
  if (std::holds_alternative<AwqConfig>(run.jobs.config)) add_input_scales(run.source, tensors);
  return tensors;
}

void count_bytes(const Run& run, const std::map<std::string, TensorSource>& tensors, WrittenBytes& bytes) {
  std::map<std::string, ModuleRole> role_of;
  for (const ModuleSlot& slot : run.source.slots) role_of[slot.name] = slot.role;
  size_t quantized = 0;
  size_t weights = 0;
  for (const auto& [module, job] : run.jobs.modules) weights += job.out_features * job.in_features;
  for (const auto& [name, source] : tensors) {
    const size_t size = num_bytes(source.info).value_or(0);
    // "...q_proj.weight.absmax" belongs to q_proj as "...q_proj.qweight" does.
    std::string module = module_of(name);
    while (!module.empty() && !role_of.contains(module) && module.find('.') != std::string::npos) {
      module = module_of(module);
    }
    const auto role = role_of.find(module);
    const bool is_bias = name.ends_with(".bias");
    if (run.jobs.find(module) != nullptr && !is_bias) quantized += size;
    if (role == role_of.end() || role->second == ModuleRole::kLinear || role->second == ModuleRole::kRouter) {
      bytes.linear += size;
    } else if (role->second == ModuleRole::kEmbedding) {
      bytes.embedding += size;
    } else if (role->second == ModuleRole::kHead) {
      bytes.head += size;
    } else {
      bytes.norm += size;
    }
  }
  bytes.bits_per_weight =
      weights == 0 ? 0 : 8.0 * static_cast<double>(quantized) / static_cast<double>(weights);
}

// What an earlier model in the folder had and this one has not.
Status remove_old_descriptions(const fs::path& folder, const std::set<std::string_view>& written) {
  std::vector<std::string_view> names(kQuantizeConfigFiles.begin(), kQuantizeConfigFiles.end());
  names.emplace_back("quant_log.csv");
  for (const std::string_view name : names) {
    if (written.contains(name)) continue;
    NIBBLE_RETURN_IF_ERROR(remove_file(folder / name));
  }
  return {};
}

Expected<std::vector<QuantizedModule>> logged_modules(const Run& run) {
  std::vector<QuantizedModule> rows;
  for (const std::string& entry : run.folder.names()) {
    NIBBLE_TRY(const JournalEntry read, run.folder.get(entry));
    if (read.row.is_object()) rows.push_back(module_from_json(read.row));
  }
  return rows;
}

// In the order of the forward pass.
void sort_rows(const ModelSource& source, std::vector<QuantizedModule>& rows) {
  std::map<std::string, size_t> place;
  for (const ModuleSlot& slot : source.slots) place.emplace(slot.name, place.size());
  std::stable_sort(rows.begin(), rows.end(), [&](const QuantizedModule& a, const QuantizedModule& b) {
    return place[a.module] < place[b.module];
  });
}

}  // namespace

Status write_result(Run& run, const Json& description) {
  const fs::path& folder = run.folder.path();
  NIBBLE_TRY(auto tensors, result_tensors(run));
  count_bytes(run, tensors, run.result.bytes);
  if (!quantizes_while_writing(run.options)) {
    NIBBLE_TRY(run.result.modules, logged_modules(run));
  }
  if (run.options.show_progress) {
    size_t bytes = 0;
    for (const auto& [name, source] : tensors) bytes += num_bytes(source.info).value_or(0);
    run.progress.emplace(quantizes_while_writing(run.options) ? "quantizing" : "writing", bytes, "");
  }

  Json hashes = Json::object();
  std::vector<TensorSource> sources;
  for (auto& [name, source] : tensors) {
    hashes[name] = nullptr;  // keeps the order of the names
    auto load = [&hashes, &run, tensor = name, read = std::move(source.load)]() -> Expected<Tensor> {
      NIBBLE_TRY(Tensor value, read());
      hashes[tensor] = sha256(value.bytes);
      if (run.progress) run.progress->advance(value.bytes.size());
      return value;
    };
    sources.push_back({name, source.info, std::move(load), std::move(source.written)});
  }
  CheckpointWriterOptions options;
  options.max_shard_size = run.options.max_shard_size;
  options.metadata["quantized_by"] = "nibble " NIBBLE_VERSION;
  NIBBLE_RETURN_IF_ERROR(write_checkpoint(folder, sources, options));
  run.progress.reset();
  sort_rows(run.source, run.result.modules);
  NIBBLE_RETURN_IF_ERROR(check_unchanged(run.source, description));
  NIBBLE_RETURN_IF_ERROR(copy_model_texts(run.source.files, folder));

  std::set<std::string_view> written;
  Json config = run.source.config.json;
  config["quantization_config"] = to_json(run.jobs.config);
  if (!std::holds_alternative<BitsAndBytesConfig>(run.jobs.config)) {
    NIBBLE_RETURN_IF_ERROR(write_file(folder / "quant_log.csv", to_csv(run.result.modules)));
    written.insert("quant_log.csv");
  }
  if (std::holds_alternative<GPTQConfig>(run.jobs.config)) {
    // GPTQModel and older readers look here; Transformers into config.json.
    NIBBLE_RETURN_IF_ERROR(
        write_file(folder / "quantize_config.json", dump_json(config["quantization_config"]) + "\n"));
    written.insert("quantize_config.json");
  }
  NIBBLE_RETURN_IF_ERROR(remove_old_descriptions(folder, written));
  const Json manifest = {{"run", description}, {"tensors", hashes}};
  NIBBLE_RETURN_IF_ERROR(write_file(folder / kManifestFile, dump_json(manifest) + "\n"));
  // Last: a folder without it is no model to anybody.
  return write_file(folder / "config.json", dump_json(config) + "\n");
}

}  // namespace nibble
