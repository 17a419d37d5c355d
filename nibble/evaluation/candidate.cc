#include "nibble/evaluation/candidate.h"

#include <algorithm>
#include <set>

#include "nibble/base/atomic_file.h"
#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"
#include "nibble/base/text.h"
#include "nibble/models/inspect_model.h"
#include "nibble/pipeline/quantize.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// "nf4-dq" for what is "bitsandbytes nf4" on disk, and so on.
std::string label_of(const ModelSummary& summary) {
  const WeightLayout& layout = summary.layout;
  if (summary.method == "none") return "float";
  std::string label = summary.method == "bitsandbytes" ? layout.format : summary.method;
  if (label.starts_with("bitsandbytes ")) label.erase(0, std::string_view("bitsandbytes ").size());
  label = upper_case(label);
  if (summary.method == "bitsandbytes") return label;
  label += fmt::format(" {}-bit", layout.bits);
  return label + (layout.group_size > 0 ? fmt::format(" g{}", layout.group_size) : " per row");
}

Status describe(Candidate& candidate) {
  NIBBLE_TRY(const ModelFiles files, find_model(candidate.path));
  NIBBLE_TRY(const ModelSummary summary, at(candidate.path, inspect_model(files)));
  if (!summary.supported) {
    return fail(ErrorCode::kUnsupported, "Nibble does not run {}", summary.architecture).at(candidate.path);
  }
  candidate.disk_bytes = bytes_on_disk(files);
  candidate.parameters = summary.parameters;
  candidate.bits_per_weight =
      8.0 * static_cast<double>(summary.bytes.total()) / static_cast<double>(summary.parameters);
  candidate.method = summary.method;
  candidate.bits = summary.layout.bits;
  candidate.group_size = summary.layout.group_size;
  if (!files.gguf.empty()) {
    candidate.method = "gguf";
    candidate.bits_per_weight =
        8.0 * static_cast<double>(candidate.disk_bytes) / static_cast<double>(summary.parameters);
  }
  if (candidate.label.empty()) candidate.label = label_of(summary);
  return {};
}

// Fit for a file name, and not taken yet.
std::string free_id(std::string_view path, const std::set<std::string>& taken) {
  std::string id = last_name(path);
  for (char& c : id) {
    const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '.' || c == '-' || c == '_';
    if (!fine) c = '-';
  }
  if (id.empty() || id.front() == '.') id.insert(0, "model");
  std::string unique = id;
  for (int i = 2; taken.contains(unique); ++i) unique = fmt::format("{}-{}", id, i);
  return unique;
}

// A finished model of these very settings is taken as it is, an unfinished one goes on; one of other settings
// is replaced, since the folder is the comparison's own.
Expected<QuantizeResult> make_or_find(const ModelFiles& files, const fs::path& folder,
                                      QuantizeOptions request, ThreadPool& pool) {
  auto result = quantize_model(files, folder, request, pool);
  if (result || result.error().code != ErrorCode::kInvalidArgument) return result;
  request.overwrite = true;
  return quantize_model(files, folder, request, pool);
}

// Makes the model of `method` in workdir, or finds it there.
Expected<Candidate> quantized_candidate(const CompareOptions& options, const Method& method,
                                        const ModelFiles& files, ThreadPool& pool) {
  const fs::path folder = options.workdir / "models" / method.id;
  QuantizeOptions request = method.options;
  request.dataset = options.dataset;
  request.data = options.data;
  request.check = false;  // the comparison is the check
  request.show_progress = options.show_progress;
  Candidate candidate;
  candidate.id = method.id;
  candidate.label = method.label;
  candidate.path = folder.string();
  if (options.show_progress) log_line(LogLevel::kNormal, method.label + ":");
  NIBBLE_TRY(const QuantizeResult result, at(method.label, make_or_find(files, folder, request, pool)));
  for (const std::string& warning : result.warnings) warn_once(warning);
  const fs::path record = options.workdir / "models" / (method.id + ".json");
  if (result.was_finished) {
    NIBBLE_TRY(candidate.quantize, read_record(record));
  } else {
    candidate.quantize = {{"seconds", result.seconds},
                          {"command", fmt::format("nibble quantize {} -o {} {}", options.models.front(),
                                                  folder.string(), method.command)}};
    NIBBLE_RETURN_IF_ERROR(write_file(record, dump_json(candidate.quantize) + "\n"));
  }
  NIBBLE_RETURN_IF_ERROR(describe(candidate));
  candidate.method = method.name;
  // The group size may have been chosen to fit the model.
  if (method.options.fit_group_size) {
    candidate.label += candidate.group_size > 0 ? fmt::format(" g{}", candidate.group_size) : " per row";
  }
  return candidate;
}

