#include <algorithm>
#include <cmath>
#include <memory>

#include "nibble/base/log.h"
#include "nibble/base/printable.h"
#include "nibble/cli/command.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/models/checkpoint_diff.h"

namespace nibble::cli {
namespace {

constexpr size_t kShown = 20;  // differences of each kind, without --all
constexpr size_t kLongestValue = 60;

struct DiffArguments {
  CommonOptions common;
  std::string a, b;
  bool all = false;
};

std::string shown(const Json& value, bool there) {
  if (!there) return "(not there)";
  return printable(dump_json(value, -1), kLongestValue);
}

std::string key_line(const KeyDifference& key) {
  return fmt::format("  {}: {}: {} -> {}\n", printable(key.file), printable(key.key), shown(key.a, key.has_a),
                     shown(key.b, key.has_b));
}

std::string file_line(const FileDifference& file) {
  if (file.a.empty()) return fmt::format("  {}: only in B\n", printable(file.file));
  if (file.b.empty()) return fmt::format("  {}: only in A\n", printable(file.file));
  return fmt::format("  {}: other content\n", printable(file.file));
}

double percent(size_t count, size_t all) {
  return all == 0 ? 0.0 : 100.0 * static_cast<double>(count) / static_cast<double>(all);
}

std::string stored_text(const TensorDifference& tensor) {
  if (tensor.stored_a == tensor.stored_b) return tensor.stored_a;
  return fmt::format("{} -> {}", tensor.stored_a, tensor.stored_b);
}

std::string tensor_line(const TensorDifference& tensor) {
  const std::string name = printable(tensor.name);
  if (tensor.stored_b.empty()) {
    return fmt::format("  {}: only in A ({} {})\n", name, tensor.stored_a, shape_name(tensor.shape_a));
  }
  if (tensor.stored_a.empty()) {
    return fmt::format("  {}: only in B ({} {})\n", name, tensor.stored_b, shape_name(tensor.shape_b));
  }
  if (tensor.shape_a != tensor.shape_b) {
    return fmt::format("  {}: shape {} -> {}\n", name, shape_name(tensor.shape_a),
                       shape_name(tensor.shape_b));
  }
  std::string line = fmt::format("  {} ({}): ", name, stored_text(tensor));
  if (tensor.differing == 0) return line + "the same numbers\n";
  line += fmt::format("{:.3g} % of the numbers, relative {:.3g}, largest {:.3g}",
                      percent(tensor.differing, tensor.elements), tensor.relative, tensor.largest);
  if (tensor.not_finite > 0) line += fmt::format(", {} not finite", tensor.not_finite);
  if (const auto& codes = tensor.codes) {
    line += fmt::format("; {:.3g} % of codes, {:.3g} % of scales", percent(codes->codes, tensor.elements),
                        percent(codes->scales, codes->num_scales));
    if (codes->zeros)
      line += fmt::format(", {:.3g} % of zero points", percent(*codes->zeros, codes->num_scales));
  }
  return line + "\n";
}

template <class T>
void add_section(std::string& text, std::string_view title, const std::vector<T>& items, bool all,
                 std::string (*line)(const T&)) {
  if (items.empty()) return;
  text += fmt::format("{}\n", title);
  const size_t shown_items = all ? items.size() : std::min(kShown, items.size());
  for (size_t i = 0; i < shown_items; ++i) text += line(items[i]);
  if (shown_items < items.size()) text += fmt::format("  and {} more: --all\n", items.size() - shown_items);
}

std::string to_text(const DiffArguments& options, const CheckpointDiff& diff) {
  std::string text = fmt::format("A: {}\nB: {}\n", printable(options.a), printable(options.b));
  add_section(text, "settings (A -> B)", diff.keys, options.all, key_line);
  add_section(text, "files", diff.files, options.all, file_line);
  add_section(text, "weights, the largest differences first", diff.tensors, options.all, tensor_line);
  text += fmt::format("{} weights in both: {} have the same bytes, {} the same numbers\n{}\n", diff.compared,
                      diff.same_bytes, diff.same_values, verdict_text(diff.verdict()));
  return text;
}

Json to_json(const TensorDifference& tensor) {
  const auto name_or_null = [](const std::string& name) { return name.empty() ? Json() : Json(name); };
  Json json = {{"name", tensor.name},
               {"stored_a", name_or_null(tensor.stored_a)},
               {"stored_b", name_or_null(tensor.stored_b)},
               {"shape_a", tensor.stored_a.empty() ? Json() : Json(tensor.shape_a)},
               {"shape_b", tensor.stored_b.empty() ? Json() : Json(tensor.shape_b)}};
  if (tensor.elements == 0) return json;
  json["elements"] = tensor.elements;
  json["differing"] = tensor.differing;
  json["relative"] = finite_or_null(tensor.relative);
  json["largest"] = tensor.largest;
  json["not_finite"] = tensor.not_finite;
  if (const auto& codes = tensor.codes) {
    json["codes"] = {{"differing", codes->codes},
                     {"scales_differing", codes->scales},
                     {"zeros_differing", codes->zeros ? Json(*codes->zeros) : Json()},
                     {"num_scales", codes->num_scales}};
  }
  return json;
}

std::string_view verdict_word(DiffVerdict verdict) {
  constexpr std::string_view kWords[] = {"identical", "same_tensors", "same_weights", "other_weights"};
  return kWords[static_cast<size_t>(verdict)];
}

Json to_json(const DiffArguments& options, const CheckpointDiff& diff) {
  Json keys = Json::array();
  for (const KeyDifference& key : diff.keys) {
    Json one = {{"file", key.file}, {"key", key.key}};
    if (key.has_a) one["a"] = key.a;
    if (key.has_b) one["b"] = key.b;
    keys.push_back(std::move(one));
  }
  Json files = Json::array();
  for (const FileDifference& file : diff.files) {
    files.push_back({{"file", file.file},
                     {"sha256_a", file.a.empty() ? Json() : Json(file.a)},
                     {"sha256_b", file.b.empty() ? Json() : Json(file.b)}});
  }
  Json tensors = Json::array();
  for (const TensorDifference& tensor : diff.tensors) tensors.push_back(to_json(tensor));
  return {{"a", options.a},
          {"b", options.b},
          {"verdict", verdict_word(diff.verdict())},
          {"settings", keys},
          {"files", files},
          {"weights",
           {{"compared", diff.compared},
            {"same_bytes", diff.same_bytes},
            {"same_values", diff.same_values},
            {"different", tensors}}},
          {"warnings", warnings()}};
}

Status diff(const DiffArguments& options) {
  NIBBLE_TRY(const ModelFiles a, find_model(options.a));
  NIBBLE_TRY(const ModelFiles b, find_model(options.b));
  ThreadPool pool(options.common.num_threads());
  NIBBLE_TRY(const CheckpointDiff found, diff_checkpoints(a, b, pool, true));
  NIBBLE_RETURN_IF_ERROR(options.common.json ? write_json(to_json(options, found))
                                             : write_stdout(to_text(options, found)));
  set_result_status(found.verdict() == DiffVerdict::kIdentical ? 0 : 1);
  return {};
}

Action define_diff(CLI::App& app) {
  const auto options = std::make_shared<DiffArguments>();
  const char* const kModel = "A folder, a name in the Hugging Face cache (org/name), or a .gguf file";
  app.add_option("A", options->a, kModel)->type_name("MODEL")->required();
  app.add_option("B", options->b, kModel)->type_name("MODEL")->required();
  app.add_flag("--all", options->all, "Show every difference, not the largest of each kind");
  add_common_options(app, options->common, "Print every difference as JSON");
  return [options] { return diff(*options); };
}

}  // namespace

const Command kDiffCommand = {
    .name = "diff",
    .summary = "Say what differs between two checkpoints",
    .examples =
        "  nibble diff awq-model gptq-model\n"
        "  nibble diff ./model ./model-again --json",
    .define = define_diff,
};

}  // namespace nibble::cli
