// A whole quantized checkpoint: every module is decoded. Input: config.json, a zero byte, a .safetensors
// file.

#include <cstring>
#include <map>
#include <memory>

#include "nibble/checkpoint/checkpoint.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/quantization/formats/formats.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;

namespace {

// Each tensor in a block of memory of its own, so that a byte read beside it is seen.
class MemoryCheckpoint final : public Checkpoint {
 public:
  MemoryCheckpoint(const SafetensorsHeader& header, std::string_view file) {
    for (const auto& [name, entry] : header.tensors) {
      std::vector<std::byte> bytes(entry.end - entry.begin);
      std::memcpy(bytes.data(), file.data() + header.data_start + entry.begin, bytes.size());
      tensors_[name] = entry.info;
      bytes_[name] = std::move(bytes);
    }
  }

  Expected<Tensor> tensor(std::string_view name) const override {
    const auto found = bytes_.find(name);
    if (found == bytes_.end()) return fail(ErrorCode::kNotFound, "no such tensor").at(name);
    const TensorInfo& info = *find(name);
    return Tensor{info.dtype, info.shape, found->second, nullptr};
  }
  std::string file_of(std::string_view) const override { return "memory"; }
  size_t file_bytes() const override { return 0; }

 private:
  std::map<std::string, std::vector<std::byte>, std::less<>> bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [config_text, file] = fuzz::split_at_zero(fuzz::as_text(data, size));
  const auto config_json = parse_json(config_text);
  if (!config_json) return 0;
  const auto resolved = resolve_quantization(*config_json, std::nullopt, std::nullopt);
  if (!resolved || !resolved->config) return 0;
  const auto header = parse_safetensors(std::as_bytes(std::span(file)));
  if (!header) return 0;
  const MemoryCheckpoint checkpoint(*header, file);
  for (const std::string& module : quantized_modules(checkpoint)) {
    const auto summary = summarize_module(checkpoint, module, *resolved->config);
    fuzz::accepted(summary);
    const auto decoded = decode_module(checkpoint, module, *resolved->config, std::nullopt);
    if (!fuzz::accepted(decoded)) continue;
    NIBBLE_CHECK(summary.has_value());
    NIBBLE_CHECK(summary->out_features == decoded->weight.out_features);
    NIBBLE_CHECK(summary->in_features == decoded->weight.in_features);
    fuzz::accepted(dequantize(decoded->weight, std::nullopt));
  }
  return 0;
}
