#include <algorithm>
#include <cmath>
#include <memory>

#include "nibble/base/arena.h"
#include "nibble/base/atomic_file.h"
#include "nibble/base/cpu_target.h"
#include "nibble/base/log.h"
#include "nibble/base/progress.h"
#include "nibble/base/sha256.h"
#include "nibble/evaluation/candidate.h"
#include "nibble/evaluation/layer_comparison.h"
#include "nibble/generation/generate.h"
#include "nibble/models/auto_model.h"
#include "nibble/nn/kv_cache.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

Json text_record(const TextWindows& text) {
  Json json = to_json(text);
  json.erase("text");  // another name of the same text changes nothing
  return json;
}

// What the scores depend on.
Expected<Json> description_of(const CompareOptions& options, const Yardstick& yardstick,
                              const Candidate& candidate) {
  Json json = {{"nibble", NIBBLE_VERSION},
               {"cpu", cpu_target_name(cpu_target())},
               {"text", text_record(yardstick.text)},
               {"compute", options.compute == ComputeMode::kF32 ? "f32" : "auto"},
               {"reference", yardstick.description}};
  NIBBLE_TRY(json["model"], describe_model(candidate.path));
  return json;
}

Json extras_description(const CompareOptions& options) {
  Json questions = Json::array();
  for (const Question& question : options.questions) {
    questions.push_back({question.prompt, question.choices, question.answer});
  }
  return {{"questions", sha256(dump_json(questions))},
          {"prompts", options.prompts},
          {"sample_tokens", options.sample_tokens},
          {"layer_tokens", options.layer_tokens}};
}

Expected<std::string> sample_answer(const CausalLM& model, const Tokenizer& tokenizer,
                                    const std::string& prompt, size_t new_tokens, ThreadPool& pool) {
  std::vector<int32_t> tokens;
  if (tokenizer.has_chat_template()) {
    const Json messages = Json::array({{{"role", "user"}, {"content", prompt}}});
    NIBBLE_TRY(tokens, tokenizer.encode_chat(messages));
  } else {
    NIBBLE_TRY(Encoding encoding, tokenizer.encode(prompt));
    tokens = std::move(encoding.ids);
  }
  GenerationConfig greedy;
  greedy.max_new_tokens = new_tokens;
  greedy.eos_token_id = model.generation_config().eos_token_id;
  const auto cache = model.make_cache(tokens.size() + new_tokens);
  Arena arena;
  ExecutionContext context{pool, arena};
  NIBBLE_TRY(const GenerateResult result, generate(model, tokenizer, tokens, greedy, {}, *cache, context));
  return result.text;
}

// Everything but the scores.
Status measure_extras(const CompareOptions& options, const Yardstick& yardstick, const CausalLM& model,
                      Candidate& candidate, ThreadPool& pool) {
  NIBBLE_TRY(const ModelFiles files, find_model(candidate.path));
  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_files(files));
  if (!options.questions.empty()) {
    NIBBLE_TRY(const ChoiceResult result,
               answer_questions(model, tokenizer, options.questions, options.confidence,
                                candidate.label + ": questions", pool));
    candidate.tasks = to_json(result);
  }
  if (options.layer_tokens > 0 && !candidate.is_reference) {
    NIBBLE_TRY(const LayerComparison comparison,
               compare_layers(yardstick.reference, model, yardstick.text, options.layer_tokens, pool));
    candidate.layers = to_json(comparison);
    candidate.damaged_linear = comparison.damaged;
  }
  candidate.samples = Json::array();
  for (const std::string& prompt : options.prompts) {
    NIBBLE_TRY(std::string text, sample_answer(model, tokenizer, prompt, options.sample_tokens, pool));
    candidate.samples.push_back({{"prompt", prompt}, {"text", std::move(text)}});
  }
  return {};
}

Json record_of(const Candidate& candidate) {
  return {{"weight_bytes", candidate.weight_bytes},
          {"tasks", candidate.tasks},
          {"layers", candidate.layers},
          {"damaged_linear", candidate.damaged_linear},
          {"samples", candidate.samples}};
}

