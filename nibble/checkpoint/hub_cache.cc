#include "nibble/checkpoint/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <system_error>

#include <fmt/ranges.h>

#include "nibble/base/mapped_file.h"
#include "nibble/base/text.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHubPrefixes[] = {"hf://", "https://huggingface.co/", "https://hf.co/",
                                             "huggingface.co/", "hf.co/"};

bool are_safe_parts(std::string_view text) {
  const auto parts = split_at_slashes(text);
  return std::all_of(parts.begin(), parts.end(), is_safe_part);
}

}  // namespace

std::optional<RepoName> parse_repo_name(std::string_view model, std::string_view revision) {
  for (const std::string_view prefix : kHubPrefixes) {
    if (!model.starts_with(prefix)) continue;
    model.remove_prefix(prefix.size());
    break;
  }
  std::string_view quant;
  if (const size_t colon = model.find(':'); colon != model.npos) {
    quant = model.substr(colon + 1);
    model = model.substr(0, colon);
    if (!is_safe_part(quant)) return std::nullopt;
  }
  const size_t mark = model.find('@');
  const std::string_view repo = model.substr(0, mark);
  if (mark != model.npos) revision = model.substr(mark + 1);
  if (revision.empty()) revision = "main";
  if (!are_safe_parts(repo) || split_at_slashes(repo).size() > 2) return std::nullopt;
  if (!are_safe_parts(revision)) return std::nullopt;
  return RepoName{std::string(repo), std::string(revision), std::string(quant)};
}

std::string to_string(const RepoName& name) {
  std::string text = name.repo;
  if (name.revision != "main") text += "@" + name.revision;
  if (!name.quant.empty()) text += ":" + name.quant;
  return text;
}

std::optional<std::string> environment(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

fs::path expand_home(const std::string& path) {
  if (path != "~" && !path.starts_with("~/")) return path;
  return fs::path(environment("HOME").value_or("/")) / path.substr(std::min<size_t>(path.size(), 2));
}

fs::path hub_home() {
  if (const auto value = environment("HF_HOME")) return expand_home(*value);
  if (const auto value = environment("XDG_CACHE_HOME")) return expand_home(*value) / "huggingface";
  return expand_home("~/.cache/huggingface");
}

fs::path hub_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const auto value = environment(name)) return expand_home(*value);
  }
  return hub_home() / "hub";
}

bool is_hub_offline() {
  const std::string value = upper_case(environment("HF_HUB_OFFLINE").value_or(""));
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

std::string repo_folder_name(std::string_view repo) {
  return fmt::format("models--{}", fmt::join(split_at_slashes(repo), "--"));
}

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
namespace {

bool leads_into(const fs::path& path, const fs::path& canonical_folder) {
  std::error_code error;
  const fs::path target = fs::weakly_canonical(path, error).lexically_relative(canonical_folder);
  return !error && !target.empty() && *target.begin() != "..";
}

// The files of a snapshot are links to ../../blobs. One that leads out of the repository's folder was put
// there by somebody else, and would be read, and copied, as if the model had it.
Expected<fs::path> check_links(const fs::path& repo_folder, fs::path snapshot) {
  std::error_code error;
  const fs::path inside = fs::canonical(repo_folder, error);
  std::vector<fs::path> links = {snapshot};
  for (fs::recursive_directory_iterator entry(snapshot, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_symlink(error)) links.push_back(entry->path());
  }
  for (const fs::path& link : links) {
    if (!error && leads_into(link, inside)) continue;
    return fail(ErrorCode::kDataLoss, "a link that leads out of the cache's folder of this model")
        .at(link.string())
        .with_fix("Remove the link, and run nibble pull again.");
  }
  return snapshot;
}

}  // namespace

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
    if (is_folder(snapshots / commit)) return check_links(repo_folder, snapshots / commit);
    return fail(ErrorCode::kNotFound, "{} names commit {}, of which there are no files", name.revision,
                commit)
        .at(repo_folder.string());
  }
  if (name.revision.find('/') == std::string::npos && is_folder(snapshots / name.revision)) {
    return check_links(repo_folder, snapshots / name.revision);
  }
  const auto known = names_in(repo_folder / "refs");
  return fail(ErrorCode::kNotFound, "the cache has no revision {}{}", name.revision,
              known.empty() ? "" : fmt::format("; it has {}", fmt::join(known, ", ")))
      .at(repo_folder.string());
}

}  // namespace nibble
