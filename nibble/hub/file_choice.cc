#include "nibble/hub/file_choice.h"

#include <algorithm>
#include <set>

#include <fnmatch.h>

#include "nibble/base/text.h"
#include "nibble/checkpoint/gguf_files.h"

namespace nibble {
namespace {

const std::vector<std::string> kNeeded = {"*.safetensors", "*.json",    "*.jinja",    "*.model",
                                          "merges.txt",    "vocab.txt", "tokenizer*", "config*"};
const std::vector<std::string> kPickle = {"*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle"};
// Indexes of pickle weights, and folders of templates.
const std::vector<std::string> kNotNeeded = {"*.bin.index.json"};
const std::vector<std::string> kNeededBelow = {"additional_chat_templates/*.jinja"};

using Files = std::vector<RemoteFile>;

bool is_at_top(const RemoteFile& file) { return file.path.find('/') == std::string::npos; }

std::vector<std::string> paths_of(const Files& files) {
  std::vector<std::string> paths;
  for (const RemoteFile& file : files) paths.push_back(file.path);
  return paths;
}

// The parts that belong to those that were chosen, in the order of the repository.
Files with_all_parts(const Files& files, const Files& chosen) {
  std::set<std::string_view> paths;
  std::set<std::pair<std::string_view, uint64_t>> splits;  // stem, number of parts
  for (const RemoteFile& file : chosen) {
    paths.insert(file.path);
    if (const auto part = parse_gguf_part_name(file.path)) splits.emplace(part->stem, part->count);
  }
  Files all;
  for (const RemoteFile& file : files) {
    const auto part = parse_gguf_part_name(file.path);
    const bool belongs = part && splits.contains({part->stem, part->count});
    if (belongs || paths.contains(file.path)) all.push_back(file);
  }
  return all;
}

void add_file(const Files& files, std::string_view path, FileChoice& choice) {
  for (const RemoteFile& file : files) {
    if (file.path == path) choice.files.push_back(file);
  }
}

Expected<FileChoice> choose_needed(const Files& files) {
  FileChoice choice;
  std::vector<std::string> pickles;
  std::vector<std::string> ggufs;
  std::vector<std::string> ggufs_below;
  std::vector<std::string> originals;
  std::vector<std::string> safetensors;
  for (const RemoteFile& file : files) {
    if (is_at_top(file) && file.path.ends_with(".safetensors")) safetensors.push_back(file.path);
  }
  const auto is_original = [](const std::string& path) { return path.starts_with("consolidated"); };
  const bool has_others = !std::all_of(safetensors.begin(), safetensors.end(), is_original);
  for (const RemoteFile& file : files) {
    const std::string& path = file.path;
    if (!is_at_top(file)) {
      if (matches(path, kNeededBelow)) choice.files.push_back(file);
      if (path.ends_with(".gguf")) ggufs_below.push_back(path);
    } else if (matches(path, kPickle)) {
      pickles.push_back(path);
    } else if (path.ends_with(".gguf")) {
      ggufs.push_back(path);
    } else if (path.ends_with(".safetensors") && is_original(path) && has_others) {
      originals.push_back(path);
    } else if (matches(path, kNeeded) && !matches(path, kNotNeeded)) {
      choice.files.push_back(file);
    }
  }
  ggufs = gguf_models(ggufs);
  ggufs_below = gguf_models(ggufs_below);
  if (safetensors.empty()) {
    if (ggufs.empty() && !ggufs_below.empty()) {
      return fail(ErrorCode::kInvalidArgument, "the GGUF files are in subfolders: {}", some_of(ggufs_below))
          .with_fix(
              fmt::format("Name one by a word of its name, for example MODEL:{}", gguf_word(ggufs_below)));
    }
    if (ggufs.empty() && !pickles.empty()) {
      return fail(ErrorCode::kUnsupported,
                  "the weights are pickle files ({}), which can run code when they are read",
                  some_of(pickles))
          .with_fix("Look for a model with .safetensors files; --include '*' fetches these all the same.");
    }
    if (!ggufs.empty()) {
      NIBBLE_TRY(const std::string gguf, choose_gguf(ggufs, {}));
      add_file(files, gguf, choice);
    }
  } else if (!ggufs.empty()) {
    choice.notes.push_back(fmt::format("left out, as there are safetensors: {}", some_of(ggufs)));
  }
  if (!pickles.empty()) {
    choice.notes.push_back(
        fmt::format("left out, as pickle files can run code when they are read: {}", some_of(pickles)));
  }
  if (!originals.empty()) {
    choice.notes.push_back(
        fmt::format("left out, as they hold the same weights again: {}", some_of(originals)));
  }
  return choice;
}

}  // namespace

bool matches(std::string_view path, const std::vector<std::string>& patterns) {
  const std::string text(path);
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    const std::string whole = pattern.ends_with('/') ? pattern + "*" : pattern;
    return ::fnmatch(whole.c_str(), text.c_str(), FNM_NOESCAPE) == 0;
  });
}

Expected<FileChoice> choose_files(const Files& files, const std::vector<std::string>& include,
                                  const std::vector<std::string>& exclude, std::string_view quant) {
  Files kept = files;
  std::erase_if(kept, [&](const RemoteFile& file) { return matches(file.path, exclude); });
  FileChoice choice;
  if (!quant.empty()) {
    NIBBLE_TRY(const std::string gguf, choose_gguf(gguf_models(paths_of(kept)), quant));
    add_file(kept, gguf, choice);
  } else if (include.empty()) {
    NIBBLE_TRY(choice, choose_needed(kept));
  }
  for (const RemoteFile& file : kept) {
    if (matches(file.path, include)) choice.files.push_back(file);
  }
  choice.files = with_all_parts(kept, choice.files);
  if (!choice.files.empty()) return choice;
  const std::vector<std::string> names = paths_of(files);
  return fail(ErrorCode::kNotFound, "no file is left of {}{}", names.size(),
              names.empty() ? "" : ": " + some_of(names))
      .with_fix("--include GLOB names files; quote it, so that the shell leaves it alone.");
}

}  // namespace nibble
