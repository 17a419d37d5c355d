#include "nibble/evaluation/compare.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <set>

#include "nibble/base/atomic_file.h"
#include "nibble/base/cpu_target.h"
#include "nibble/base/log.h"
#include "nibble/base/machine.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"
#include "nibble/checkpoint/gguf_files.h"
#include "nibble/evaluation/candidate.h"
#include "nibble/models/auto_model.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::string now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

// "org/name" as it is; of a path the last part.
std::string short_name(const std::string& model) {
  std::error_code ignored;
  if (!fs::exists(model, ignored)) return model;
  const fs::path path = fs::weakly_canonical(model, ignored);
  return path.filename().string();
}

// All models must turn the text into the same tokens.
Status check_tokenizers(const std::vector<Candidate>& candidates) {
  std::optional<std::vector<int32_t>> expected;
  static constexpr std::string_view kProbe =
      "The quick brown fox, 1234567 times: \xC3\xA9t\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD\n  if (x) { return; }";
  for (const Candidate& candidate : candidates) {
    NIBBLE_TRY(const ModelFiles files, find_model(candidate.path));
    NIBBLE_TRY(const Tokenizer tokenizer, at(candidate.path, AutoTokenizer::from_files(files)));
    NIBBLE_TRY(Encoding encoding, tokenizer.encode(kProbe));
    if (!expected) {
      expected = std::move(encoding.ids);
    } else if (*expected != encoding.ids) {
      return fail(ErrorCode::kInvalidArgument, "another tokenizer than that of {}", candidates.front().path)
          .at(candidate.path)
          .with_fix("Only checkpoints of one base model can be compared.");
    }
  }
  return {};
}

// Types of a GGUF file's tensors that are no floats.
Expected<std::vector<std::string>> notes_on(const Candidate& reference) {
  std::vector<std::string> notes;
  NIBBLE_TRY(const ModelFiles files, find_model(reference.path));
  if (!files.gguf.empty()) {
    NIBBLE_TRY(const GgufFiles gguf, at(files.gguf.string(), open_gguf_files(files.gguf)));
    std::set<std::string> types;
    for (const auto& [name, tensor] : gguf.header.tensors) {
      const std::string_view type = ggml_type_info(tensor.type).name;
      if (!type.starts_with("F") && !type.starts_with("BF")) types.insert(std::string(type));
    }
    if (!types.empty()) {
      notes.push_back(
          fmt::format("The reference was itself rounded: it comes from a GGUF file in {}. Distances are from "
                      "that file, not "
                      "from the model that was trained.",
                      fmt::join(types, ", ")));
    }
  } else if (reference.method != "none") {
    notes.push_back(
        "The reference is itself a quantized model: distances are from it, not from the float "
        "model.");
  }
  return notes;
}

Json candidate_json(const Candidate& c, const std::vector<std::string>& excluded_because) {
  return {{"id", c.id},
          {"label", c.label},
          {"method", c.method},
          {"bits", c.bits > 0 ? Json(c.bits) : Json(nullptr)},
          {"group_size", c.group_size != 0 ? Json(c.group_size) : Json(nullptr)},
          {"path", c.path},
          {"size",
           {{"disk_bytes", c.disk_bytes},
            {"weight_bytes", c.weight_bytes},
            {"bits_per_weight", c.bits_per_weight}}},
          {"quality", to_json(c.quality)},
          {"identical_to_reference", is_identical(c.scores)},
          {"speed", summarize(c.speed)},
          {"tasks", c.tasks},
          {"layers", c.layers},
          {"damaged_linear", c.damaged_linear.empty() ? Json(nullptr) : Json(c.damaged_linear)},
          {"samples", c.samples},
          {"quantize", c.quantize},
          {"fits", excluded_because.empty()},
          {"excluded_because", excluded_because}};
}

Contender contender_of(const Candidate& c) {
  Contender out;
  out.id = c.id;
  out.label = c.label;
  out.is_reference = c.is_reference;
  out.identical = is_identical(c.scores);
  if (c.quality.divergence) {
    out.kl = c.quality.divergence->kl;
    out.top1_agreement = c.quality.divergence->top1_agreement.value;
  }
  out.disk_bytes = c.disk_bytes;
  out.bits_per_weight = c.bits_per_weight;
  const Json speed = summarize(c.speed);
  if (speed.is_object()) {
    out.peak_memory = speed["peak_memory_bytes"]["median"].get<double>();
    out.decode = speed["decode_tokens_per_second"]["median"].get<double>();
    out.prefill = speed["prefill_tokens_per_second"]["median"].get<double>();
  }
  return out;
}

