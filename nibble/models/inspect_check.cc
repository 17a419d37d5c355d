#include "nibble/models/inspect_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>

#include "nibble/base/sha256.h"
#include "nibble/models/inspect_files.h"
#include "nibble/quantization/formats/formats.h"
#include "nibble/quantization/formats/module_tensors.h"

namespace nibble {
namespace {

// How many values fulfil a condition, and which is the first.
struct Count {
  size_t count = 0;
  size_t first = 0;

  void add(size_t index) {
    if (count++ == 0) first = index;
  }

  template <class T, class Condition>
  static Count of(const std::vector<T>& values, Condition condition) {
    Count result;
    for (size_t i = 0; i < values.size(); ++i) {
      if (condition(values[i])) result.add(i);
    }
    return result;
  }
};

// "2 of 4096 scales are 0, the first at [0, 7]"
std::string sentence(const Count& found, size_t all, std::string_view things, const Shape& shape) {
  return fmt::format("{} of {} {}, the first at {}", found.count, all, things,
                     element_name(shape, found.first));
}

void check_finite(const std::string& name, const Tensor& tensor, ModelCheck& check) {
  constexpr size_t kPiece = size_t{1} << 20;  // elements at a time: an embedding may be as large as memory
  const size_t element = dtype_bits(tensor.dtype) / 8;
  const size_t size = tensor.bytes.size() / element;
  Count nan;
  Count inf;
  for (size_t begin = 0; begin < size; begin += kPiece) {
    const size_t count = std::min(kPiece, size - begin);
    const auto values =
        to_floats({tensor.dtype, {count}, tensor.bytes.subspan(begin * element, count * element), nullptr});
    if (!values) return;
    for (size_t i = 0; i < count; ++i) {
      if (std::isnan((*values)[i])) nan.add(begin + i);
      if (std::isinf((*values)[i])) inf.add(begin + i);
    }
  }
  const auto add = [&](const char* kind, const Count& found, std::string_view things) {
    if (found.count == 0) return;
    check.findings.push_back(
        {kind, Severity::kFault, name, found.count, sentence(found, size, things, tensor.shape)});
  };
  add("nan", nan, "values are NaN");
  add("inf", inf, "values are infinite");
}

// All bytes of equal elements, as in the zero points of a symmetric file: those repeat in every module.
bool is_constant(const Tensor& tensor) {
  const size_t element = std::max<size_t>(1, dtype_bits(tensor.dtype) / 8);
  const auto bytes = tensor.bytes;
  return bytes.size() <= element ||
         std::memcmp(bytes.data(), bytes.data() + element, bytes.size() - element) == 0;
}

// Finds matrices with the same bytes under two names.
class Duplicates {
 public:
  void add(const std::string& name, const Tensor& tensor, ModelCheck& check) {
    if (tensor.shape.size() < 2 || is_constant(tensor)) return;
    const std::string key =
        fmt::format("{} {} {}", dtype_name(tensor.dtype), shape_name(tensor.shape), sha256(tensor.bytes));
    const auto [position, is_new] = first_.emplace(key, name);
    if (is_new) return;
    check.findings.push_back(
        {"duplicate", Severity::kNote, name, 1, fmt::format("has the bytes of {}", position->second)});
  }

