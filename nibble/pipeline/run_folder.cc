#include "nibble/pipeline/run_folder.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/safetensors.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRowKey = "row";
constexpr std::string_view kEntrySuffix = ".safetensors";
constexpr std::string_view kSnapshotPrefix = "stream-";
constexpr std::string_view kStartAnew =
    "Run the earlier command again to finish it, name another folder, or start anew with --overwrite.";

Failure folder_failure(const fs::path& path, std::string_view doing, const std::error_code& error) {
  return fail(ErrorCode::kUnavailable, "cannot {}: {}", doing, error.message()).at(path.string());
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    paths.push_back(entry->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// What AtomicFile leaves behind when its process is killed: NAME.tmp.XXXXXX.
bool is_torso(const fs::path& path) {
  constexpr std::string_view kMark = ".tmp.";
  const std::string name = path.filename().string();
  const size_t mark = name.rfind(kMark);
  return mark != std::string::npos && name.size() == mark + kMark.size() + 6;
}

void remove_torsos(const fs::path& folder) {
  std::error_code ignored;  // they only take up space
  for (const fs::path& path : entries_of(folder)) {
    if (is_torso(path)) fs::remove(path, ignored);
  }
}

// Nothing is in it but, maybe, a journal that was not begun yet.
bool is_blank(const fs::path& folder) {
  const std::vector<fs::path> paths = entries_of(folder);
  return paths.empty() || (paths.size() == 1 && paths.front().filename() == ".nibble");
}

Expected<Json> read_json(const fs::path& path) {
  NIBBLE_TRY(const std::string text, read_text_file(path));
  return at(path.string(), parse_json(text));
}

void collect_differences(const std::string& path, const Json& was, const Json& is,
                         std::vector<std::string>& lines) {
  if (was == is) return;
  if (!was.is_object() || !is.is_object()) {
    const auto shown = [](const Json& value) {
      return value.is_null() ? std::string("nothing") : dump_json(value, -1);
    };
    lines.push_back(fmt::format("{}: {} was, {} is asked for", path, shown(was), shown(is)));
    return;
  }
  const auto step = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
  for (const auto& [key, value] : was.items()) {
    collect_differences(step(key), value, is.contains(key) ? is[key] : Json(), lines);
  }
  for (const auto& [key, value] : is.items()) {
    if (!was.contains(key)) collect_differences(step(key), Json(), value, lines);
  }
}

std::optional<size_t> layer_of(const fs::path& snapshot) {
  const std::string name = snapshot.filename().string();
  if (!name.starts_with(kSnapshotPrefix)) return std::nullopt;
  size_t layer = 0;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kSnapshotPrefix.size(), end, layer);
  if (error != std::errc() || stop != end) return std::nullopt;
  return layer;
}

}  // namespace

std::vector<std::string> differences(const Json& was, const Json& is) {
  std::vector<std::string> lines;
  collect_differences({}, was, is, lines);
  return lines;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)),
      entries_(std::move(other.entries_)),
      created_(std::exchange(other.created_, false)),
      finished_(other.finished_) {}

RunFolder::~RunFolder() {
  if (!created_ || !entries_.empty()) return;
  std::error_code ignored;  // there is an earlier error to report
  fs::remove_all(path_, ignored);
}

fs::path RunFolder::file_of(const std::string& name) const {
  return journal() / "modules" / (name + std::string(kEntrySuffix));
}

Expected<RunFolder> RunFolder::open(const fs::path& folder, const Json& run, bool overwrite) {
  RunFolder result(folder);
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    return fail(ErrorCode::kInvalidArgument, "is a file, but -o wants a folder here")
        .at(folder.string())
        .with_fix("Name a folder that does not exist yet.");
  }
  result.created_ = !fs::exists(status);
  if (fs::exists(result.journal() / "run.json")) {
    NIBBLE_TRY(const Json was, read_json(result.journal() / "run.json"));
    NIBBLE_RETURN_IF_ERROR(result.take_up(run, was, overwrite));
    return result;
  }
  const bool empty = result.created_ || is_blank(folder);
  if (!empty && !overwrite) {
    const fs::path manifest = folder / kManifestFile;
    if (!fs::exists(manifest) || !fs::exists(folder / "config.json")) {
      return fail(ErrorCode::kInvalidArgument, "the folder exists already and is not empty")
          .at(folder.string())
          .with_fix("Name another folder with -o, or write into this one with --overwrite.");
    }
    NIBBLE_TRY(const Json was, read_json(manifest));
    const std::vector<std::string> lines = differences(was.value("run", Json()), run);
    if (lines.empty()) {
      result.finished_ = true;
      return result;
    }
    return fail(ErrorCode::kInvalidArgument, "a model of another run stands here:\n  {}",
                fmt::join(lines, "\n  "))
        .at(folder.string())
        .with_fix("Name another folder with -o, or replace it with --overwrite.");
  }
  NIBBLE_RETURN_IF_ERROR(result.start(run));
  return result;
}

