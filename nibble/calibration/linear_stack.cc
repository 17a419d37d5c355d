#include "nibble/calibration/linear_stack.h"

#include "nibble/calibration/block_walk.h"

namespace nibble {

Expected<const std::vector<float>*> find_replaced(const BlockReplacement* replacement,
                                                  const std::string& tensor, size_t size) {
  if (replacement == nullptr) return nullptr;
  const auto found = replacement->tensors.find(tensor);
  if (found == replacement->tensors.end()) return nullptr;
  if (found->second.size() != size) {
    return fail(ErrorCode::kInvalidArgument, "{} values in place of {}", found->second.size(), size)
        .at(tensor);
  }
  return &found->second;
}

Expected<LinearStack> load_stack(const ModelSource& source, const std::vector<std::string>& modules,
                                 const BlockReplacement* replacement) {
  LinearStack stack;
  for (const std::string& module : modules) {
    if (module.empty()) continue;
    const Shape& shape = source.slot(module).shape;
    stack.modules.push_back(module);
    stack.rows.push_back(shape[0]);
    stack.in = shape[1];
    stack.out += shape[0];
  }
  stack.original.reserve(stack.out * stack.in);
  size_t first = 0;
  for (size_t i = 0; i < stack.modules.size(); ++i) {
    const std::string& module = stack.modules[i];
    NIBBLE_TRY(const auto* const replaced,
               find_replaced(replacement, module + ".weight", stack.rows[i] * stack.in));
    if (replaced != nullptr) {
      stack.original.insert(stack.original.end(), replaced->begin(), replaced->end());
    } else {
      NIBBLE_TRY(const std::vector<float> weight, source.weight(module));
      stack.original.insert(stack.original.end(), weight.begin(), weight.end());
    }
    NIBBLE_TRY(const auto* const new_bias, find_replaced(replacement, module + ".bias", stack.rows[i]));
    NIBBLE_TRY(const std::vector<float> bias,
               new_bias != nullptr ? Expected<std::vector<float>>(*new_bias) : source.bias(module));
    if (!bias.empty()) {
      stack.bias.resize(stack.out);
      std::copy(bias.begin(), bias.end(), stack.bias.begin() + static_cast<ptrdiff_t>(first));
    }
    first += stack.rows[i];
  }
  return stack;
}

}  // namespace nibble
