// nibble inspect --check and --explain: models with one fault, and whether it is named.

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/model_copy.h"
#include "tests/e2e/run_program.h"

namespace nibble::test {
namespace {

using testing::HasSubstr;

// A copy of the tensor with one element changed.
template <class T>
Tensor with_element(const Tensor& tensor, size_t index, T value) {
  std::vector<T> values = copy_elements<T>(tensor);
  values.at(index) = value;
  return Tensor::of(tensor.dtype, tensor.shape, std::move(values));
}

struct Fault {
  std::string kind;
  std::string severity = "fault";
  std::string name;
  size_t count = 1;
  std::string what;
};

void expect_finding(const std::filesystem::path& folder, const Fault& fault) {
  const ProgramResult result = run_program({"inspect", folder.string(), "--check", "--json"});
  EXPECT_EQ(result.status, fault.severity == "fault" ? 1 : 0) << result;
  const Json findings = result.json()["check"]["findings"];
  for (const Json& finding : findings) {
    if (finding["kind"] != fault.kind || finding["name"] != fault.name) continue;
    EXPECT_EQ(finding["severity"], fault.severity);
    EXPECT_EQ(finding["count"], fault.count);
    EXPECT_THAT(finding["what"].get<std::string>(), HasSubstr(fault.what));
    return;
  }
  ADD_FAILURE() << fault.kind << " of " << fault.name << " is not among " << findings;
}

const std::string kUp = "model.layers.1.mlp.up_proj";

TEST(InspectCheck, GoodModelsHaveNoFaults) {
  for (const char* const name :
       {"tiny-llama", "gptq-4b-g128-desc_act", "gptq-4b-g32-asym", "gptq-2b-g32-asym-v2", "awq-gemm-g64",
        "bnb-nf4-dq", "bnb-fp4", "bnb-int8"}) {
    const ProgramResult result = run_program({"inspect", model(name), "--check"});
    EXPECT_EQ(result.status, 0) << name << "\n" << result;
    EXPECT_THAT(result.out, testing::Not(HasSubstr("fault "))) << name;
  }
}

TEST(InspectCheck, NotANumberIsNamedWithItsPlace) {
  const ModelCopy copy("tiny-llama");
  auto tensors = copy.tensors();
  Tensor& weight = tensors.at(kUp + ".weight");
  weight = with_element<uint16_t>(with_element<uint16_t>(weight, 256 + 7, 0x7E00), 300, 0xFE01);
  copy.write(tensors);
  expect_finding(copy.path(), {.kind = "nan",
                               .name = kUp + ".weight",
                               .count = 2,
                               .what = "2 of 131072 values are NaN, the first at [1, 7]"});
}

TEST(InspectCheck, InfinityAndWhatCannotBeDecodedAreNamed) {
  const ModelCopy copy("gptq-4b-g128");
  auto tensors = copy.tensors();
  Tensor& scales = tensors.at(kUp + ".scales");
  scales = with_element<uint16_t>(scales, 3, 0x7C00);
  copy.write(tensors);
  expect_finding(copy.path(), {.kind = "inf", .name = kUp + ".scales", .what = "the first at [0, 3]"});
  expect_finding(copy.path(), {.kind = "codes", .name = kUp, .what = "scales"});
}

TEST(InspectCheck, ZeroGroupsAreNoted) {
  const ModelCopy gptq("gptq-4b-g128");
  auto tensors = gptq.tensors();
  Tensor& scales = tensors.at(kUp + ".scales");
  scales = with_element<uint16_t>(scales, 512 + 3, 0);
  gptq.write(tensors);
  expect_finding(gptq.path(), {"zero_group", "note", kUp, 1, "1 of 1024 scales are 0, the first at [1, 3]"});

  const ModelCopy bnb("bnb-nf4");
  tensors = bnb.tensors();
  Tensor& absmax = tensors.at(kUp + ".weight.absmax");
  absmax = with_element<float>(absmax, 5, 0.f);
  bnb.write(tensors);
  expect_finding(bnb.path(), {"zero_group", "note", kUp, 1, "absmax are 0, the first at [5]"});
}

TEST(InspectCheck, ImpossibleZeroPointsAreNamed) {
  const ModelCopy copy("gptq-4b-g32-asym");
  // As AutoGPTQ writes them; GPTQModel's own files can hold a 0.
  std::filesystem::remove(copy.path() / "quantize_config.json");
  copy.edit_config([](Json& config) { config["quantization_config"].erase("meta"); });
  auto tensors = copy.tensors();
  Tensor& qzeros = tensors.at(kUp + ".qzeros");
  qzeros = with_element<uint32_t>(qzeros, 0, 0x7777777F);
  copy.write(tensors);
  expect_finding(copy.path(), {.kind = "zero_point",
                               .name = kUp,
                               .what = "outside 1 to 15, which gptq can hold, the first at [0, 0]"});
}

TEST(InspectCheck, NegativeMagnitudesAreNamed) {
  const ModelCopy nf4("bnb-nf4");
  auto tensors = nf4.tensors();
  Tensor& absmax = tensors.at(kUp + ".weight.absmax");
  absmax = with_element<float>(absmax, 5, -1.f);
  nf4.write(tensors);
  expect_finding(
      nf4.path(),
      {.kind = "absmax", .name = kUp, .what = "absmax are no magnitude of a float16, the first at [5]"});

  const ModelCopy int8("bnb-int8");
  tensors = int8.tensors();
  Tensor& scb = tensors.at(kUp + ".SCB");
  scb = with_element<float>(scb, 9, -2.f);
  int8.write(tensors);
  expect_finding(int8.path(), {.kind = "absmax", .name = kUp, .what = "the first at [9]"});
}

TEST(InspectCheck, DuplicateMissingAndUnusedTensorsAreNamed) {
  const ModelCopy copy("tiny-llama");
  auto tensors = copy.tensors();
  tensors[kUp + ".weight"] = tensors.at("model.layers.0.mlp.up_proj.weight");
  copy.write(tensors);
  expect_finding(copy.path(),
                 {"duplicate", "note", kUp + ".weight", 1, "the bytes of model.layers.0.mlp.up_proj.weight"});

  tensors["model.layers.7.extra.weight"] = tensors.at("model.norm.weight");
  copy.write(tensors);
  expect_finding(copy.path(), {.kind = "structure", .name = "", .what = "model.layers.7.extra.weight"});
}

// The answer to a question: {"question", "answer", "evidence", "disagreed"}.
Json explained(const std::string& folder, std::string_view question) {
  const ProgramResult result = run_program({"inspect", folder, "--explain", "--json"});
  EXPECT_EQ(result.status, 0) << result;
  const Json json = result.json();
  for (const Json& answer : json["explain"]) {
    if (answer["question"] == question) return answer;
  }
  ADD_FAILURE() << question << " is not answered";
  return {};
}

std::string all_of(const Json& list) { return list.dump(); }

TEST(InspectExplain, SaysWhereAnAnswerComesFrom) {
  const std::string gptq = model("gptq-4b-g128");
  const Json method = explained(gptq, "method");
  EXPECT_EQ(method["answer"], "gptq");
  EXPECT_THAT(all_of(method["evidence"]), HasSubstr("config.json: quant_method is"));
  EXPECT_THAT(all_of(method["evidence"]), HasSubstr("g_idx, qweight, qzeros, scales"));
  EXPECT_EQ(method["disagreed"], Json::array());
  EXPECT_EQ(explained(gptq, "zero points")["answer"], "stored as zero - 1");
  EXPECT_EQ(explained(gptq, "layout")["answer"], "gptq, 4 bits, groups of 128");
  EXPECT_EQ(explained(model("gptq-4b-g128-desc_act"), "order of inputs")["answer"], "g_idx tells the group");
  EXPECT_EQ(explained(model("bnb-nf4-dq"), "method")["answer"], "bitsandbytes nf4");
  EXPECT_THAT(all_of(explained(model("bnb-nf4-dq"), "zero points")["evidence"]), HasSubstr("nested_absmax"));
  EXPECT_EQ(explained(model("tiny-llama"), "method")["answer"], "none");
  EXPECT_EQ(explained(model("tiny-llama"), "tied weights")["answer"], "the head is the embedding");
}

TEST(InspectExplain, DataAndConfigurationMayDisagree) {
  const auto without_old_config = [](const ModelCopy& copy) {
    std::filesystem::remove(copy.path() / "quantize_config.json");
  };
  const ModelCopy format("gptq-4b-g128");
  without_old_config(format);
  format.edit_config([](Json& config) {
    for (const char* const key : {"checkpoint_format", "format"})
      config["quantization_config"][key] = "gptq_v2";
  });
  const Json zeros = explained(format.path().string(), "zero points");
  EXPECT_EQ(zeros["answer"], "stored as zero - 1");
  EXPECT_THAT(all_of(zeros["disagreed"]), HasSubstr("reading as gptq"));

  const ModelCopy order("gptq-4b-g128-desc_act");
  without_old_config(order);
  order.edit_config([](Json& config) { config["quantization_config"]["desc_act"] = false; });
  EXPECT_THAT(all_of(explained(order.path().string(), "order of inputs")["disagreed"]),
              HasSubstr("desc_act is false, but g_idx has an order"));

  const ModelCopy listed("awq-gemm-g64");
  listed.edit_config([](Json& config) {
    config["quantization_config"]["modules_to_not_convert"] = {"layers.1.mlp.up_proj"};
  });
  EXPECT_THAT(all_of(explained(listed.path().string(), "modules")["disagreed"]), HasSubstr(kUp));

  const ModelCopy tied("tiny-llama");
  auto tensors = tied.tensors();
  tensors["lm_head.weight"] = with_element<uint16_t>(tensors.at("model.embed_tokens.weight"), 0, 0x3C00);
  tied.write(tensors);
  EXPECT_THAT(all_of(explained(tied.path().string(), "tied weights")["disagreed"]),
              HasSubstr("lm_head.weight differs from model.embed_tokens.weight"));
}

TEST(InspectExplain, OlderTokenizersHaveNames) {
  for (const auto& [tokenizer, kind] :
       {std::pair("spm-llama", "SentencePiece BPE"), std::pair("spm-unigram", "SentencePiece Unigram"),
        std::pair("gpt2-files", "BPE"), std::pair("bert-files", "WordPiece"),
        std::pair("t5-unigram", "Unigram"), std::pair("bert-wordpiece", "WordPiece")}) {
    const ModelCopy copy("tiny-llama");
    std::filesystem::remove(copy.path() / "tokenizer.json");
    std::filesystem::remove(copy.path() / "tokenizer_config.json");
    for (const auto& entry : std::filesystem::directory_iterator(data_folder() / "tokenizers" / tokenizer)) {
      if (entry.path().filename() == "config.json") continue;
      std::filesystem::copy_file(entry.path(), copy.path() / entry.path().filename());
    }
    EXPECT_EQ(explained(copy.path().string(), "tokenizer")["answer"], kind) << tokenizer;
  }
}

TEST(InspectExplain, IsAPageForPeople) {
  const ProgramResult result = run_program({"inspect", model("gptq-4b-dynamic"), "--explain", "--check"});
  EXPECT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.out, HasSubstr("\nmethod           gptq\n  because "));
  EXPECT_THAT(result.out, HasSubstr("tensors read"));
}

}  // namespace
}  // namespace nibble::test
