#include "nibble/pipeline/convert_proof.h"

#include <atomic>
#include <cstring>

#include "nibble/base/cancel.h"
#include "nibble/base/progress.h"
#include "nibble/quantization/formats/formats.h"

namespace nibble {
namespace {

Failure differs(const std::string& where, std::string_view what) {
  return fail(ErrorCode::kDataLoss, "the written {} differs from what was read", what)
      .at(where)
      .with_fix("The disk may be damaged. If it happens again, this is a bug in Nibble: please report it.");
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.info() == b.info() && a.bytes.size() == b.bytes.size() &&
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

// Codes, order and scales; zero points where both formats have them.
std::string_view first_difference(const QuantizedWeight& a, const QuantizedWeight& b) {
  if (a.out_features != b.out_features || a.in_features != b.in_features || a.bits != b.bits ||
      a.num_groups != b.num_groups) {
    return "shape";
  }
  if (a.codes != b.codes) return "code";
  for (size_t i = 0; i < a.in_features; ++i) {
    if (a.group_of(i) != b.group_of(i)) return "order of inputs";
  }
  if (a.scales != b.scales) return "scale";
  if (a.formula == b.formula && a.zeros != b.zeros) return "zero point";
  return {};
}

Status prove_module(const ModelSource& source, const Checkpoint& written, const QuantizationConfig& config,
                    const std::string& name, const ModulePlan& module, ThreadPool& pool) {
  const LinearShape shape = {module.facts.out_features, module.facts.in_features};
  NIBBLE_TRY(const DecodedModule before,
             decode_module(*source.checkpoint, name, *source.quantization, shape));
  if (module.stored_as == StoredAs::kFloat) {
    NIBBLE_TRY(const Tensor expected, dequantize(before.weight, std::nullopt));
    NIBBLE_TRY(const Tensor stored, written.tensor(name + ".weight"));
    return same_bytes(expected, stored) ? Status() : differs(name, "weight");
  }
  NIBBLE_TRY(const DecodedModule after, decode_module(written, name, config, shape));
  for (const std::string& tensor : before.tensors) source.checkpoint->drop(tensor);
  for (const std::string& tensor : after.tensors) written.drop(tensor);
  if (module.stored_as == StoredAs::kRequantized) return {};
  if (const std::string_view what = first_difference(before.weight, after.weight); !what.empty()) {
    return differs(name, what);
  }
  if (module.stored_as == StoredAs::kExact && !same_weights(before.weight, after.weight, pool)) {
    return differs(name, "weight");
  }
  return {};
}

}  // namespace

bool same_weights(const QuantizedWeight& a, const QuantizedWeight& b, ThreadPool& pool) {
  constexpr size_t kRowsAtOnce = 16;
  if (a.out_features != b.out_features || a.in_features != b.in_features) return false;
  std::atomic<bool> same = true;
  pool.parallel_for(a.out_features, kRowsAtOnce, [&](size_t begin, size_t end, size_t) {
    std::vector<float> of_a((end - begin) * a.in_features);
    std::vector<float> of_b(of_a.size());
    dequantize_rows(a, begin, end, of_a.data());
    dequantize_rows(b, begin, end, of_b.data());
    if (std::memcmp(of_a.data(), of_b.data(), of_a.size() * sizeof(float)) != 0) same = false;
  });
  return same;
}

Expected<Proof> prove_conversion(const ModelSource& source, const Checkpoint& written,
                                 const ConversionPlan& plan, ThreadPool& pool, bool show_progress) {
  // As a reader will know it: from the file's own words.
  NIBBLE_TRY(const QuantizationConfig config, quantization_config_from_json(to_json(plan.config)));
  Proof proof;
  std::optional<Progress> progress;
  if (show_progress) progress.emplace("comparing with the source", plan.modules.size(), "modules");
  std::set<std::string> of_modules;
  for (const auto& [name, module] : plan.modules) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    NIBBLE_RETURN_IF_ERROR(prove_module(source, written, config, name, module, pool));
    for (std::string& tensor : tensors_of_module(*source.checkpoint, name)) {
      of_modules.insert(std::move(tensor));
    }
    proof.modules += module.stored_as == StoredAs::kExact ? 1 : 0;
    if (progress) progress->advance();
  }
  for (const auto& [name, info] : source.checkpoint->tensors()) {
    if (of_modules.contains(name)) continue;
    NIBBLE_TRY(const Tensor before, source.checkpoint->tensor(name));
    NIBBLE_TRY(const Tensor after, written.tensor(name));
    if (!same_bytes(before, after)) return differs(name, "tensor");
    source.checkpoint->drop(name);
    written.drop(name);
    ++proof.tensors;
  }
  return proof;
}

Expected<size_t> prove_tensors(std::span<const TensorSource> tensors, const std::filesystem::path& folder) {
  ModelFiles files;
  files.name = folder.string();
  files.folder = folder;
  NIBBLE_TRY(const auto written, open_checkpoint(files));
  Progress progress("comparing with the source", tensors.size(), "tensors");
  for (const TensorSource& tensor : tensors) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    NIBBLE_TRY(const Tensor expected, tensor.load());
    NIBBLE_TRY(const Tensor stored, written->tensor(tensor.name));
    if (!same_bytes(expected, stored)) return differs(tensor.name, "tensor");
    if (tensor.written) tensor.written();
    written->drop(tensor.name);
    progress.advance();
  }
  return tensors.size();
}

}  // namespace nibble
