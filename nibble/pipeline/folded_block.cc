#include "nibble/pipeline/folded_block.h"

#include <cmath>

#include "nibble/base/check.h"
#include "nibble/base/float16.h"

namespace nibble {
namespace {

constexpr size_t kFoldedRowsPerTask = 16;

}  // namespace

float rounded_to(DType dtype, float value) {
  switch (dtype) {
    case DType::kF16:
      return fp16_to_float(float_to_fp16(value));
    case DType::kBF16:
      return bf16_to_float(float_to_bf16(value));
    default:
      return value;
  }
}

Expected<MatrixView<const float>> FoldedBlock::weight(const std::string& module) {
  const std::string name = module + ".weight";
  auto found = changed_.find(name);
  if (found == changed_.end()) {
    found = unchanged_.find(name);
    if (found == unchanged_.end()) {
      NIBBLE_TRY(std::vector<float> values, source_.weight(module));
      found = unchanged_.emplace(name, std::move(values)).first;
    }
  }
  const Shape& shape = source_.slot(module).shape;
  return MatrixView<const float>(found->second.data(), shape[0], shape[1]);
}

// The values of a tensor, which counts as changed from now on. Empty: a bias that is not there.
Expected<std::vector<float>*> FoldedBlock::change(const std::string& module, std::string_view suffix) {
  const std::string name = module + std::string(suffix);
  if (const auto found = changed_.find(name); found != changed_.end()) return &found->second;
  if (auto node = unchanged_.extract(name)) return &changed_.insert(std::move(node)).position->second;
  NIBBLE_TRY(std::vector<float> values, suffix == ".bias" ? source_.bias(module) : source_.weight(module));
  if (values.empty()) return nullptr;
  return &changed_.emplace(name, std::move(values)).first->second;
}

Expected<std::vector<float>> FoldedBlock::fold(const ScaleGroup& group, std::vector<float> scales,
                                               ThreadPool& pool) {
  if (!group.norm.empty()) NIBBLE_RETURN_IF_ERROR(divide_norm(group.norm, scales));
  if (!group.producer.empty()) NIBBLE_RETURN_IF_ERROR(divide_rows(group.producer, scales, pool));
  if (!group.activation.empty()) scale_activation(group.activation, scales);
  for (const std::string& module : group.layers) {
    NIBBLE_RETURN_IF_ERROR(multiply_columns(module, scales, pool));
  }
  for (const std::string& module : group.compensated) {
    NIBBLE_RETURN_IF_ERROR(multiply_columns(module, scales, pool));
  }
  return scales;
}

void FoldedBlock::scale_activation(const std::string& activation, std::span<const float> scales) {
  std::vector<float>& all = changed_[activation + ".scales"];
  all.resize(scales.size(), 1.f);
  for (size_t i = 0; i < scales.size(); ++i) all[i] *= scales[i];
}

Status FoldedBlock::divide_norm(const std::string& norm, std::vector<float>& scales) {
  NIBBLE_TRY(std::vector<float>* const weight, change(norm, ".weight"));
  NIBBLE_TRY(std::vector<float>* const bias, change(norm, ".bias"));
  NIBBLE_CHECK(weight->size() == scales.size());
  const DType dtype = source_.checkpoint->find(norm + ".weight")->dtype;
  const float shift = source_.spec.names.norm_adds_one ? 1.f : 0.f;
  for (size_t i = 0; i < scales.size(); ++i) {
    const float before = (*weight)[i] + shift;
    const float stored = rounded_to(dtype, before / scales[i] - shift);
    const float after = stored + shift;
    if (before == 0.f) {
      // Only a bias comes through this channel: any scale is right.
    } else if (after == 0.f || !std::isfinite(after)) {
      scales[i] = 1.f;
    } else {
      scales[i] = before / after;
      (*weight)[i] = stored;
    }
    if (bias != nullptr) (*bias)[i] /= scales[i];
  }
  return {};
}

Status FoldedBlock::divide_rows(const std::string& producer, std::span<const float> scales,
                                ThreadPool& pool) {
  NIBBLE_TRY(std::vector<float>* const weight, change(producer, ".weight"));
  NIBBLE_TRY(std::vector<float>* const bias, change(producer, ".bias"));
  const Shape& shape = source_.slot(producer).shape;
  NIBBLE_CHECK(scales.size() <= shape[0]);
  const size_t first = shape[0] - scales.size();
  pool.parallel_for(scales.size(), kFoldedRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t i = begin; i < end; ++i) {
      float* const row = weight->data() + (first + i) * shape[1];
      for (size_t c = 0; c < shape[1]; ++c) row[c] /= scales[i];
    }
  });
  if (bias == nullptr) return {};
  for (size_t i = 0; i < scales.size(); ++i) (*bias)[first + i] /= scales[i];
  return {};
}

Status FoldedBlock::multiply_columns(const std::string& module, std::span<const float> scales,
                                     ThreadPool& pool) {
  NIBBLE_TRY(std::vector<float>* const weight, change(module, ".weight"));
  const size_t columns = scales.size();
  NIBBLE_CHECK(source_.slot(module).shape[1] == columns);
  pool.parallel_for(weight->size() / columns, kFoldedRowsPerTask, [&](size_t begin, size_t end, size_t) {
    for (size_t r = begin; r < end; ++r) {
      float* const row = weight->data() + r * columns;
      for (size_t c = 0; c < columns; ++c) row[c] *= scales[c];
    }
  });
  return {};
}

}  // namespace nibble
