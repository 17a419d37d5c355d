#include "nibble/evaluation/speed_measurement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/cancel.h"
#include "nibble/evaluation/speed.h"
#include "nibble/evaluation/speed_runner.h"
#include "nibble/evaluation/speed_table.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

using Kind = Workload::Kind;

TEST(Workload, HasTheNamesOfLlamaBench) {
  EXPECT_EQ(workload_name({Kind::kPrefill, 512}), "pp512");
  EXPECT_EQ(workload_name({Kind::kDecode, 128}), "tg128");
  EXPECT_EQ(workload_name({Kind::kDecode, 128, 4}), "tg128 b4");
  EXPECT_EQ(workload_name({Kind::kPrefill, 512, 1, 4096}), "pp512 @ d4096");
  EXPECT_EQ(workload_name({Kind::kDecode, 128, 8, 4096}), "tg128 b8 @ d4096");
}

TEST(Workload, ListsMakeTheProduct) {
  std::vector<std::string> names;
  for (const Workload& workload :
       all_workloads({.prompts = {16, 32}, .generated = {8}, .batches = {1, 4}, .depths = {0, 64}})) {
    names.push_back(workload_name(workload));
  }
  EXPECT_THAT(names, ElementsAre("pp16", "pp32", "tg8", "tg8 b4", "pp16 @ d64", "pp32 @ d64", "tg8 @ d64",
                                 "tg8 b4 @ d64"));
  EXPECT_EQ(all_workloads({.prompts = {0}, .generated = {8, 8}}).size(), 1u);
  EXPECT_TRUE(all_workloads({.prompts = {0}, .generated = {0}}).empty());
}

TEST(Workload, ThatDoesNotFitTheContextIsNamed) {
  const std::vector<Workload> workloads = {{Kind::kPrefill, 512}, {Kind::kDecode, 128, 1, 1000}};
  EXPECT_TRUE(check_context(workloads, 1128));
  EXPECT_TRUE(check_context(workloads, 0));
  const Status failed = check_context(workloads, 1127);
  ASSERT_FALSE(failed);
  EXPECT_THAT(to_string(failed.error()),
              AllOf(HasSubstr("tg128 @ d1000"), HasSubstr("1128"), HasSubstr("1127")));
}

TEST(Repeats, AreSaidByMedianAndQuartiles) {
  const Repeats repeats = {{5, 1, 2, 100, 4}};
  EXPECT_EQ(repeats.median(), 4);
  EXPECT_EQ(repeats.spread(), 1.5);  // quartiles 2 and 5
  EXPECT_EQ(Repeats{{7}}.spread(), 0);
}

std::string folder_of(const char* name) { return test::model_folder(name).value().string(); }

TEST(BenchModel, TimesEveryWorkloadOnEveryNumberOfThreads) {
  BenchOptions options;
  options.workloads =
      all_workloads({.prompts = {16}, .generated = {4}, .batches = {1, 3}, .depths = {0, 40}});
  options.threads = {1, 2};
  options.repetitions = 2;
  options.probe_limits = false;
  const auto bench = bench_model(folder_of("gptq-4b-g128"), {}, options);
  ASSERT_TRUE(bench) << to_string(bench.error());
  EXPECT_EQ(bench->quantization, "gptq");
  EXPECT_EQ(bench->compute, "auto");
  EXPECT_TRUE(bench->int8_activations);
  EXPECT_GT(bench->peak_memory_bytes, bench->weight_bytes);
  ASSERT_EQ(bench->rows.size(), 12u);
  for (const BenchRow& row : bench->rows) {
    SCOPED_TRACE(workload_name(row.workload));
    EXPECT_EQ(row.tokens_per_second.values.size(), 2u);
    EXPECT_GT(row.tokens_per_second.median(), 0);
    EXPECT_EQ(row.bytes_per_second() > 0, row.workload.kind == Kind::kDecode);
    EXPECT_EQ(row.operations_per_second() > 0, row.workload.kind == Kind::kPrefill);
    EXPECT_FALSE(bench->share_of_read(row));  // nothing was probed
  }
}

TEST(BenchModel, KnowsTheLimitsOfTheSameRun) {
  BenchOptions options;
  options.workloads = all_workloads({.prompts = {16}, .generated = {4}});
  options.repetitions = 1;
  FromPretrainedOptions load;
  load.compute = ComputeMode::kF32;
  const auto bench = bench_model(folder_of("bnb-nf4"), load, options);
  ASSERT_TRUE(bench) << to_string(bench.error());
  EXPECT_EQ(bench->compute, "f32");
  EXPECT_FALSE(bench->int8_activations);
  ASSERT_NE(bench->limits_for(1), nullptr);
  EXPECT_EQ(bench->limits_for(2), nullptr);
  const BenchRow& prefill = bench->rows[0];
  EXPECT_DOUBLE_EQ(bench->share_of_arithmetic(prefill).value(),
                   prefill.operations_per_second() / bench->limits_for(1)->f32.median());
  const BenchRow& decode = bench->rows[1];
  EXPECT_DOUBLE_EQ(bench->share_of_read(decode).value(),
                   decode.bytes_per_second() / bench->limits_for(1)->read.median());
}

TEST(BenchModel, StopsWhenItIsAskedTo) {
  BenchOptions options;
  options.workloads = {{Kind::kDecode, 4}};
  options.probe_limits = false;
  request_cancel();
  const auto bench = bench_model(folder_of("gptq-4b-g128"), {}, options);
  reset_cancel();
  ASSERT_FALSE(bench);
  EXPECT_EQ(bench.error().code, ErrorCode::kCancelled);
}

