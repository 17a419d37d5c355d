#include "nibble/evaluation/speed.h"

#include <algorithm>

#include "nibble/evaluation/speed_table.h"

namespace nibble {
namespace {

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

Expected<SpeedSample> measure_speed(std::string_view model, const FromPretrainedOptions& load,
                                    const SpeedOptions& options, ThreadPool& pool) {
  BenchOptions bench;
  bench.workloads =
      all_workloads({.prompts = {options.prompt_tokens}, .generated = {options.generated_tokens}});
  bench.threads = {pool.num_threads()};
  bench.repetitions = 1;
  bench.probe_limits = false;
  NIBBLE_TRY(const ModelBench measured, bench_model(std::string(model), load, bench));
  return speed_sample_from_json(bench_json({measured}));
}

Expected<SpeedSample> speed_sample_from_json(const Json& bench) {
  SpeedSample sample;
  try {
    const Json& model = bench.at("models").at(0);
    model.at("load_seconds").get_to(sample.load_seconds);
    model.at("peak_memory_bytes").get_to(sample.peak_memory_bytes);
    for (const Json& row : model.at("tests")) {
      const auto rate = row.at("tokens_per_second").at("median").get<double>();
      (row.at("kind") == "prefill" ? sample.prefill_tokens_per_second : sample.decode_tokens_per_second) =
          rate;
    }
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
