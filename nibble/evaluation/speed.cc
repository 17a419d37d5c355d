#include "nibble/evaluation/speed.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "nibble/base/arena.h"
#include "nibble/base/cancel.h"
#include "nibble/base/memory.h"
#include "nibble/nn/kv_cache.h"

namespace nibble {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

constexpr size_t kChunk = 512;
constexpr size_t kWarmUpTokens = 32;

std::vector<int32_t> random_tokens(size_t count, size_t vocab) {
  std::mt19937 rng(0);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % vocab);
  return tokens;
}

// Seconds for `prompt` from an empty cache; logits: [1, vocab_size].
Expected<double> read_prompt(const CausalLM& model, std::span<const int32_t> prompt, KvCache& cache,
                             MatrixView<float> logits, ExecutionContext& context) {
  const auto begin = Clock::now();
  for (size_t at = 0; at < prompt.size(); at += kChunk) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const auto part = prompt.subspan(at, std::min(kChunk, prompt.size() - at));
    const bool last = at + part.size() == prompt.size();
    const SequenceChunk chunk = {part, &cache, last ? size_t{1} : size_t{0}, prompt.size()};
    NIBBLE_RETURN_IF_ERROR(model.forward({&chunk, 1}, logits.rows(0, chunk.num_logits), context));
  }
  return seconds_since(begin);
}

// Seconds for the tokens one by one.
Expected<double> decode(const CausalLM& model, std::span<const int32_t> tokens, KvCache& cache,
                        MatrixView<float> logits, ExecutionContext& context) {
  const auto begin = Clock::now();
  for (size_t i = 0; i < tokens.size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const SequenceChunk chunk = {tokens.subspan(i, 1), &cache, 1};
    NIBBLE_RETURN_IF_ERROR(model.forward({&chunk, 1}, logits, context));
  }
  return seconds_since(begin);
}

struct Figure {
  const char* name;
  double SpeedSample::*value;
};

constexpr Figure kFigures[] = {{"load_seconds", &SpeedSample::load_seconds},
                               {"prefill_tokens_per_second", &SpeedSample::prefill_tokens_per_second},
                               {"decode_tokens_per_second", &SpeedSample::decode_tokens_per_second}};

Json spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  const double median = n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
  return {{"median", median}, {"min", values.front()}, {"max", values.back()}};
}

}  // namespace

Expected<SpeedSample> measure_speed(std::string_view name, const FromPretrainedOptions& load,
                                    const SpeedOptions& options, ThreadPool& pool) {
  SpeedSample sample;
  const auto begin = Clock::now();
  NIBBLE_TRY(const auto model, AutoModelForCausalLM::from_pretrained(name, load, pool));
  sample.load_seconds = seconds_since(begin);
  sample.weight_bytes = model->weight_bytes().total();
  sample.kernels = model->kernels();

  const size_t vocab = model->config().vocab_size;
  const std::vector<int32_t> tokens = random_tokens(options.prompt_tokens + options.generated_tokens, vocab);
  const auto prompt = std::span(tokens).first(options.prompt_tokens);
  const auto generated = std::span(tokens).subspan(options.prompt_tokens);
  std::vector<float> row(vocab);
  const MatrixView<float> logits(row.data(), 1, vocab);
  Arena arena;
  ExecutionContext context{pool, arena};
  {
    const auto cache = model->make_cache(kWarmUpTokens + 1);
    const auto few = prompt.first(std::min(kWarmUpTokens, prompt.size()));
    NIBBLE_RETURN_IF_ERROR(read_prompt(*model, few, *cache, logits, context));
    NIBBLE_RETURN_IF_ERROR(decode(*model, prompt.first(1), *cache, logits, context));
  }
  const auto cache = model->make_cache(tokens.size());
  NIBBLE_TRY(const double prefill, read_prompt(*model, prompt, *cache, logits, context));
  NIBBLE_TRY(const double decoding, decode(*model, generated, *cache, logits, context));
  sample.prefill_tokens_per_second = static_cast<double>(prompt.size()) / prefill;
  sample.decode_tokens_per_second = static_cast<double>(generated.size()) / decoding;
  sample.peak_memory_bytes = peak_memory_bytes();
  return sample;
}

Json to_json(const SpeedSample& sample) {
  Json json;
  for (const Figure& figure : kFigures) json[figure.name] = sample.*figure.value;
  json["peak_memory_bytes"] = sample.peak_memory_bytes;
  json["weight_bytes"] = sample.weight_bytes;
  json["kernels"] = sample.kernels;
  return json;
}

Expected<SpeedSample> speed_sample_from_json(const Json& json) {
  SpeedSample sample;
  try {
    for (const Figure& figure : kFigures) sample.*figure.value = json.at(figure.name).get<double>();
    json.at("peak_memory_bytes").get_to(sample.peak_memory_bytes);
    json.at("weight_bytes").get_to(sample.weight_bytes);
    json.at("kernels").get_to(sample.kernels);
  } catch (const Json::exception& error) {
    return fail(ErrorCode::kDataLoss, "no speed measurement: {}", error.what());
  }
  return sample;
}

Json summarize(const std::vector<SpeedSample>& samples) {
  if (samples.empty()) return nullptr;
  Json json;
  for (const Figure& figure : kFigures) {
    std::vector<double> values;
    for (const SpeedSample& sample : samples) values.push_back(sample.*figure.value);
    json[figure.name] = spread(std::move(values));
  }
  std::vector<double> peaks;
  for (const SpeedSample& sample : samples) peaks.push_back(static_cast<double>(sample.peak_memory_bytes));
  json["peak_memory_bytes"] = spread(std::move(peaks));
  return json;
}

}  // namespace nibble
