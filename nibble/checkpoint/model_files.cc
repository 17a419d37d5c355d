#include "nibble/checkpoint/model_files.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <system_error>

#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/gguf_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// "org/name@revision", taken apart.
struct RepoName {
  std::string repo;      // "org/name", or "gpt2" for the oldest models
  std::string revision;  // a branch, a tag or a commit hash
};

std::optional<std::string> environment(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

// "~/x" as the shell reads it.
fs::path expand_home(const std::string& path) {
  if (path != "~" && !path.starts_with("~/")) return path;
  return fs::path(environment("HOME").value_or("/")) / path.substr(std::min<size_t>(path.size(), 2));
}

bool is_offline() {
  std::string value = environment("HF_HUB_OFFLINE").value_or("");
  std::transform(value.begin(), value.end(), value.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

// A part of a path that cannot lead out of its folder.
bool is_safe_part(std::string_view part) {
  const auto is_name_char = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '+';
  };
  return !part.empty() && part != "." && part != ".." && std::all_of(part.begin(), part.end(), is_name_char);
}

std::vector<std::string_view> split_at_slashes(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t slash = text.find('/');
    parts.push_back(text.substr(0, slash));
    if (slash == text.npos) return parts;
    text.remove_prefix(slash + 1);
  }
}

bool are_safe_parts(std::string_view text) {
  const auto parts = split_at_slashes(text);
  return std::all_of(parts.begin(), parts.end(), is_safe_part);
}

// Nothing if `model` cannot be a name in the hub.
std::optional<RepoName> parse_repo_name(std::string_view model, std::string_view revision) {
  const size_t mark = model.find('@');
  const std::string_view repo = model.substr(0, mark);
  if (mark != model.npos) revision = model.substr(mark + 1);
  if (revision.empty()) revision = "main";
  if (!are_safe_parts(repo) || split_at_slashes(repo).size() > 2) return std::nullopt;
  if (!are_safe_parts(revision)) return std::nullopt;
  return RepoName{std::string(repo), std::string(revision)};
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// models--org--name/refs/REVISION holds the name of the snapshot; REVISION may also be one itself.
Expected<fs::path> find_snapshot(const fs::path& repo_folder, const RepoName& name) {
  const fs::path snapshots = repo_folder / "snapshots";
  const fs::path reference = repo_folder / "refs" / name.revision;
  std::error_code error;
  if (fs::is_regular_file(reference, error)) {
    NIBBLE_TRY(std::string commit, read_text_file(reference, /*max_bytes=*/4096));
    commit.erase(commit.find_last_not_of(" \r\n\t") + 1);
    if (!is_safe_part(commit)) {
      return fail(ErrorCode::kDataLoss, "\"{}\" is not a commit hash", commit).at(reference.string());
    }
    if (is_folder(snapshots / commit)) return snapshots / commit;
    return fail(ErrorCode::kNotFound, "{} names commit {}, of which there are no files", name.revision,
                commit)
        .at(repo_folder.string());
  }
  if (name.revision.find('/') == std::string::npos && is_folder(snapshots / name.revision)) {
    return snapshots / name.revision;
  }
  const auto known = names_in(repo_folder / "refs");
  return fail(ErrorCode::kNotFound, "the cache has no revision {}{}", name.revision,
              known.empty() ? "" : fmt::format("; it has {}", fmt::join(known, ", ")))
      .at(repo_folder.string());
}

std::string how_to_get(const RepoName& name) {
  std::string command = "huggingface-cli download " + name.repo;
  if (name.revision != "main") command += " --revision " + name.revision;
  if (is_offline()) {
    return "HF_HUB_OFFLINE is set: unset it and run \"" + command + "\", or copy the model's folder here.";
  }
  return "Run: " + command;
}

Expected<ModelFiles> find_in_cache(std::string_view model, const RepoName& name) {
  const fs::path cache = hub_cache_folder();
  std::string folder = "models";
  for (const std::string_view part : split_at_slashes(name.repo)) folder += fmt::format("--{}", part);
  if (!is_folder(cache / folder)) {
    return fail(ErrorCode::kNotFound, "no such folder, and not in the Hugging Face cache {}", cache.string())
        .at(model)
        .with_fix(how_to_get(name));
  }
  auto snapshot = at(model, find_snapshot(cache / folder, name));
  if (!snapshot) return Failure(std::move(snapshot).error().with_fix(how_to_get(name)));
  log_verbose("{}: {}", model, snapshot->string());
  return ModelFiles{std::string(model), std::move(*snapshot), {}, {}};
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

}  // namespace

fs::path hub_cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const auto value = environment(name)) return expand_home(*value);
  }
  if (const auto value = environment("HF_HOME")) return expand_home(*value) / "hub";
  if (const auto value = environment("XDG_CACHE_HOME")) {
    return expand_home(*value) / "huggingface" / "hub";
  }
  return expand_home("~/.cache/huggingface/hub");
}

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
  std::set<std::string> names;
  for (const auto& text : texts) names.insert(text.first);
  if (!folder.empty()) {
    for (std::string& file : names_in(folder)) {
      std::error_code error;
      if (fs::is_regular_file(folder / file, error)) names.insert(std::move(file));
    }
  }
  return {names.begin(), names.end()};
}

Expected<ModelFiles> find_model(std::string_view model, std::string_view revision) {
  constexpr std::string_view kHub = "hf://";
  if (model.starts_with(kHub)) {
    const auto name = parse_repo_name(model.substr(kHub.size()), revision);
    if (name) return find_in_cache(model, *name);
    return fail(ErrorCode::kInvalidArgument, "not of the form hf://org/name or hf://org/name@revision")
        .at(model);
  }
  if (model.empty()) return fail(ErrorCode::kInvalidArgument, "the model has no name");

  const fs::path path = expand_home(std::string(model));
  std::error_code error;
  if (fs::is_directory(path, error)) return ModelFiles{std::string(model), path, {}, {}};
  if (fs::exists(path, error)) return open_file(model, path);

  const bool looks_like_path =
      model.starts_with('.') || model.starts_with('/') || model.starts_with('~') || model.ends_with(".gguf");
  const auto name = parse_repo_name(model, revision);
  if (!looks_like_path && name) return find_in_cache(model, *name);
  return fail(ErrorCode::kNotFound, "no such folder or file")
      .at(model)
      .with_fix("A model is a folder, a .gguf file, or org/name from the Hugging Face cache.");
}

}  // namespace nibble
