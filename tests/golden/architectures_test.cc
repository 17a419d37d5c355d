// Tiny random models of every architecture against Transformers, from both dialects of config.json.

#include <map>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/models/architecture.h"
#include "tests/golden/agreement.h"
#include "tests/golden/golden.h"
#include "tests/support/fixtures.h"
#include "tests/support/logits.h"

namespace nibble::test {
namespace {

struct ArchitectureCase {
  std::string name;
  std::string config;  // file name
};

void PrintTo(const ArchitectureCase& test, std::ostream* out) { *out << test.name << '/' << test.config; }

std::vector<ArchitectureCase> architecture_cases() {
  std::vector<ArchitectureCase> cases;
  for (const std::string& name : architecture_names()) {
    cases.push_back({name, "config.json"});
    cases.push_back({name, "config.v4.json"});
  }
  return cases;
}

class ArchitectureGolden : public testing::TestWithParam<ArchitectureCase> {
 protected:
  void SetUp() override {
    const std::filesystem::path source = data_folder() / "architectures" / GetParam().name;
    auto golden = load_golden(source / "goldens.safetensors");
    ASSERT_TRUE(golden.has_value()) << to_string(golden.error());
    golden_.emplace(*std::move(golden));
    tolerance_ = kFloatTolerance * golden_->logits_std;
    for (const auto& entry : std::filesystem::directory_iterator(source)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("model")) std::filesystem::copy_file(entry.path(), folder_.path() / name);
    }
    std::filesystem::copy_file(source / GetParam().config, folder_.path() / "config.json");
  }

  TemporaryFolder folder_;
  std::optional<Golden> golden_;
  double tolerance_ = 0.0;
};

INSTANTIATE_TEST_SUITE_P(Every, ArchitectureGolden, testing::ValuesIn(architecture_cases()),
                         [](const auto& test) {
                           return test.param.name + (test.param.config == "config.json" ? "" : "_v4");
                         });

TEST_P(ArchitectureGolden, LogitsAgree) {
  Runner runner(folder_.path(), in_float32());
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  const double share = expect_logits(runner, *golden_, tolerance_) / golden_->logits_std;
  RecordProperty("max_difference_of_std", fmt::format("{:.2e}", share));
  report(fmt::format("{} ({}): logits differ by {:.1e} of their standard deviation", GetParam().name,
                     GetParam().config, share));
}

// With the key/value cache, as the golden was made (it matters for llama_rope_dynamic alone, whose
// rotary base grows with the sequence while cached keys keep the old one).
TEST_P(ArchitectureGolden, GreedyContinuationIsTheSame) {
  Runner runner(folder_.path(), in_float32());
  ASSERT_TRUE(runner.model.has_value()) << to_string(runner.model.error());
  expect_greedy(runner, *golden_, tolerance_);
}

// What a row of the table differs from Llama in, as docs/architectures.md says it.
std::string building_blocks(const Architecture& row) {
  std::vector<std::string> parts = {row.norm == NormKind::kRms ? "RMSNorm" : "LayerNorm"};
  const auto add = [&](bool there, const char* part) {
    if (there) parts.emplace_back(part);
  };
  add(!row.norm_weight, "norms without weight");
  add(row.norm_adds_one, "norms stored as w - 1");
  add(!row.embed_norm.empty(), "norm behind the embedding");
  add(!row.positions.empty(), "learned positions");
  add(row.rotary_interleaved, "rotation of neighbouring pairs");
  add(!row.rotary && row.positions.empty(), "ALiBi");
  add(!row.block.q_norm.empty(), "norms of queries and keys");
  add(row.block.attention_in_norm.empty(), "norms behind the branches only");
  add(!row.block.attention_in_norm.empty() && !row.block.attention_out_norm.empty(),
      "norms before and behind the branches");
  add(!row.block.qkv.empty(), row.qkv_by_head ? "fused qkv by head" : "fused qkv");
  add(!row.block.gate_up.empty(), "fused gate and up");
  add(row.block.gate.empty() && row.block.gate_up.empty(), "MLP without gate");
  add(row.transposed_linears, "linears stored as [in, out]");
  add(!row.block.kv_a.empty(), "latent attention");
  add(!row.block.router.empty(), row.block.shared_expert.empty() ? "experts" : "experts, a shared expert");
  return fmt::format("{}", fmt::join(parts, ", "));
}

TEST(ArchitectureTable, TheDocumentHasARowForEachAndEachHasAGolden) {
  std::map<std::string, std::vector<std::string>> goldens;  // by model_type
  for (const std::string& name : architecture_names()) {
    const auto text = read_text_file(data_folder() / "architectures" / name / "config.json");
    ASSERT_TRUE(text.has_value()) << to_string(text.error());
    goldens[parse_json(*text).value()["model_type"].get<std::string>()].push_back("`" + name + "`");
  }
  const auto document = read_text_file(data_folder() / "../../docs/architectures.md");
  ASSERT_TRUE(document.has_value()) << to_string(document.error());
  std::string expected;
  for (const Architecture& row : architectures()) {
    const std::string model_type(row.model_type);
    EXPECT_TRUE(goldens.contains(model_type)) << model_type << " has no golden in tests/data/architectures";
    expected += fmt::format("| `{}` | {} | {} |\n", model_type, building_blocks(row),
                            fmt::join(goldens[model_type], ", "));
  }
  EXPECT_NE(document->find("| --- | --- | --- |\n" + expected), std::string::npos)
      << "the table in docs/architectures.md should be:\n"
      << expected;
}

}  // namespace
}  // namespace nibble::test
