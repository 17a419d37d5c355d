#ifndef NIBBLE_CHECKPOINT_MODEL_FILES_H_
#define NIBBLE_CHECKPOINT_MODEL_FILES_H_

// From the word MODEL on the command line to files: a folder, a name in the Hugging Face cache, or
// a .gguf file.

#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/base/json.h"
#include "nibble/checkpoint/hub_cache.h"

namespace nibble {

// The small files of a model as text, and where its weights are. For a GGUF file the texts
// (config.json, tokenizer.json, ...) are made from the file's metadata; the rest of the program
// cannot tell the difference.
struct ModelFiles {
  std::string name;              // as the user wrote it
  std::filesystem::path folder;  // empty for a GGUF file
  std::filesystem::path gguf;    // empty for a folder
  // File name -> content; comes before a file of that name in the folder. Of a GGUF file: all of them.
  std::map<std::string, std::string> texts;

  // "config.json" and the like; nothing if the model has no such file.
  Expected<std::optional<std::string>> read(std::string_view file) const;
  // The same, but its absence is an error.
  Expected<std::string> read_required(std::string_view file) const;
  // File names in the folder (not its subfolders), or the keys of texts; sorted.
  std::vector<std::string> list() const;
  // "SUBFOLDER/NAME" of the files in one of its subfolders, sorted.
  std::vector<std::string> list_below(const std::filesystem::path& subfolder) const;
};

// Templates besides chat_template.jinja: NAME.jinja is the template NAME, such as "tool_use".
inline constexpr const char* kChatTemplatesFolder = "additional_chat_templates";

// The files that held a quantization's settings before config.json did, newest first.
inline constexpr std::array kQuantizeConfigFiles = {"quantize_config.json", "quant_config.json"};

// MODEL: "./dir", "file.gguf", "org/name", "org/name@revision", "hf://org/name@revision"; where there are
// GGUF files, ":Q4_K_M" behind it names one (gguf_files.h).
// A folder without safetensors, but with one GGUF file, is that file; with several, kInvalidArgument names
// them. A name is looked up in hub_cache(): models--org--name/refs/REVISION names the snapshot, "main" by
// default. `revision`, when not empty, is used for a name that has none itself. kNotFound says where was
// looked and how to get the model.
Expected<ModelFiles> find_model(std::string_view model, std::string_view revision = {});

// The name that find_model() looks up in the cache without finding it; nothing for anything else.
std::optional<RepoName> missing_from_cache(std::string_view model, std::string_view revision = {});

// MODEL with the revision written into it, if it is a name without one: what find_model(model, revision)
// finds.
std::string with_revision(std::string_view model, std::string_view revision);

// The last part of a model's path or name: "SmolLM2-135M" of "models/SmolLM2-135M/" or "org/SmolLM2-135M".
std::string last_name(const std::filesystem::path& model);

// The files that hold the weights: those of a folder, or all parts of a GGUF file; and their size. What
// cannot be opened is left to whoever reads it.
std::vector<std::filesystem::path> weight_files(const ModelFiles& files);
size_t bytes_on_disk(const ModelFiles& files);

// Shows whether a file of weights has changed: {"bytes", "changed"}; null where there is none.
Json file_state(const std::filesystem::path& file);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_MODEL_FILES_H_