Expected<std::vector<Candidate>> candidates_by_method(const CompareOptions& options, ThreadPool& pool) {
  const std::string& model = options.models.front();
  NIBBLE_TRY(const ModelFiles files, find_model(model));
  Candidate reference;
  reference.id = "float";
  reference.path = model;
  reference.is_reference = true;
  NIBBLE_RETURN_IF_ERROR(describe(reference));
  if (reference.method != "none" && reference.method != "gguf") {
    return fail(ErrorCode::kInvalidArgument, "the model is quantized already ({})", reference.label)
        .at(model)
        .with_fix("Name its float model first: nibble compare FLOAT " + model +
                  ". For this model alone: nibble eval.");
  }
  reference.label = "float";
  std::vector<Candidate> candidates = {std::move(reference)};
  for (const Method& method : options.methods) {
    if (!method.quantizes) continue;
    NIBBLE_TRY(Candidate candidate, quantized_candidate(options, method, files, pool));
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

Expected<std::vector<Candidate>> candidates_as_they_are(const CompareOptions& options) {
  std::vector<Candidate> candidates;
  std::set<std::string> ids;
  for (const std::string& model : options.models) {
    Candidate candidate;
    candidate.id = free_id(model, ids);
    ids.insert(candidate.id);
    candidate.path = model;
    NIBBLE_RETURN_IF_ERROR(describe(candidate));
    candidate.label = candidate.id;
    candidates.push_back(std::move(candidate));
  }
  auto reference = candidates.begin();
  if (!options.reference.empty()) {
    reference = std::find_if(candidates.begin(), candidates.end(),
                             [&](const Candidate& c) { return c.path == options.reference; });
    if (reference == candidates.end()) {
      return fail(ErrorCode::kInvalidArgument, "\"{}\" is none of the models", options.reference)
          .at("--reference")
          .with_fix("Name it as it is named among the models.");
    }
  } else {
    const auto is_float = [](const Candidate& c) { return c.method == "none"; };
    reference = std::find_if(candidates.begin(), candidates.end(), is_float);
    if (reference == candidates.end()) reference = candidates.begin();
  }
  reference->is_reference = true;
  std::rotate(candidates.begin(), reference, reference + 1);
  return candidates;
}

}  // namespace

Expected<Json> describe_model(const std::string& path) {
  NIBBLE_TRY(const ModelFiles files, find_model(path));
  NIBBLE_TRY(const std::string config, files.read_required("config.json"));
  Json json = {{"config_sha256", sha256(config)}, {"files", Json::object()}};
  for (const fs::path& file : weight_files(files)) {
    json["files"][file.filename().string()] = file_state(file);
  }
  return json;
}

Expected<Json> read_record(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return Json(nullptr);
  NIBBLE_TRY(const std::string text, read_text_file(file));
  return at(file.string(), parse_json(text));
}

Expected<std::vector<Candidate>> make_candidates(const CompareOptions& options, ThreadPool& pool) {
  if (options.models.size() == 1) return candidates_by_method(options, pool);
  return candidates_as_they_are(options);
}

}  // namespace nibble
