#include "nibble/report/report_data.h"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>

#include "nibble/report/numbers.h"

namespace nibble::report {
namespace {

// What is missing, null or of another type is an empty object, an empty list, "" or kNotMeasured.
const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

std::string text_at(const Json& object, const char* key) {
  const Json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

double number_at(const Json& object, const char* key) {
  const Json& value = member(object, key);
  return value.is_number() ? value.get<double>() : kNotMeasured;
}

const Json& list_at(const Json& object, const char* key) {
  static const Json kEmpty = Json::array();
  const Json& value = member(object, key);
  return value.is_array() ? value : kEmpty;
}

std::vector<std::string> texts_at(const Json& object, const char* key) {
  std::vector<std::string> texts;
  for (const Json& item : list_at(object, key)) {
    if (item.is_string()) texts.push_back(item.get<std::string>());
  }
  return texts;
}

Measured measured_at(const Json& object, const char* key, const char* value = "value",
                     const char* low = "low", const char* high = "high") {
  const Json& inner = member(object, key);
  return {number_at(inner, value), number_at(inner, low), number_at(inner, high)};
}

Measured spread_at(const Json& object, const char* key) {
  return measured_at(object, key, "median", "min", "max");
}

Family family_of(std::string_view method) {
  const auto starts = [&](std::string_view name) { return method.starts_with(name); };
  if (starts("float") || method == "none" || starts("f16") || starts("f32") || starts("bf16"))
    return Family::kFloat;
  if (starts("gptq")) return Family::kGptq;
  if (starts("awq")) return Family::kAwq;
  if (starts("nf4") || starts("fp4") || starts("int8") || starts("bitsandbytes"))
    return Family::kBitsandbytes;
  if (starts("rtn")) return Family::kRtn;
  return Family::kOther;
}

void read_quality(const Json& quality, Candidate& candidate) {
  candidate.perplexity = measured_at(quality, "perplexity");
  candidate.bits_per_byte = measured_at(quality, "bits_per_byte");
  candidate.kl = measured_at(quality, "kl", "mean");
  candidate.top1_agreement = measured_at(quality, "top1_agreement");
  candidate.top5_overlap = measured_at(quality, "top5_overlap");
  candidate.delta_logprob = measured_at(quality, "delta_logprob");
  candidate.rms_delta_prob = measured_at(quality, "rms_delta_prob");
  const Json& kl = member(quality, "kl");
  candidate.kl_percentiles = {number_at(kl, "median"), number_at(kl, "p90"), number_at(kl, "p99"),
                              number_at(kl, "p999"), number_at(kl, "max")};
}

Candidate read_candidate(const Json& json) {
  Candidate candidate;
  candidate.id = text_at(json, "id");
  candidate.label = text_at(json, "label");
  if (candidate.label.empty()) candidate.label = candidate.id;
  candidate.family = family_of(text_at(json, "method"));
  const Json& size = member(json, "size");
  candidate.disk_bytes = number_at(size, "disk_bytes");
  candidate.weight_bytes = number_at(size, "weight_bytes");
  candidate.bits_per_weight = number_at(size, "bits_per_weight");
  read_quality(member(json, "quality"), candidate);
  const Json& speed = member(json, "speed");
  candidate.load_seconds = spread_at(speed, "load_seconds");
  candidate.prefill = spread_at(speed, "prefill_tokens_per_second");
  candidate.decode = spread_at(speed, "decode_tokens_per_second");
  candidate.peak_memory = spread_at(speed, "peak_memory_bytes");
  const Json& tasks = member(json, "tasks");
  candidate.questions = number_at(tasks, "questions");
  candidate.acc = measured_at(tasks, "acc");
  candidate.acc_norm = measured_at(tasks, "acc_norm");
  for (const Json& layer : list_at(json, "layers")) {
    const double index = number_at(layer, "layer");
    if (!(index >= 0 && index < 1e6)) continue;
    candidate.layers.push_back({static_cast<size_t>(index), number_at(layer, "relative_error"),
                                number_at(layer, "cosine"), text_at(layer, "worst_linear"),
                                number_at(layer, "worst_linear_error")});
  }
  for (const Json& sample : list_at(json, "samples")) {
    candidate.samples.push_back({text_at(sample, "prompt"), text_at(sample, "text")});
  }
  const Json& quantize = member(json, "quantize");
  candidate.quantize_seconds = number_at(quantize, "seconds");
  candidate.quantize_command = text_at(quantize, "command");
  candidate.is_identical = member(json, "identical_to_reference") == Json(true);
  const Json& fits = member(json, "fits");
  candidate.fits = !fits.is_boolean() || fits.get<bool>();
  candidate.excluded_because = texts_at(json, "excluded_because");
  return candidate;
}

// A line for each key that is there, in the order of the list.
class FactReader {
 public:
  explicit FactReader(const Json& section) : section_(section) {}

  void text(const char* key, const char* name) { add(name, text_at(section_, key)); }
  void count(const char* key, const char* name, const char* unit = "") {
    const double value = number_at(section_, key);
    if (is_known(value)) add(name, format_count(value) + unit);
  }
  void number(const char* key, const char* name, const char* unit) {
    const double value = number_at(section_, key);
    if (is_known(value)) add(name, format_number(value) + unit);
  }
  void bytes(const char* key, const char* name) {
    const double value = number_at(section_, key);
    if (is_known(value)) add(name, format_bytes(value));
  }
  void flag(const char* key, const char* name) {
    const Json& value = member(section_, key);
    if (value.is_boolean()) add(name, value.get<bool>() ? "yes" : "no");
  }
  void add(const char* name, std::string value) {
    if (!value.empty()) facts_.emplace_back(name, std::move(value));
  }
  Facts take() { return std::move(facts_); }

 private:
  const Json& section_;
  Facts facts_;
};

Facts read_model(const Json& model) {
  FactReader facts(model);
  facts.text("name", "Model");
  facts.text("architecture", "Architecture");
  facts.count("parameters", "Parameters");
  return facts.take();
}

Facts read_machine(const Json& machine) {
  FactReader facts(machine);
  facts.text("cpu", "Processor");
  facts.count("cores", "Cores");
  facts.count("threads", "Threads used");
  facts.bytes("memory_bytes", "Memory");
  facts.text("instruction_set", "Instruction set");
  facts.text("kernels", "Kernels");
  facts.text("os", "System");
  return facts.take();
}

Facts read_protocol(const Json& protocol) {
  FactReader facts(protocol);
  facts.text("text", "Text");
  facts.count("bytes", "Length of the text", " bytes");
  facts.count("tokens", "Tokens");
  facts.count("positions", "Positions compared");
  facts.count("window", "Window", " tokens");
  facts.count("stride", "Stride", " tokens");
  facts.flag("bos", "Begins with BOS");
  facts.text("compute", "Compute mode");
  const double confidence = number_at(protocol, "confidence");
  if (is_known(confidence)) facts.add("Confidence of intervals", format_confidence(confidence));
  facts.count("blocks", "Blocks for intervals");
  facts.count("speed_rounds", "Rounds of timing");
  facts.count("prompt_tokens", "Prompt for timing", " tokens");
  facts.count("generated_tokens", "Answer for timing", " tokens");
  facts.text("text_sha256", "SHA-256 of the text");
  facts.text("tokenizer_sha256", "SHA-256 of the tokenizer");
  return facts.take();
}

Facts read_limits(const Json& limits) {
  FactReader facts(limits);
  facts.bytes("memory_bytes", "Memory, at most");
  facts.number("decode_tokens_per_second", "Answer speed, at least", " tok/s");
  facts.number("kl", "KL divergence, at most", " nats");
  facts.text("prefer", "Prefers");
  return facts.take();
}

std::optional<size_t> index_of(const std::vector<Candidate>& candidates, const std::string& id) {
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!id.empty() && candidates[i].id == id) return i;
  }
  return std::nullopt;
}

std::string label_of(const std::vector<Candidate>& candidates, const std::string& id) {
  const auto index = index_of(candidates, id);
  return index ? candidates[*index].label : id;
}

Pair read_pair(const Json& json, const std::vector<Candidate>& candidates) {
  Pair pair;
  pair.a = label_of(candidates, text_at(json, "a"));
  pair.b = label_of(candidates, text_at(json, "b"));
  pair.metric = text_at(json, "metric");
  pair.difference = number_at(json, "difference");
  pair.low = number_at(json, "low");
  pair.high = number_at(json, "high");
  pair.p_value = number_at(json, "p_value");
  pair.verdict = text_at(json, "verdict");
  if (pair.verdict == "a is better") pair.verdict = pair.a + " is better";
  if (pair.verdict == "b is better") pair.verdict = pair.b + " is better";
  return pair;
}

// "AWQ: not significantly different"; a note that begins with the name itself stays as it is.
std::string runner_up_text(const std::string& label, const std::string& note) {
  if (label.empty() || note.empty()) return label;
  return note.starts_with(label) ? note : fmt::format("{}: {}", label, note);
}

}  // namespace

