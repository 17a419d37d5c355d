#include "nibble/checkpoint/model_files.h"

#include <algorithm>
#include <set>
#include <system_error>

#include <sys/stat.h>

#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/gguf_files.h"
#include "nibble/checkpoint/gguf_model.h"
#include "nibble/checkpoint/hub_cache.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHub = "hf://";

struct LocalName {
  fs::path path;
  std::string quant;  // which of the folder's GGUF files; empty: none was named
};

// "folder:QUANT" where there is such a folder, and nothing under the whole name.
LocalName local_name(std::string_view model) {
  const fs::path path = expand_home(std::string(model));
  const size_t colon = model.rfind(':');
  std::error_code error;
  if (colon == model.npos || model.find('/', colon) != model.npos || fs::exists(path, error))
    return {path, {}};
  const fs::path folder = expand_home(std::string(model.substr(0, colon)));
  if (!is_folder(folder)) return {path, {}};
  return {folder, std::string(model.substr(colon + 1))};
}

// What the cache is asked for; nothing for a path, whether or not something is there.
std::optional<RepoName> hub_name(std::string_view model, std::string_view revision) {
  if (model.starts_with(kHub)) return parse_repo_name(model, revision);
  const bool looks_like_path =
      model.starts_with('.') || model.starts_with('/') || model.starts_with('~') || model.ends_with(".gguf");
  std::error_code error;
  if (looks_like_path || fs::exists(local_name(model).path, error)) return std::nullopt;
  return parse_repo_name(model, revision);
}

std::string how_to_get(const RepoName& name) {
  const std::string command = "nibble pull " + to_string(name);
  if (is_hub_offline()) {
    return "HF_HUB_OFFLINE is set: unset it and run \"" + command + "\", or copy the model's folder here.";
  }
  return "Run: " + command;
}

Expected<ModelFiles> open_file(std::string_view model, const fs::path& path) {
  if (path.extension() == ".safetensors") {
    return fail(ErrorCode::kInvalidArgument, "a weight file alone is not a model")
        .at(model)
        .with_fix("Name the folder that holds it together with config.json.");
  }
  // Whether it is one, its first bytes tell, not its name.
  NIBBLE_TRY(auto texts, at(model, read_gguf_texts(path)));
  return ModelFiles{std::string(model), {}, path, std::move(texts)};
}

// The GGUF models of a folder and of its subfolders.
std::vector<std::string> all_ggufs(const ModelFiles& files) {
  std::vector<std::string> names = files.list();
  for (const std::string& subfolder : names_in(files.folder)) {
    for (std::string& name : files.list_below(subfolder)) names.push_back(std::move(name));
  }
  return gguf_models(names);
}

// A folder that has no weights but those of one GGUF file is that file, as is one of which `quant` names a
// file.
Expected<ModelFiles> open_folder(std::string_view model, const fs::path& folder, std::string_view quant) {
  ModelFiles files{std::string(model), folder, {}, {}};
  const std::vector<std::string> names = files.list();
  const std::vector<std::string> ggufs = quant.empty() ? gguf_models(names) : all_ggufs(files);
  const auto is_safetensors = [](const std::string& name) { return name.ends_with(".safetensors"); };
  const bool has_safetensors = std::any_of(names.begin(), names.end(), is_safetensors);
  if (quant.empty() && (has_safetensors || ggufs.empty())) return files;
  NIBBLE_TRY(const std::string name, at(model, choose_gguf(ggufs, quant)));
  return open_file(model, folder / name);
}

Expected<ModelFiles> find_in_cache(std::string_view model, const RepoName& name) {
  const fs::path cache = hub_cache();
  const std::string folder = repo_folder_name(name.repo);
  if (!is_folder(cache / folder)) {
    return fail(ErrorCode::kNotFound, "no such folder, and not in the Hugging Face cache {}", cache.string())
        .at(model)
        .with_fix(how_to_get(name));
  }
  auto snapshot = at(model, find_snapshot(cache / folder, name));
  if (!snapshot) return Failure(std::move(snapshot).error().with_fix(how_to_get(name)));
  log_verbose("{}: {}", model, snapshot->string());
  auto files = open_folder(model, *snapshot, name.quant);
  // Only some of the hub's files may have been fetched.
  if (!files && files.error().code == ErrorCode::kNotFound && !name.quant.empty()) {
    Error error = std::move(files).error();
    error.fix = how_to_get(name);
    return Failure(std::move(error));
  }
  return files;
}

}  // namespace

