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

std::vector<std::string> paths_of(const Files& files, std::string_view suffix) {
  std::vector<std::string> paths;
  for (const RemoteFile& file : files) {
    if (file.path.ends_with(suffix) && is_at_top(file)) paths.push_back(file.path);
  }
  return paths;
}

// The parts that belong to those that were chosen, in the order of the repository.
Files with_all_parts(const Files& files, const Files& chosen, const std::vector<std::string>& exclude) {
  std::set<std::string_view> paths;
  std::set<std::pair<std::string_view, uint64_t>> splits;  // stem, number of parts
  for (const RemoteFile& file : chosen) {
    paths.insert(file.path);
    if (const auto part = parse_gguf_part_name(file.path)) splits.emplace(part->stem, part->count);
  }
  Files all;
  for (const RemoteFile& file : files) {
    const auto part = parse_gguf_part_name(file.path);
    const bool belongs = part && splits.contains({part->stem, part->count}) && !matches(file.path, exclude);
    if (belongs || paths.contains(file.path)) all.push_back(file);
  }
  return all;
}

void add_file(const Files& files, std::string_view path, FileChoice& choice) {
  for (const RemoteFile& file : files) {
    if (file.path == path) choice.files.push_back(file);
  }
}

Expected<FileChoice> choose_needed(const Files& files, const std::vector<std::string>& exclude) {
  FileChoice choice;
  std::vector<std::string> pickles;
  std::vector<std::string> ggufs;
  std::vector<std::string> originals;
  const auto safetensors = paths_of(files, ".safetensors");
  const auto is_original = [](const std::string& path) { return path.starts_with("consolidated"); };
  const bool has_others = !std::all_of(safetensors.begin(), safetensors.end(), is_original);
  for (const RemoteFile& file : files) {
    const std::string& path = file.path;
    if (matches(path, exclude)) continue;
    if (!is_at_top(file)) {
      if (matches(path, kNeededBelow)) choice.files.push_back(file);
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
  if (safetensors.empty()) {
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
  FileChoice choice;
  if (!quant.empty()) {
    std::vector<std::string> ggufs = paths_of(files, ".gguf");
    std::erase_if(ggufs, [&](const std::string& path) { return matches(path, exclude); });
    NIBBLE_TRY(const std::string gguf, choose_gguf(gguf_models(ggufs), quant));
    add_file(files, gguf, choice);
  } else if (include.empty()) {
    NIBBLE_TRY(choice, choose_needed(files, exclude));
  }
  for (const RemoteFile& file : files) {
    if (matches(file.path, include) && !matches(file.path, exclude)) choice.files.push_back(file);
  }
  choice.files = with_all_parts(files, choice.files, exclude);
  if (!choice.files.empty()) return choice;
  std::vector<std::string> names;
  for (const RemoteFile& file : files) names.push_back(file.path);
  return fail(ErrorCode::kNotFound, "no file is left of {}{}", names.size(),
              names.empty() ? "" : ": " + some_of(names))
      .with_fix("--include GLOB names files; quote it, so that the shell leaves it alone.");
}

}  // namespace nibble