void take_record(const Json& record, Candidate& candidate) {
  candidate.weight_bytes = record.value("weight_bytes", size_t{0});
  candidate.tasks = record.value("tasks", Json());
  candidate.layers = record.value("layers", Json());
  candidate.damaged_linear = record.value("damaged_linear", std::string());
  candidate.samples = record.value("samples", Json::array());
}

// The reference beside itself differs by nothing, whatever the arithmetic.
void fill_reference_scores(TokenScores& scores) {
  const size_t count = scores.size();
  scores.kl.assign(count, 0.f);
  scores.delta_log.assign(count, 0.f);
  scores.delta_prob.assign(count, 0.f);
  scores.same_top.assign(count, 1.f);
  scores.top5_overlap.assign(count, 1.f);
}

}  // namespace

Status measure_candidate(const CompareOptions& options, const Yardstick& yardstick, Candidate& candidate,
                         ThreadPool& pool) {
  const fs::path folder = options.workdir / "candidates" / candidate.id;
  const fs::path scores_file = folder / "scores.safetensors";
  const fs::path record_file = folder / "result.json";
  NIBBLE_TRY(const Json description, description_of(options, yardstick, candidate));
  const Json extras = extras_description(options);
  NIBBLE_TRY(const Json known, read_record(record_file));
  std::error_code ignored;
  const bool has_scores = known.is_object() && known.value("description", Json()) == description &&
                          fs::exists(scores_file, ignored);
  const bool has_extras = has_scores && known.value("extras", Json()) == extras;

  std::unique_ptr<CausalLM> loaded;
  const CausalLM* model = &yardstick.reference;
  if (!has_extras && !candidate.is_reference) {
    FromPretrainedOptions load;
    load.compute = options.compute;
    NIBBLE_TRY(loaded, AutoModelForCausalLM::from_pretrained(candidate.path, load, pool));
    model = loaded.get();
  }
  if (has_scores) {
    NIBBLE_TRY(candidate.scores, load_scores(scores_file));
  } else {
    const std::string folder_name =
        sha256(dump_json(yardstick.description) + dump_json(text_record(yardstick.text)) +
               description["compute"].dump() + description["nibble"].dump() + description["cpu"].dump());
    const ReferenceModel reference = {yardstick.reference,
                                      options.workdir / "reference" / folder_name.substr(0, 16)};
    NIBBLE_TRY(candidate.scores,
               at(candidate.label, score_text(*model, candidate.is_reference ? nullptr : &reference,
                                              yardstick.text, candidate.label, pool)));
    if (candidate.is_reference) fill_reference_scores(candidate.scores);
    NIBBLE_RETURN_IF_ERROR(create_folder(folder));
    NIBBLE_RETURN_IF_ERROR(save_scores(candidate.scores, scores_file));
  }
  if (has_extras) {
    take_record(known, candidate);
  } else {
    candidate.weight_bytes = model->weight_bytes().total();
    NIBBLE_RETURN_IF_ERROR(at(candidate.label, measure_extras(options, yardstick, *model, candidate, pool)));
    Json record = record_of(candidate);
    record["description"] = description;
    record["extras"] = extras;
    NIBBLE_RETURN_IF_ERROR(write_file(record_file, dump_json(record) + "\n"));
  }
  candidate.quality = summarize(candidate.scores, yardstick.text, options.confidence);
  return {};
}

Status measure_speeds(const CompareOptions& options, std::vector<Candidate>& candidates, ThreadPool& pool) {
  Progress progress("speed", options.speed_rounds * candidates.size(), "runs");
  for (size_t round = 0; round < options.speed_rounds; ++round) {
    for (Candidate& candidate : candidates) {
      if (options.measure_speed) {
        NIBBLE_TRY(SpeedSample sample,
                   at(candidate.label, options.measure_speed(candidate.path, options.speed)));
        candidate.speed.push_back(std::move(sample));
      } else {
        FromPretrainedOptions load;
        load.compute = options.compute;
        NIBBLE_TRY(SpeedSample sample, measure_speed(candidate.path, load, options.speed, pool));
        candidate.speed.push_back(std::move(sample));
      }
      progress.advance();
    }
  }
  return {};
}

}  // namespace nibble