 private:
  std::map<std::string, std::string> first_;
};

void check_scales(const std::string& module, const QuantizedWeight& weight, ModelCheck& check) {
  const std::vector<float>& scales = weight.scales;
  const Shape shape = {weight.num_groups, weight.out_features};
  const Count zero = Count::of(scales, [](float scale) { return scale == 0.f; });
  if (zero.count > 0) {
    check.findings.push_back({"zero_group", Severity::kNote, module, zero.count,
                              sentence(zero, scales.size(), "scales are 0", shape)});
  }
}

// Files that store zero - 1 field by field cannot say 0: there it is what a writer made of one that did not
// fit. GPTQModel subtracts from whole words, and gets a 0 back.
bool can_hold_zero(const std::string& format, const QuantizationConfig& config) {
  if (format != "gptq") return true;
  const auto* gptq = std::get_if<GPTQConfig>(&config);
  return gptq != nullptr &&
         std::any_of(gptq->quantizer.begin(), gptq->quantizer.end(),
                     [](const std::string& writer) { return writer.starts_with("gptqmodel"); });
}

// A zero point is one of the codes.
void check_zero_points(const std::string& module, const DecodedModule& decoded,
                       const QuantizationConfig& config, ModelCheck& check) {
  const QuantizedWeight& weight = decoded.weight;
  const auto highest = static_cast<float>((1u << weight.bits) - 1);
  const float lowest = can_hold_zero(decoded.format, config) ? 0.f : 1.f;
  const Count bad = Count::of(weight.zeros, [=](float zero) { return !(zero >= lowest && zero <= highest); });
  if (bad.count == 0) return;
  const std::string things =
      fmt::format("zero points are outside {} to {}, which {} can hold", lowest, highest, decoded.format);
  check.findings.push_back(
      {"zero_point", Severity::kFault, module, bad.count,
       sentence(bad, weight.zeros.size(), things, {weight.num_groups, weight.out_features})});
}

void check_absmax(const std::string& module, const QuantizedWeight& weight, ModelCheck& check) {
  const std::vector<float>& absmax = weight.absmax;
  // No weight of this type is larger, and none has a negative magnitude.
  const float largest = weight.dtype == DType::kF16 ? 65504.f : std::numeric_limits<float>::max();
  const Count bad = Count::of(absmax, [=](float value) { return !(value >= 0.f && value <= largest); });
  if (bad.count > 0) {
    check.findings.push_back(
        {"absmax", Severity::kFault, module, bad.count,
         sentence(bad, absmax.size(),
                  fmt::format("absmax are no magnitude of a {}", torch_dtype_name(weight.dtype)),
                  {absmax.size()})});
  }
  const Count zero = Count::of(absmax, [](float value) { return value == 0.f; });
  if (zero.count > 0) {
    check.findings.push_back({"zero_group", Severity::kNote, module, zero.count,
                              sentence(zero, absmax.size(), "absmax are 0", {absmax.size()})});
  }
}

void check_module(const InspectedFiles& files, const std::string& module, ModelCheck& check) {
  const Checkpoint& checkpoint = *files.checkpoint;
  const auto decoded = decode_module(checkpoint, module, *files.quantization.config, std::nullopt);
  ++check.modules;
  if (!decoded) {
    check.findings.push_back({"codes", Severity::kFault, module, 1, to_string(decoded.error())});
    return;
  }
  check_scales(module, decoded->weight, check);
  check_zero_points(module, *decoded, *files.quantization.config, check);
  check_absmax(module, decoded->weight, check);
  for (const std::string& name : decoded->tensors) checkpoint.drop(name);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

size_t ModelCheck::num_faults() const {
  return static_cast<size_t>(std::count_if(findings.begin(), findings.end(), [](const CheckFinding& finding) {
    return finding.severity == Severity::kFault;
  }));
}

Expected<ModelCheck> check_model(const ModelFiles& files) {
  NIBBLE_TRY(const InspectedFiles opened, open_inspected(files));
  const Checkpoint& checkpoint = *opened.checkpoint;
  ModelCheck check;
  if (const Status status = check_tensors(opened); !status) {
    check.findings.push_back({"structure", Severity::kFault, {}, 1, first_line(to_string(status.error()))});
  }
  Duplicates duplicates;
  for (const auto& [name, info] : checkpoint.tensors()) {
    NIBBLE_TRY(const Tensor tensor, at(files.name, checkpoint.tensor(name)));
    ++check.tensors;
    check.bytes += tensor.bytes.size();
    if (is_float(info.dtype)) check_finite(name, tensor, check);
    duplicates.add(name, tensor, check);
    checkpoint.drop(name);
  }
  for (const std::string& module : opened.quantized_modules) check_module(opened, module, check);
  // Faults first; within both as they were found.
  std::stable_sort(check.findings.begin(), check.findings.end(),
                   [](const auto& a, const auto& b) { return a.severity < b.severity; });
  return check;
}

}  // namespace nibble
