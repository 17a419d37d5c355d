#include "nibble/pipeline/convert_quantized.h"

#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/pipeline/convert_plan.h"
#include "nibble/pipeline/convert_proof.h"
#include "nibble/pipeline/test_model.h"
#include "tests/support/fixtures.h"

namespace nibble {
namespace {

using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

ModelFiles files_of(std::string_view name) {
  return find_model(test::model_folder(name).value().string()).value();
}

ThreadPool& pool() {
  static ThreadPool threads(2);
  return threads;
}

std::vector<std::string> quantized_models() {
  std::vector<std::string> names;
  for (const std::string& name : test::model_names()) {
    if (name != "tiny-llama") names.push_back(name);
  }
  return names;
}

// What a cell of the table says: "exact", or what --requantize makes of the modules that are not.
std::string outcome(std::string_view name, const std::string& layout) {
  const auto modules = preview_conversion(files_of(name), layout);
  if (!modules) return modules.error().code == ErrorCode::kInvalidArgument ? "(is it)" : "no";
  std::map<StoredAs, size_t> counts;
  for (const ConvertedModule& module : *modules) ++counts[module.stored_as];
  if (counts.size() == 1 && counts.contains(StoredAs::kExact)) return "exact";
  std::string text;
  for (const auto& [stored_as, count] : counts) {
    if (!text.empty()) text += ", ";
    text += fmt::format("{} {}", count, stored_as_name(stored_as));
  }
  return text;
}

std::string matrix() {
  std::string table = "| source |";
  std::string rule = "| --- |";
  for (const std::string& layout : conversion_layouts()) {
    table += fmt::format(" {} |", layout);
    rule += " --- |";
  }
  table += "\n" + rule + "\n";
  for (const std::string& name : quantized_models()) {
    table += fmt::format("| {} |", name);
    for (const std::string& layout : conversion_layouts())
      table += fmt::format(" {} |", outcome(name, layout));
    table += "\n";
  }
  return table;
}

TEST(ConversionMatrix, IsTheOneOfTheDocument) {
  const std::string document =
      read_text_file(test::data_folder() / "../../docs/formats/conversions.md").value();
  const std::string table = matrix();
  EXPECT_NE(document.find(table), std::string::npos) << "put this into docs/formats/conversions.md:\n"
                                                     << table;
}

class Conversion : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Models, Conversion, testing::ValuesIn(quantized_models()), [](const auto& test) {
  std::string name = test.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

// Every value of every weight by the source's formula and by the result's, apart from the program's own
// proof.
void expect_same_weights(const ModelSource& a, const ModelSource& b) {
  for (const ModuleSlot& slot : a.slots) {
    if (!a.quantized.contains(slot.name)) continue;
    EXPECT_EQ(a.weight(slot.name).value(), b.weight(slot.name).value()) << slot.name;
  }
}

TEST_P(Conversion, IsExactOrRefusedUnlessAsked) {
  const ModelFiles files = files_of(GetParam());
  const ModelSource source = ModelSource::open(files).value();
  for (const std::string& layout : conversion_layouts()) {
    SCOPED_TRACE(layout);
    const auto planned = preview_conversion(files, layout);
    if (!planned) continue;  // it has that layout
    const bool exact = std::all_of(planned->begin(), planned->end(), [](const ConvertedModule& module) {
      return module.stored_as == StoredAs::kExact;
    });
    const TemporaryFolder folder;
    const auto result = convert_quantized(files, folder.path(), {.layout = layout}, pool());
    if (exact) {
      ASSERT_TRUE(result) << to_string(result.error());
      EXPECT_EQ(result->proved, source.quantized.size());
      EXPECT_FALSE(result->check);
      expect_same_weights(source, test::open_model(folder.path()));
      continue;
    }
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(result.error().fix, HasSubstr("--requantize"));
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
    // One of each family: the rest differs in packing alone.
    if (layout != "gptq" && layout != "gemv_fast" && layout != "compressed-tensors") continue;
    const auto again = convert_quantized(files, folder.path(),
                                         {.layout = layout, .requantize = true, .check = false}, pool());
    ASSERT_TRUE(again) << to_string(again.error());
    EXPECT_EQ(again->proved, again->count(StoredAs::kExact));
    EXPECT_EQ(test::open_model(folder.path()).quantized.size(),
              source.quantized.size() - again->count(StoredAs::kFloat));
  }
}

TEST(ConvertQuantized, BackAndForthGivesTheSameTensors) {
  const std::string way[] = {"gptq_v2", "compressed-tensors", "gptq", "gemv", "gemm"};
  const ModelFiles first = files_of("awq-gemm-g64");
  std::vector<std::unique_ptr<TemporaryFolder>> folders;
  ModelFiles from = first;
  for (const std::string& layout : way) {
    // What an asymmetric AWQ model has of zero points 0, gptq does not hold.
    const auto modules = preview_conversion(from, layout).value();
    if (std::any_of(modules.begin(), modules.end(),
                    [](const ConvertedModule& module) { return module.stored_as != StoredAs::kExact; })) {
      continue;
    }
    folders.push_back(std::make_unique<TemporaryFolder>());
    ASSERT_TRUE(convert_quantized(from, folders.back()->path(), {.layout = layout}, pool()));
    from = find_model(folders.back()->path().string()).value();
  }
  ASSERT_GE(folders.size(), 4u);
  const auto a = open_checkpoint(first).value();
  const auto b = open_checkpoint(from).value();
  ASSERT_EQ(a->tensors(), b->tensors());
  for (const auto& [name, info] : a->tensors()) {
    const Tensor left = a->tensor(name).value();
    const Tensor right = b->tensor(name).value();
    EXPECT_TRUE(std::equal(left.bytes.begin(), left.bytes.end(), right.bytes.begin(), right.bytes.end()))
        << name;
  }
}

TEST(ConvertQuantized, WhatIsRoundedAnewIsMeasured) {
  const TemporaryFolder folder;
  const std::string with_tokenizer =
      test::model_folder("gptq-3b-g64", {.with_tokenizer = true}).value().string();
  const auto result = convert_quantized(find_model(with_tokenizer).value(), folder.path(),
                                        {.layout = "gemm", .requantize = true}, pool());
  ASSERT_TRUE(result) << to_string(result.error());
  ASSERT_TRUE(result->check);
  EXPECT_GT(result->check->kl, 0.0);
  EXPECT_FALSE(result->check->broken());
  for (const ConvertedModule& module : result->modules) {
    EXPECT_THAT(module.why, HasSubstr("3 bits do not go into the layout gemm"));
  }
}

TEST(ConvertQuantized, AFloatModelIsNoSource) {
  const TemporaryFolder folder;
  const auto result = convert_quantized(files_of("tiny-llama"), folder.path(), {.layout = "gptq"}, pool());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(result.error().fix, HasSubstr("nibble quantize"));
}

// A zero term of gemv_fast is scale * zero point in float16: with few bits in the scale nothing is lost.
TEST(ModuleFacts, ZeroTermsAreExactWhereTheProductFits) {
  QuantizedWeight weight;
  weight.out_features = 1;
  weight.in_features = weight.group_size = 32;
  weight.num_groups = 1;
  weight.codes.assign(32, 3);
  weight.rounding = DType::kF16;
  weight.scales = {0.0625f};
  weight.zeros = {13.f};
  EXPECT_TRUE(module_facts(weight).exact_zero_terms);
  weight.scales = {fp16_to_float(0x2BFF)};  // all 11 bits
  EXPECT_FALSE(module_facts(weight).exact_zero_terms);
  weight.zeros = {8.f};  // a power of two
  EXPECT_TRUE(module_facts(weight).exact_zero_terms);
  EXPECT_TRUE(module_facts(weight).sym);
  weight.scales = {-0.0625f};  // -0 by one formula, 0 by the other
  EXPECT_FALSE(module_facts(weight).exact_zero_terms);
}

TEST(ModuleFacts, ZeroPointsComeBackFromZeroTerms) {
  QuantizedWeight weight;
  weight.formula = WeightFormula::kOffset;
  weight.out_features = 2;
  weight.in_features = weight.group_size = 32;
  weight.num_groups = 1;
  weight.codes.assign(64, 3);
  weight.rounding = DType::kF16;
  const float scale = fp16_to_float(0x2BFF);
  weight.scales = {scale, scale};
  weight.zeros = {-fp16_to_float(float_to_fp16(scale * 7)), 0.f};
  const ModuleFacts facts = module_facts(weight);
  EXPECT_TRUE(facts.integer_zeros);
  EXPECT_TRUE(facts.has_zero_0);
  EXPECT_FALSE(facts.exact_zero_terms);
  EXPECT_EQ(with_zero_points(weight).zeros, (std::vector<float>{7.f, 0.f}));
  weight.zeros[0] += scale / 2;  // between two zero points
  EXPECT_FALSE(module_facts(weight).integer_zeros);
}

TEST(ProveConversion, ADamagedFileIsFound) {
  const TemporaryFolder folder;
  const ModelFiles files = files_of("awq-gemm-g64");
  const ModelSource source = ModelSource::open(files).value();
  const ConversionPlan plan = plan_conversion(source, target_layout_from_name("gptq_v2").value()).value();
  ASSERT_TRUE(convert_quantized(files, folder.path(), {.layout = "gptq_v2"}, pool()));
  const auto prove = [&] {
    const auto written = open_checkpoint(find_model(folder.path().string()).value());
    const auto proof = prove_conversion(source, **written, plan, pool(), false);
    return proof ? std::string("proved") : to_string(proof.error());
  };
  EXPECT_EQ(prove(), "proved");
  const auto checkpoint = open_checkpoint(find_model(folder.path().string()).value()).value();
  for (const char* const suffix : {"qweight", "scales", "qzeros", "input_layernorm.weight"}) {
    const bool norm = std::string_view(suffix).find('.') != std::string_view::npos;
    const std::string victim = std::string(norm ? "model.layers.1." : "model.layers.1.mlp.up_proj.") + suffix;
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, info] : checkpoint->tensors()) tensors[name] = checkpoint->tensor(name).value();
    std::vector<uint8_t> bytes = copy_elements<uint8_t>(tensors[victim]);
    bytes[100] ^= 1;
    Tensor damaged = Tensor::of(DType::kU8, {bytes.size()}, std::move(bytes));
    damaged.dtype = tensors[victim].dtype;
    damaged.shape = tensors[victim].shape;
    tensors[victim] = damaged;
    ASSERT_TRUE(write_safetensors(folder.path() / "model.safetensors", tensors));
    EXPECT_THAT(prove(), AllOf(HasSubstr("differs from what was read"), HasSubstr("model.layers.1.")));
  }
}

// What dequantize and the conversion of GGUF files end with.
TEST(ProveTensors, ReadsBackWhatWasWritten) {
  const TemporaryFolder folder;
  const auto source = [](const std::string& name, float last) {
    const Tensor tensor = Tensor::of(DType::kF32, {3}, std::vector<float>{1.f, 2.f, last});
    return TensorSource{name, tensor.info(), [tensor]() -> Expected<Tensor> { return tensor; }, {}};
  };
  const std::vector<TensorSource> tensors = {source("a.weight", 3.f), source("b.weight", 4.f)};
  ASSERT_TRUE(write_checkpoint(folder.path(), tensors));
  EXPECT_EQ(prove_tensors(tensors, folder.path()).value(), 2u);
  const std::vector<TensorSource> others = {source("a.weight", 3.f), source("b.weight", 5.f)};
  const auto proved = prove_tensors(others, folder.path());
  ASSERT_FALSE(proved);
  EXPECT_EQ(proved.error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(proved.error().where, "b.weight");
}

}  // namespace
}  // namespace nibble