std::vector<Pair> compare_pairs(const std::vector<Candidate>& candidates, double confidence) {
  std::vector<Pair> pairs;
  for (size_t a = 0; a < candidates.size(); ++a) {
    if (candidates[a].is_reference) continue;
    for (size_t b = a + 1; b < candidates.size(); ++b) {
      Pair pair;
      pair.a = a;
      pair.b = b;
      pair.test = paired_test(candidates[a].scores.kl, candidates[b].scores.kl, confidence);
      pair.finding = judge(pair.test, candidates[a].quality.divergence->kl.value,
                           candidates[b].quality.divergence->kl.value, confidence);
      pairs.push_back(pair);
    }
  }
  return pairs;
}

Json pair_json(const Pair& pair, const std::vector<Candidate>& candidates) {
  const Json difference = to_json(pair.test.difference);
  return {{"a", candidates[pair.a].id},
          {"b", candidates[pair.b].id},
          {"metric", "kl"},
          {"difference", difference["value"]},
          {"low", difference["low"]},
          {"high", difference["high"]},
          {"p_value", finite_or_null(pair.test.p_value)},
          {"verdict", finding_name(pair.finding)}};
}

Json protocol_json(const CompareOptions& options, const TextWindows& text) {
  Json json = to_json(text);
  json["compute"] = options.compute == ComputeMode::kF32 ? "f32" : "auto";
  json["confidence"] = options.confidence;
  json["blocks"] = num_blocks(text.positions);
  json["speed_rounds"] = options.speed_rounds;
  json["prompt_tokens"] = options.speed.prompt_tokens;
  json["generated_tokens"] = options.speed.generated_tokens;
  json["layer_tokens"] = options.layer_tokens;
  json["questions"] = options.questions.size();
  return json;
}

Json machine_json(const CausalLM& reference, const ThreadPool& pool) {
  const Machine machine = read_machine();
  return {{"cpu", machine.cpu_model},
          {"cores", machine.cpus_allowed.size()},
          {"threads", pool.num_threads()},
          {"memory_bytes", machine.memory_bytes},
          {"instruction_set", cpu_target_name(cpu_target())},
          {"kernels", reference.kernels()},
          {"os", machine.kernel}};
}

Json limits_json(const Limits& limits) {
  Json json = {{"prefer", preference_name(limits.prefer)}};
  if (limits.max_memory > 0) json["memory_bytes"] = limits.max_memory;
  if (limits.min_speed > 0) json["decode_tokens_per_second"] = limits.min_speed;
  if (limits.max_kl > 0) json["kl"] = limits.max_kl;
  return json;
}

}  // namespace

Expected<Json> compare(const CompareOptions& options, ThreadPool& pool) {
  NIBBLE_RETURN_IF_ERROR(create_folder(options.workdir));
  NIBBLE_TRY(std::vector<Candidate> candidates, make_candidates(options, pool));
  NIBBLE_RETURN_IF_ERROR(check_tokenizers(candidates));
  const Candidate& first = candidates.front();
  FromPretrainedOptions load;
  load.compute = options.compute;
  NIBBLE_TRY(const auto reference, AutoModelForCausalLM::from_pretrained(first.path, load, pool));
  NIBBLE_TRY(const ModelFiles reference_files, find_model(first.path));
  NIBBLE_TRY(const TextWindows text, cut_text(options.text, options.text_name, options.protocol,
                                              reference_files, reference->config()));
  NIBBLE_TRY(Json description, describe_model(first.path));
  const Yardstick yardstick = {*reference, std::move(description), text};
  for (Candidate& candidate : candidates) {
    NIBBLE_RETURN_IF_ERROR(measure_candidate(options, yardstick, candidate, pool));
  }
  if (options.speed_rounds > 0) {
    NIBBLE_RETURN_IF_ERROR(measure_speeds(options, candidates, pool));
  }

  std::vector<Contender> contenders;
  for (const Candidate& candidate : candidates) contenders.push_back(contender_of(candidate));
  const std::vector<Pair> pairs = compare_pairs(candidates, options.confidence);
  const Verdict verdict = decide(contenders, pairs, options.limits);
  NIBBLE_TRY(const std::vector<std::string> notes, notes_on(first));

  Json report = {{"schema", "nibble.compare/1"},
                 {"created", now()},
                 {"nibble", NIBBLE_VERSION},
                 {"command", options.command},
                 {"model",
                  {{"name", short_name(options.models.front())},
                   {"path", options.models.front()},
                   {"architecture", reference->config().model_type},
                   {"parameters", reference->num_parameters()},
                   {"notes", notes}}}};
  report["machine"] = machine_json(*reference, pool);
  report["limits"] = limits_json(options.limits);
  report["protocol"] = protocol_json(options, text);
  report["reference"] = first.id;
  report["candidates"] = Json::array();
  for (size_t i = 0; i < candidates.size(); ++i) {
    report["candidates"].push_back(candidate_json(candidates[i], verdict.excluded_because[i]));
  }
  report["pairs"] = Json::array();
  for (const Pair& pair : pairs) report["pairs"].push_back(pair_json(pair, candidates));
  report["verdict"] = to_json(verdict, contenders);
  return report;
}

}  // namespace nibble