TEST(SpeedRunner, CountsBytesAndOperationsFromTheModelsSizes) {
  ThreadPool pool(1);
  const auto model = AutoModelForCausalLM::from_pretrained(folder_of("tiny-llama"), {}, pool);
  ASSERT_TRUE(model) << to_string(model.error());
  const std::vector<Workload> workloads = {
      {Kind::kPrefill, 10}, {Kind::kDecode, 9}, {Kind::kDecode, 9, 2, 100}};
  const SpeedRunner runner(**model, workloads);
  const PretrainedConfig& config = (*model)->config();
  const size_t kv_size = config.num_key_value_heads * config.head_dim;
  const size_t q_size = config.num_attention_heads * config.head_dim;
  const size_t block = config.hidden_size * (2 * q_size + 2 * kv_size + 3 * config.intermediate_size);
  const size_t norms = config.hidden_size * (2 * config.num_hidden_layers + 1);
  const size_t head = config.vocab_size * config.hidden_size;
  const auto operations = static_cast<double>(2 * (10 * (config.num_hidden_layers * block) + head));
  // The weights of the norms are counted with those of the linear layers.
  EXPECT_NEAR(runner.cost(workloads[0]).operations, operations, 2.0 * 10 * static_cast<double>(norms));
  EXPECT_EQ(runner.cost(workloads[0]).bytes_per_step, 0);

  const double one = runner.cost(workloads[1]).bytes_per_step;
  const double two = runner.cost(workloads[2]).bytes_per_step;
  // 5 tokens are the mean of the first, 100 and 5 of both sequences of the second.
  const double per_token = (two - one) / (2 * 105 - 5);
  const auto numbers = static_cast<double>(2 * config.num_hidden_layers * kv_size);
  EXPECT_GE(per_token / numbers, 1);  // int8 with its scales
  EXPECT_LE(per_token / numbers, 4);  // float32
}

// A model as bench_model() would describe it.
ModelBench described() {
  ModelBench bench;
  bench.model = "models/random-1b/";
  bench.quantization = "gptq";
  bench.compute = "auto";
  bench.kernels = "154 x int4-a8-avx512, 1 x f16-avx512";
  bench.int8_activations = true;
  bench.parameters = 1'100'000'000;
  bench.weight_bytes = 700'000'000;
  bench.load_seconds = 0.5;
  bench.peak_memory_bytes = 900'000'000;
  bench.limits = {{2, {{50e9, 50e9}}, {{400e9, 400e9}}, {{2000e9, 2000e9}}}};
  bench.rows = {{{Kind::kPrefill, 512}, 2, {{795, 805}}, 0, 512 * 2e9},
                {{Kind::kDecode, 128, 4}, 2, {{200, 200}}, 0.8e9, 0}};
  return bench;
}

TEST(BenchTable, IsMarkdownInColumns) {
  EXPECT_EQ(
      bench_markdown({described()}),
      R"(| model          | weights | params | threads |     test |         t/s | GB/s | of read |  GOP/s | of peak |
| -------------- | ------: | -----: | ------: | -------: | ----------: | ---: | ------: | -----: | ------: |
| random-1b gptq |  700 MB | 1.10 B |       2 |    pp512 | 800.0 ± 2.5 |      |         | 1600.0 |    80 % |
| random-1b gptq |  700 MB | 1.10 B |       2 | tg128 b4 | 200.0 ± 0.0 | 40.0 |    80 % |        |         |

t/s: median of 2 ± half the distance between the quartiles. GB/s: weights and KV cache that a step reads. GOP/s: of the linear layers.

random-1b gptq: --compute auto, load 0.50 s, peak memory 900 MB; kernels 154 x int4-a8-avx512, 1 x f16-avx512
What the machine reached between the repetitions ("of peak" is of int8):
- 2 threads: read 50.0 ± 0.0 GB/s, f32 400.0 ± 0.0 GOP/s, int8 2000.0 ± 0.0 GOP/s
)");
}

TEST(BenchTable, AsCsvQuotesWhatHasCommas) {
  const std::string csv = bench_csv({described()});
  EXPECT_THAT(csv, testing::StartsWith("model,quantization,compute,kernels,"));
  EXPECT_THAT(csv, HasSubstr("\nmodels/random-1b/,gptq,auto,\"154 x int4-a8-avx512, 1 x f16-avx512\","));
  EXPECT_THAT(csv, HasSubstr(",tg128 b4,decode,128,4,0,2,200,0,8e+08,4e+10,0.8,,,5e+10,4e+11,2e+12\n"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 3);
}

TEST(BenchTable, AsJsonIsWhatCompareReads) {
  const Json json = bench_json({described()});
  EXPECT_EQ(json["models"][0]["tests"][0]["tokens_per_second"]["all"], Json({795, 805}));
  EXPECT_TRUE(json["models"][0]["tests"][0]["bytes_per_second"].is_null());
  const auto sample = speed_sample_from_json(json);
  ASSERT_TRUE(sample) << to_string(sample.error());
  EXPECT_EQ(sample->load_seconds, 0.5);
  EXPECT_EQ(sample->prefill_tokens_per_second, 800);
  EXPECT_EQ(sample->decode_tokens_per_second, 200);
  EXPECT_EQ(sample->peak_memory_bytes, 900'000'000u);
  EXPECT_FALSE(speed_sample_from_json(Json::object()));
}

}  // namespace
}  // namespace nibble