Expected<std::optional<std::string>> ModelFiles::read(std::string_view file) const {
  if (const auto found = texts.find(std::string(file)); found != texts.end())
    return std::optional(found->second);
  if (folder.empty()) return std::optional<std::string>();
  auto text = read_text_file(folder / file);
  if (text) return std::optional(std::move(*text));
  if (text.error().code == ErrorCode::kNotFound) return std::optional<std::string>();
  return Failure(std::move(text).error());
}

Expected<std::string> ModelFiles::read_required(std::string_view file) const {
  NIBBLE_TRY(auto text, read(file));
  if (text) return std::move(*text);
  if (!gguf.empty()) {
    return fail(ErrorCode::kNotFound, "the file's metadata is not enough to make {}", file).at(gguf.string());
  }
  return fail(ErrorCode::kNotFound, "{} is missing", file)
      .at(folder.string())
      .with_fix("Check that this is a model's folder, and that its download is complete.");
}

std::vector<std::string> ModelFiles::list() const {
  std::vector<std::string> files;
  if (!folder.empty()) files = list_below({});
  std::set<std::string> names(files.begin(), files.end());
  for (const auto& text : texts) names.insert(text.first);
  return {names.begin(), names.end()};
}

std::vector<std::string> ModelFiles::list_below(const fs::path& subfolder) const {
  std::vector<std::string> files;
  if (folder.empty()) return files;
  for (const std::string& file : names_in(folder / subfolder)) {
    std::error_code error;
    if (fs::is_regular_file(folder / subfolder / file, error)) files.push_back(subfolder / file);
  }
  return files;
}

Expected<ModelFiles> find_model(std::string_view model, std::string_view revision) {
  if (model.empty()) return fail(ErrorCode::kInvalidArgument, "the model has no name");
  if (const auto name = hub_name(model, revision)) return find_in_cache(model, *name);
  if (model.starts_with(kHub)) {
    return fail(ErrorCode::kInvalidArgument, "not of the form hf://org/name@revision:QUANT").at(model);
  }
  const auto [path, quant] = local_name(model);
  std::error_code error;
  if (fs::is_directory(path, error)) return open_folder(model, path, quant);
  if (fs::exists(path, error)) return open_file(model, path);
  return fail(ErrorCode::kNotFound, "no such folder or file")
      .at(model)
      .with_fix("A model is a folder, a .gguf file, or org/name from the Hugging Face cache.");
}

std::optional<RepoName> missing_from_cache(std::string_view model, std::string_view revision) {
  auto name = hub_name(model, revision);
  if (!name) return std::nullopt;
  const auto snapshot = find_snapshot(hub_cache() / repo_folder_name(name->repo), *name);
  if (!snapshot) return name;
  if (name->quant.empty()) return std::nullopt;
  const auto gguf = choose_gguf(all_ggufs({"", *snapshot, {}, {}}), name->quant);
  return !gguf && gguf.error().code == ErrorCode::kNotFound ? name : std::nullopt;
}

std::string with_revision(std::string_view model, std::string_view revision) {
  const auto name = hub_name(model, revision);
  if (!name) return std::string(model);
  return (model.starts_with(kHub) ? std::string(kHub) : std::string()) + to_string(*name);
}

std::string last_name(const fs::path& model) {
  return (model.has_filename() ? model : model.parent_path()).filename().string();
}

std::vector<fs::path> weight_files(const ModelFiles& files) {
  std::vector<fs::path> found;
  if (!files.gguf.empty()) {
    const auto gguf = open_gguf_files(files.gguf);
    if (!gguf) return {files.gguf};
    for (const auto& part : gguf->parts) found.push_back(part->path());
    return found;
  }
  for (const std::string& name : files.list()) {
    if (name.ends_with(".safetensors")) found.push_back(files.folder / name);
  }
  return found;
}

size_t bytes_on_disk(const ModelFiles& files) {
  size_t bytes = 0;
  for (const fs::path& file : weight_files(files)) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    if (!error) bytes += static_cast<size_t>(size);
  }
  return bytes;
}

Json file_state(const fs::path& file) {
  struct stat state = {};
  if (::stat(file.c_str(), &state) != 0) return nullptr;
  return {{"bytes", state.st_size},
          {"changed", fmt::format("{}.{:09}", state.st_mtim.tv_sec, state.st_mtim.tv_nsec)}};
}

}  // namespace nibble