std::string Report::reference_label() const {
  return reference ? candidates[*reference].label : "the original";
}

const LayerDamage* worst_layer(const Candidate& candidate) {
  const LayerDamage* worst = nullptr;
  for (const LayerDamage& layer : candidate.layers) {
    if (!is_known(layer.relative_error)) continue;
    if (worst == nullptr || layer.relative_error > worst->relative_error) worst = &layer;
  }
  return worst;
}

std::vector<std::string> prompts(const Report& report) {
  std::vector<std::string> all;
  for (const Candidate& candidate : report.candidates) {
    for (const Sample& sample : candidate.samples) {
      if (std::find(all.begin(), all.end(), sample.prompt) == all.end()) all.push_back(sample.prompt);
    }
  }
  return all;
}

const Sample* find_sample(const Candidate& candidate, const std::string& prompt) {
  for (const Sample& sample : candidate.samples) {
    if (sample.prompt == prompt) return &sample;
  }
  return nullptr;
}

Report read_report(const Json& json) {
  Report report;
  report.created = text_at(json, "created");
  report.nibble = text_at(json, "nibble");
  report.command = text_at(json, "command");
  const Json& model = member(json, "model");
  report.model_name = text_at(model, "name");
  report.model_notes = texts_at(model, "notes");
  report.model = read_model(model);
  report.machine = read_machine(member(json, "machine"));
  const Json& protocol = member(json, "protocol");
  report.protocol = read_protocol(protocol);
  report.text_name = text_at(protocol, "text");
  report.tokens = number_at(protocol, "tokens");
  if (const double share = number_at(protocol, "confidence"); share > 0 && share < 1)
    report.confidence = share;
  const Json& limits = member(json, "limits");
  report.memory_limit = number_at(limits, "memory_bytes");
  report.limits = read_limits(limits);

  for (const Json& candidate : list_at(json, "candidates")) {
    report.candidates.push_back(read_candidate(candidate));
  }
  for (const Candidate& candidate : report.candidates) {
    if (!is_known(candidate.questions)) continue;
    report.protocol.emplace_back("Multiple-choice questions", format_count(candidate.questions));
    break;
  }
  report.reference = index_of(report.candidates, text_at(json, "reference"));
  if (report.reference) report.candidates[*report.reference].is_reference = true;
  for (const Json& pair : list_at(json, "pairs")) {
    report.pairs.push_back(read_pair(pair, report.candidates));
  }

  const Json& verdict = member(json, "verdict");
  report.choice = index_of(report.candidates, text_at(verdict, "choice"));
  if (report.choice) report.candidates[*report.choice].is_choice = true;
  report.verdict.headline = text_at(verdict, "headline");
  report.verdict.reasons = texts_at(verdict, "reasons");
  report.verdict.cost = texts_at(verdict, "cost");
  report.verdict.would_change = texts_at(verdict, "would_change");
  report.verdict.runner_up = runner_up_text(label_of(report.candidates, text_at(verdict, "runner_up")),
                                            text_at(verdict, "runner_up_note"));
  return report;
}

}  // namespace nibble::report
