#include "nibble/checkpoint/convert.h"

#include <algorithm>
#include <array>
#include <string>
#include <system_error>
#include <vector>

#include "nibble/base/atomic_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// Weights in any format, and what describes them.
constexpr std::array<std::string_view, 12> kWeightSuffixes = {".safetensors", ".safetensors.index.json",
                                                              ".bin",         ".bin.index.json",
                                                              ".pt",          ".pth",
                                                              ".ckpt",        ".gguf",
                                                              ".h5",          ".msgpack",
                                                              ".onnx",        ".ot"};

constexpr uintmax_t kMaxTextBytes = uintmax_t{1} << 30;  // what ModelFiles::read takes

bool is_copied(std::string_view name) {
  return name != "config.json" && !name.starts_with('.') && !is_weight_file(name);
}

Status check_folder(const ModelFiles& files, const fs::path& folder) {
  std::error_code error;
  if (files.folder.empty() || !fs::equivalent(files.folder, folder, error)) return {};
  return fail(ErrorCode::kInvalidArgument, "this is the folder of the model itself")
      .at(folder.string())
      .with_fix("Name another folder for the result.");
}

}  // namespace

bool is_weight_file(std::string_view name) {
  return std::any_of(kWeightSuffixes.begin(), kWeightSuffixes.end(),
                     [&](std::string_view suffix) { return name.ends_with(suffix); });
}

Status copy_model_texts(const ModelFiles& files, const fs::path& folder) {
  for (const std::string& name : files.list()) {
    std::error_code error;
    if (!is_copied(name) ||
        (!files.folder.empty() && fs::file_size(files.folder / name, error) > kMaxTextBytes)) {
      continue;
    }
    NIBBLE_TRY(const std::string text, files.read_required(name));
    NIBBLE_RETURN_IF_ERROR(write_file(folder / name, text));
  }
  for (const std::string& name : files.list_below(kChatTemplatesFolder)) {
    NIBBLE_TRY(const std::string text, files.read_required(name));
    NIBBLE_RETURN_IF_ERROR(create_folder(folder / kChatTemplatesFolder));
    NIBBLE_RETURN_IF_ERROR(write_file(folder / name, text));
  }
  return {};
}

Status write_model_folder(const ModelFiles& files, const Checkpoint& checkpoint, const fs::path& folder,
                          size_t max_shard_size) {
  NIBBLE_RETURN_IF_ERROR(check_folder(files, folder));
  NIBBLE_TRY(const std::string config, files.read_required("config.json"));
  NIBBLE_RETURN_IF_ERROR(create_folder(folder));
  std::vector<TensorSource> sources;
  for (const auto& entry : checkpoint.tensors()) {
    const std::string& name = entry.first;
    sources.push_back({name, entry.second, [&checkpoint, &name] { return checkpoint.tensor(name); }});
  }
  NIBBLE_RETURN_IF_ERROR(write_checkpoint(
      folder, sources, {.max_shard_size = max_shard_size, .metadata = checkpoint.metadata()}));
  NIBBLE_RETURN_IF_ERROR(copy_model_texts(files, folder));
  return write_file(folder / "config.json", config);
}

}  // namespace nibble
