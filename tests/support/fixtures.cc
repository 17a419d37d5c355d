#include "tests/support/fixtures.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <system_error>

#include <fmt/format.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/check.h"
#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCutWeights = "model.safetensors.cut";
constexpr const char* kCutNote = "cut.json";
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kTokenizerFiles[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"};

std::vector<std::string> folder_names(const fs::path& parent) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// File name -> where it comes from.
std::map<std::string, fs::path> files_of(std::string_view name, const ModelFolderOptions& options) {
  std::map<std::string, fs::path> files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(data_folder() / "models" / name, error)) {
    files[entry.path().filename().string()] = entry.path();
  }
  if (!files.empty() && options.with_tokenizer && !files.contains("tokenizer.json")) {
    for (const char* file : kTokenizerFiles) files[file] = data_folder() / "models/tiny-llama" / file;
  }
  return files;
}

// Changes whenever a file does that the folder is made from; the weights speak through cut.json.
Expected<std::string> fingerprint(const std::map<std::string, fs::path>& files) {
  std::string all;
  for (const auto& [name, path] : files) {
    if (name == kCutWeights || name == kWeights) continue;
    NIBBLE_TRY(const std::string text, read_text_file(path));
    all += fmt::format("{} {}\n", name, sha256(text));
  }
  return sha256(all).substr(0, 12);
}

// The original file: the cut one, with the embedding put back where cut.json says.
Status write_weights(const std::map<std::string, fs::path>& files, const fs::path& target) {
  NIBBLE_TRY(const std::string note_text, read_text_file(files.at(kCutNote)));
  NIBBLE_TRY(const Json note, parse_json(note_text));
  NIBBLE_TRY(const std::string cut, read_text_file(files.at(kCutWeights)));
  NIBBLE_TRY(const std::string embedding, read_text_file(data_folder() / "embedding.bin"));
  const size_t offset = note.at("offset").get<size_t>();
  const std::string expected = note.at("sha256").get<std::string>();
  if (offset > cut.size())
    return fail(ErrorCode::kDataLoss, "offset {} is behind the end", offset).at(kCutNote);

  const std::string whole = cut.substr(0, offset) + embedding + cut.substr(offset);
  if (const std::string found = sha256(whole); found != expected) {
    return fail(ErrorCode::kDataLoss, "SHA-256 {}, but the original has {}", found, expected)
        .at(files.at(kCutWeights).string())
        .with_fix("Check out tests/data again.");
  }
  return write_file(target, whole);
}

Status fill_folder(const std::map<std::string, fs::path>& files, const fs::path& target) {
  for (const auto& [name, path] : files) {
    if (name == kCutNote) continue;
    if (name == kCutWeights) {
      NIBBLE_RETURN_IF_ERROR(write_weights(files, target / kWeights));
      continue;
    }
    NIBBLE_TRY(const std::string text, read_text_file(path));
    NIBBLE_RETURN_IF_ERROR(write_file(target / name, text));
  }
  return {};
}

Expected<fs::path> make_temporary_folder(const fs::path& parent) {
  NIBBLE_RETURN_IF_ERROR(create_folder(parent));
  std::string name = (parent / "making-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) {
    return fail(ErrorCode::kUnavailable, "cannot create a folder").at(parent.string());
  }
  return fs::path(name);
}

}  // namespace

fs::path data_folder() { return NIBBLE_TEST_DATA; }

std::vector<std::string> model_names() { return folder_names(data_folder() / "models"); }
std::vector<std::string> architecture_names() { return folder_names(data_folder() / "architectures"); }
std::vector<std::string> other_quantizer_names() { return folder_names(data_folder() / "other_quantizers"); }

Expected<fs::path> model_folder(std::string_view name, const ModelFolderOptions& options) {
  const std::map<std::string, fs::path> files = files_of(name, options);
  if (files.empty()) return fail(ErrorCode::kNotFound, "no model {} in tests/data/models", name);
  NIBBLE_TRY(const std::string print, fingerprint(files));
  const fs::path cache = NIBBLE_TEST_CACHE;
  const fs::path folder = cache / fmt::format("{}.{}", name, print);
  if (fs::exists(folder)) return folder;

  NIBBLE_TRY(const fs::path making, make_temporary_folder(cache));
  const Status filled = fill_folder(files, making);
  std::error_code error;
  if (filled) fs::rename(making, folder, error);
  // Another process was faster, or something went wrong.
  if (!filled || error) {
    std::error_code ignored;
    fs::remove_all(making, ignored);
  }
  if (!filled) return Failure(filled.error());
  if (error && !fs::exists(folder)) {
    return fail(ErrorCode::kUnavailable, "cannot rename: {}", error.message()).at(folder.string());
  }
  return folder;
}

TemporaryFolder::TemporaryFolder() {
  auto made = make_temporary_folder(fs::temp_directory_path());
  NIBBLE_CHECK(made.has_value());
  path_ = *std::move(made);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace nibble::test
