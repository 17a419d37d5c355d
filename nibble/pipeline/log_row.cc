#include "nibble/pipeline/log_row.h"

#include <algorithm>
#include <cmath>

#include "nibble/base/log.h"

namespace nibble {
namespace {

// "model.layers.12.mlp.up_proj" -> {"12", "mlp.up_proj"}; a module outside the blocks has no layer.
std::pair<std::string, std::string> layer_and_name(const std::string& module) {
  for (size_t dot = module.find('.'); dot != std::string::npos; dot = module.find('.', dot + 1)) {
    const size_t end = module.find('.', dot + 1);
    if (end == std::string::npos) break;
    const std::string part = module.substr(dot + 1, end - dot - 1);
    if (std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      return {part, module.substr(end + 1)};
    }
  }
  return {"", module};
}

}  // namespace

Json to_json(const QuantizedModule& row) {
  // JSON has no NaN, which is the loss where the calibration data overflowed.
  return {{"module", row.module},
          {"shape", {row.out_features, row.in_features}},
          {"bits", row.bits},
          {"group_size", row.group_size},
          {"loss", std::isfinite(row.loss) ? Json(row.loss) : Json()},
          {"damp", row.damp},
          {"tokens", row.tokens},
          {"seconds", row.seconds},
          {"note", row.note}};
}

QuantizedModule module_from_json(const Json& json) {
  QuantizedModule row;
  row.module = json.value("module", "");
  if (const auto shape = json.find("shape"); shape != json.end() && shape->size() == 2) {
    row.out_features = (*shape)[0].get<size_t>();
    row.in_features = (*shape)[1].get<size_t>();
  }
  row.bits = json.value("bits", 0);
  row.group_size = json.value("group_size", int64_t{0});
  const auto loss = json.find("loss");
  row.loss = loss != json.end() && loss->is_number() ? loss->get<double>() : std::nan("");
  row.damp = json.value("damp", 0.0);
  row.tokens = json.value("tokens", size_t{0});
  row.seconds = json.value("seconds", 0.0);
  row.note = json.value("note", "");
  return row;
}

void log_module(const QuantizedModule& row) {
  log_verbose("{}  {} x {}  {} bits  loss {:.3g}  damp {:.3g}  {} tokens  {:.2f} s{}{}", row.module,
              row.out_features, row.in_features, row.bits, row.loss, row.damp, row.tokens, row.seconds,
              row.note.empty() ? "" : "  ", row.note);
}

std::string to_csv(std::span<const QuantizedModule> rows) {
  std::string csv = "layer,module,shape,loss,samples,damp,time,bits,group_size,note\n";
  for (const QuantizedModule& row : rows) {
    const auto [layer, name] = layer_and_name(row.module);
    csv += fmt::format("{},{},{}x{},{:.6g},{},{:.5g},{:.3f},{},{},\"{}\"\n", layer, name, row.out_features,
                       row.in_features, row.loss, row.tokens, row.damp, row.seconds, row.bits, row.group_size,
                       row.note);
  }
  return csv;
}

}  // namespace nibble
