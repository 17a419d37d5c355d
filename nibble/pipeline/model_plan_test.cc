// Plans of small models against what loading and quantizing them really gives.

#include "nibble/pipeline/model_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/pipeline/quantize.h"
#include "nibble/pipeline/test_model.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr linalg::MachineSpeed kSpeed = {
    .threads = 2, .read = {1e10, 2e10}, .f32 = {1e11, 2e11}, .int8 = {4e11, 8e11}};

ModelPlan plan_of(const ModelSource& source, const ModelPlanOptions& options) {
  ThreadPool pool(2);
  auto plan = plan_model(source, options, kSpeed, pool);
  EXPECT_TRUE(plan.has_value()) << (plan ? "" : to_string(plan.error()));
  return plan.value_or(ModelPlan());
}

ModelSource tiny_llama_source() { return test::open_model(test::model_folder("tiny-llama").value()); }

RunPlan run_of(const ModelSource& source, size_t context, size_t parallel = 1) {
  return plan_of(source,
                 {.methods = parse_methods("float").value(), .context = context, .parallel = parallel})
      .rows.at(0)
      .run;
}

size_t tensor_bytes(const std::filesystem::path& folder) {
  size_t bytes = 0;
  const ModelSource source = test::open_model(folder);
  for (const auto& [name, info] : source.checkpoint->tensors()) {
    bytes += num_bytes(info).value_or(0);
  }
  return bytes;
}

class StoredModel : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Models, StoredModel, testing::ValuesIn(test::model_names()), [](const auto& test) {
  std::string name = test.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '-' || c == '_'; }, '0');
  return name;
});

TEST_P(StoredModel, TakesTheMemoryThatItsWeightsTake) {
  const auto folder = test::model_folder(GetParam()).value();
  const ModelSource source = test::open_model(folder);
  const ModelPlan plan = plan_of(source, {});
  ThreadPool pool(2);
  const auto model = AutoModelForCausalLM::from_pretrained(folder.string(), {}, pool);
  ASSERT_TRUE(model.has_value()) << to_string(model.error());
  const PlanRow& row = plan.rows.at(0);
  EXPECT_EQ(row.disk_bytes, tensor_bytes(folder));
  // Scales that float16 cannot hold, and zero points that happen to be the same, are known by their values
  // alone: a few of a hundred.
  const auto real = static_cast<double>((*model)->weight_bytes().total());
  EXPECT_NEAR(static_cast<double>(row.run.weight_bytes) / real, 1.0, 0.03) << real;
}

TEST(ModelPlan, ANameSaysWhatAQuantizedModelIs) {
  const auto name_of = [](const char* model) {
    return plan_of(test::open_model(test::model_folder(model).value()), {}).rows.at(0).method;
  };
  EXPECT_EQ(name_of("tiny-llama"), "float");
  EXPECT_EQ(name_of("gptq-4b-g128"), "gptq:4:128");
  EXPECT_EQ(name_of("awq-gemm-g64"), "awq:4:64");
  EXPECT_EQ(name_of("bnb-nf4-dq"), "nf4-dq");
  EXPECT_EQ(name_of("bnb-int8"), "int8");
}

TEST(ModelPlan, FilesAreAsLargeAsForetold) {
  const ModelSource source = tiny_llama_source();
  for (const char* name : {"nf4", "nf4-dq", "int8", "rtn:4:64", "rtn:3:32", "rtn:8:-1"}) {
    const Method method = parse_method(name).value();
    const ModelPlan plan = plan_of(source, {.methods = {method}});
    const test::TemporaryFolder folder;
    QuantizeOptions options = method.options;
    options.check = false;
    ThreadPool pool(2);
    const auto written = quantize_model(source.files, folder.path() / "out", options, pool);
    ASSERT_TRUE(written.has_value()) << to_string(written.error());
    const size_t real = tensor_bytes(folder.path() / "out");
    // Of double quantization one text per module is a few digits longer.
    const size_t slack = std::string_view(name) == "nf4-dq" ? 24 * plan.rows.at(0).quantize->modules : 0;
    EXPECT_LE(plan.rows.at(0).disk_bytes, real) << name;
    EXPECT_GE(plan.rows.at(0).disk_bytes + slack, real) << name;
  }
}