Status RunFolder::start(const Json& run) {
  // What a run left that was killed while its journal was being removed belongs to that run.
  std::error_code error;
  fs::remove_all(journal(), error);
  if (error) {
    return folder_failure(journal(), "remove an earlier run's journal", error)
        .with_fix("Name another folder with -o.");
  }
  if (const Status made = create_folder(journal() / "modules"); !made) {
    return Failure(made.error()).with_fix("Name another folder with -o.");
  }
  return write_file(journal() / "run.json", dump_json(run) + "\n");
}

Status RunFolder::take_up(const Json& run, const Json& was, bool overwrite) {
  const std::vector<std::string> lines = differences(was, run);
  if (!lines.empty() && !overwrite) {
    return fail(ErrorCode::kInvalidArgument, "an unfinished run of another kind is in this folder:\n  {}",
                fmt::join(lines, "\n  "))
        .at(path_.string())
        .with_fix(kStartAnew);
  }
  remove_torsos(path_);
  if (!lines.empty()) return start(run);
  remove_torsos(journal());
  remove_torsos(journal() / "modules");
  // A snapshot that was being written when the process was killed has no number yet.
  for (const fs::path& path : entries_of(journal())) {
    std::error_code error;
    if (path.filename() == "stream.new") fs::remove_all(path, error);
  }
  NIBBLE_RETURN_IF_ERROR(create_folder(journal() / "modules"));
  for (const fs::path& path : entries_of(journal() / "modules")) {
    if (path.extension() == kEntrySuffix) entries_.emplace(path.stem().string(), path);
  }
  return {};
}

Expected<JournalEntry> RunFolder::get(const std::string& name) const {
  const fs::path& path = entries_.at(name);
  NIBBLE_TRY(const SafetensorsFile file, at(path.string(), SafetensorsFile::open(path)));
  JournalEntry entry;
  for (const auto& [tensor, info] : file.header().tensors) {
    NIBBLE_TRY(entry.tensors[tensor], file.tensor(tensor));
  }
  const auto row = file.header().metadata.find(std::string(kRowKey));
  if (row != file.header().metadata.end()) {
    NIBBLE_TRY(entry.row, at(path.string(), parse_json(row->second)));
  }
  return entry;
}

Status RunFolder::put(const std::string& name, const JournalEntry& entry) {
  const fs::path path = file_of(name);
  NIBBLE_RETURN_IF_ERROR(
      write_safetensors(path, entry.tensors, {{std::string(kRowKey), dump_json(entry.row, -1)}}));
  entries_.emplace(name, path);
  return {};
}

Expected<std::map<std::string, TensorInfo>> RunFolder::tensors_of(const std::string& name) const {
  const fs::path& path = entries_.at(name);
  NIBBLE_TRY(const SafetensorsFile file, at(path.string(), SafetensorsFile::open(path)));
  std::map<std::string, TensorInfo> infos;
  for (const auto& [tensor, entry] : file.header().tensors) infos.emplace(tensor, entry.info);
  return infos;
}

std::vector<std::string> RunFolder::names() const {
  std::vector<std::string> names;
  for (const auto& entry : entries_) names.push_back(entry.first);
  return names;
}

std::optional<RunFolder::Snapshot> RunFolder::snapshot() const {
  std::optional<Snapshot> newest;
  for (const fs::path& path : entries_of(journal())) {
    const std::optional<size_t> layer = layer_of(path);
    if (layer && (!newest || *layer > newest->layer)) newest = Snapshot{*layer, path};
  }
  return newest;
}

Expected<fs::path> RunFolder::begin_snapshot() {
  const fs::path folder = journal() / "stream.new";
  std::error_code error;
  fs::remove_all(folder, error);
  NIBBLE_RETURN_IF_ERROR(create_folder(folder));
  return folder;
}

Status RunFolder::end_snapshot(const fs::path& folder, size_t layer) {
  const fs::path name = journal() / fmt::format("{}{}", kSnapshotPrefix, layer);
  std::error_code error;
  if (fs::exists(name)) return {};  // the same bytes, by determinism
  fs::rename(folder, name, error);
  if (error) return folder_failure(folder, "keep the activations", error);
  for (const fs::path& path : entries_of(journal())) {
    const std::optional<size_t> other = layer_of(path);
    if (other && *other < layer) fs::remove_all(path, error);
  }
  return {};
}

Status RunFolder::finish() {
  std::error_code error;
  fs::remove_all(journal(), error);
  if (error) return folder_failure(journal(), "remove the journal", error);
  created_ = false;
  return {};
}

}  // namespace nibble