TEST(ModelPlan, EveryMethodHasARow) {
  const ModelPlan plan = plan_of(tiny_llama_source(), {});
  std::vector<std::string> names;
  for (const PlanRow& row : plan.rows) {
    names.push_back(row.method);
    EXPECT_EQ(row.quantize.has_value(), row.method != "float");
    EXPECT_GT(row.run.decode_tokens_per_second, row.run.decode_full_tokens_per_second);
    EXPECT_GT(row.run.prefill_tokens_per_second, 0);
  }
  EXPECT_THAT(names, ElementsAre("float", "nf4", "nf4-dq", "int8", "gptq:4:128", "gptq:3:128", "awq:4:128"));
  EXPECT_THAT(plan.left_out, IsEmpty());
  EXPECT_LT(plan.rows[2].disk_bytes, plan.rows[1].disk_bytes);  // double quantization
}

TEST(ModelPlan, MemoryGrowsWithContextAndSequences) {
  const ModelSource source = tiny_llama_source();
  EXPECT_EQ(plan_of(source, {}).context, 1024u);  // the model's
  size_t before = 0;
  for (const size_t context : {1u, 64u, 65u, 512u, 1024u}) {
    const RunPlan run = run_of(source, context);
    EXPECT_GE(run.peak_memory, before) << context;
    before = run.peak_memory;
  }
  // 3 layers, 4 heads of 32, keys and values in half precision, in blocks of 64 tokens.
  EXPECT_EQ(run_of(source, 65).kv_bytes, 128u * 3 * 4 * 32 * 2 * sizeof(uint16_t));
  EXPECT_EQ(run_of(source, 65, 3).kv_bytes, 3 * run_of(source, 65).kv_bytes);
  EXPECT_GT(run_of(source, 64, 3).peak_memory, run_of(source, 64).peak_memory);
}

TEST(ModelPlan, AWindowSparesReadingButNotMemory) {
  ModelSource source = test::open_architecture("mistral_sliding");
  const size_t context = source.config.max_position_embeddings;
  const RunPlan windowed = run_of(source, context);
  std::fill(source.spec.window.begin(), source.spec.window.end(), 0);
  const RunPlan whole = run_of(source, context);
  EXPECT_EQ(windowed.kv_bytes, whole.kv_bytes);
  EXPECT_GT(windowed.decode_full_tokens_per_second, whole.decode_full_tokens_per_second);
  EXPECT_EQ(windowed.decode_tokens_per_second, whole.decode_tokens_per_second);
}

TEST(ModelPlan, SaysWhatWouldFit) {
  const ModelSource source = tiny_llama_source();
  const RunPlan run = run_of(source, 1024);
  ModelPlanOptions options = {.methods = parse_methods("float").value(), .max_memory = run.peak_memory};
  EXPECT_TRUE(check_any_runs(plan_of(source, options)).has_value());

  options.max_memory = run.peak_memory - 1;
  const ModelPlan small = plan_of(source, options);
  EXPECT_FALSE(small.rows.at(0).runs);
  const Status status = check_any_runs(small);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(status.error().fix, HasSubstr("--ctx-size 960"));
  EXPECT_THAT(status.error().fix, HasSubstr("--max-memory"));
  EXPECT_THAT(to_text(small), HasSubstr("* more than"));
  // The advice holds.
  options.context = 960;
  EXPECT_TRUE(check_any_runs(plan_of(source, options)).has_value());

  options.max_memory = 1000;  // no context is short enough
  EXPECT_THAT(check_any_runs(plan_of(source, options)).error().fix, Not(HasSubstr("--ctx-size")));
}

TEST(ModelPlan, RefusesWhatTheModelCannotHave) {
  ThreadPool pool(1);
  const auto refused = [&](const char* model, const ModelPlanOptions& options) {
    const auto plan = plan_model(test::open_model(test::model_folder(model).value()), options, kSpeed, pool);
    EXPECT_FALSE(plan.has_value());
    return plan ? std::string() : to_string(plan.error());
  };
  EXPECT_THAT(refused("gptq-4b-g128", {.methods = parse_methods("nf4").value()}),
              HasSubstr("quantized already"));
  EXPECT_THAT(refused("tiny-llama", {.context = 4096}), HasSubstr("made for 1024 tokens"));
  EXPECT_THAT(refused("tiny-llama", {.methods = parse_methods("awq:4:96").value()}),
              HasSubstr("AWQ 4-bit g96"));
}

TEST(ModelPlan, TheTableFitsATerminal) {
  const std::string text = to_text(plan_of(tiny_llama_source(), {.max_memory = 40'000'000}));
  size_t begin = text.find('\n');  // behind the model's name, which may be long
  for (size_t end; (end = text.find('\n', begin + 1)) != std::string::npos; begin = end) {
    EXPECT_LE(end - begin - 1, 80u) << text.substr(begin, end - begin);
  }
}

}  // namespace
}  // namespace nibble
