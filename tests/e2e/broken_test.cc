// Models with one thing wrong: never a crash, always one line that says what, where and how to fix it.

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "tests/e2e/model_copy.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

void expect_error(const ProgramResult& result, int status,
                  const testing::Matcher<const std::string&>& message) {
  EXPECT_EQ(result.status, status) << result;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(is_one_error(result.err)) << result;
  EXPECT_THAT(result.err, message);
  EXPECT_THAT(result.err, HasSubstr("\n  ")) << "it says how to fix it";
}

TEST(Broken, TruncatedShardSaysWhichTensorIsCut) {
  const ModelCopy copy("tiny-llama");
  const fs::path file = copy.path() / "model.safetensors";
  fs::resize_file(file, fs::file_size(file) - 1000);
  expect_error(copy.run(), 1,
               AllOf(HasSubstr("model.layers.2.self_attn.v_proj.weight: ends at byte"),
                     HasSubstr("fetch the file again")));
  expect_error(copy.inspect(), 1, HasSubstr("model.safetensors"));
}

TEST(Broken, MissingWeightsSayWhatIsLookedFor) {
  const ModelCopy copy("tiny-llama");
  fs::remove(copy.path() / "model.safetensors");
  expect_error(copy.run(), 1, HasSubstr("model.safetensors"));
  ASSERT_TRUE(write_file(copy.path() / "pytorch_model.bin", "pickle").has_value());
  expect_error(copy.run(), 3,
               AllOf(HasSubstr("pickle files (pytorch_model.bin)"), HasSubstr("save_pretrained")));
}

TEST(Broken, MissingTokenizerOrConfigIsNamed) {
  const ModelCopy copy("tiny-llama");
  fs::remove(copy.path() / "tokenizer.json");
  expect_error(copy.run(), 1, HasSubstr("tokenizer.json"));
  fs::remove(copy.path() / "config.json");
  expect_error(copy.inspect(), 1, HasSubstr("config.json"));
}

TEST(Broken, WrongQuantMethodListsTheRightOnes) {
  const ModelCopy copy("gptq-4b-g128");
  copy.edit_config([](Json& config) {
    config["quantization_config"]["quant_method"] = "gptqq";
    config["quantization_config"].erase("method");
  });
  expect_error(copy.run(), 3,
               AllOf(HasSubstr("quant_method"), HasSubstr("gptqq"), HasSubstr("gptq"), HasSubstr("awq")));
  expect_error(copy.inspect(), 3, HasSubstr("gptqq"));
}

TEST(Broken, AnotherQuantMethodIsFoundOut) {
  const ModelCopy copy("gptq-4b-g128");
  fs::remove(copy.path() / "quantize_config.json");
  copy.edit_config([](Json& config) {
    config["quantization_config"] = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}};
  });
  const ProgramResult result = copy.run();
  EXPECT_EQ(result.signal, 0);
  EXPECT_NE(result.status, 0) << result;
  EXPECT_TRUE(is_one_error(result.err)) << result;
}

TEST(Broken, ATensorTooFewIsNamed) {
  for (const char* const name : {"tiny-llama", "gptq-4b-g128", "awq-gemm-g64", "bnb-nf4", "bnb-int8"}) {
    const ModelCopy copy(name);
    auto tensors = copy.tensors();
    tensors.erase("model.layers.1.post_attention_layernorm.weight");
    copy.write(tensors);
    expect_error(copy.run(), 1, HasSubstr("model.layers.1.post_attention_layernorm"));
    expect_error(copy.inspect(), 1, HasSubstr("model.layers.1.post_attention_layernorm"));
  }
}

TEST(Broken, ATensorTooManyIsNamed) {
  for (const char* const name : {"tiny-llama", "gptq-4b-g128", "awq-gemm-g64", "bnb-nf4", "bnb-int8"}) {
    const ModelCopy copy(name);
    auto tensors = copy.tensors();
    tensors["model.layers.3.input_layernorm.weight"] = tensors.at("model.layers.2.input_layernorm.weight");
    copy.write(tensors);
    expect_error(copy.run(), 1, HasSubstr("model.layers.3.input_layernorm.weight"));
    expect_error(copy.inspect(), 1, HasSubstr("model.layers.3.input_layernorm.weight"));
  }
}

TEST(Broken, APartOfAQuantizedModuleTooFewIsNamed) {
  for (const auto& [name, tensor] : {std::pair("gptq-4b-g128", "model.layers.1.mlp.up_proj.scales"),
                                     std::pair("awq-gemm-g64", "model.layers.1.mlp.up_proj.qzeros"),
                                     std::pair("bnb-nf4", "model.layers.1.mlp.up_proj.weight.absmax"),
                                     std::pair("bnb-int8", "model.layers.1.mlp.up_proj.SCB")}) {
    const ModelCopy copy(name);
    auto tensors = copy.tensors();
    ASSERT_EQ(tensors.erase(tensor), 1u) << tensor;
    copy.write(tensors);
    const ProgramResult result = copy.run();
    EXPECT_EQ(result.status, 1) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
    EXPECT_THAT(result.err, HasSubstr("model.layers.1.mlp.up_proj")) << tensor;
  }
}

// ---------------------------------------------------------------------------------------------------
// Every folder of tests/data/malformed.

std::vector<std::string> malformed_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(data_folder() / "malformed")) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool starts_with(const std::string& text, std::string_view start) { return text.rfind(start, 0) == 0; }

// A folder in which nothing but the one thing is wrong: weights get a tokenizer, a tokenizer or a
// template get weights.
fs::path complete(const std::string& name, const TemporaryFolder& folder) {
  const fs::path source = data_folder() / "malformed" / name;
  const fs::path out = folder.path() / name;
  const auto copy = [&](const fs::path& from) {
    for (const auto& entry : fs::directory_iterator(from)) {
      const fs::path target = out / entry.path().filename();
      if (!fs::exists(target)) fs::copy_file(entry.path(), target);
    }
  };
  fs::create_directory(out);
  copy(source);
  if (starts_with(name, "tokenizer-") || starts_with(name, "chat-")) {
    copy(model("tiny-llama"));
  } else if (name != "valid-tokenizer") {
    copy(data_folder() / "malformed/valid-tokenizer");
  } else {
    copy(data_folder() / "malformed/valid-float");
  }
  // index-parent-path points there: a reader that follows it finds something.
  const fs::path valid = folder.path() / "valid-float";
  if (!fs::exists(valid))
    fs::copy(data_folder() / "malformed/valid-float", valid, fs::copy_options::recursive);
  return out;
}

// The one difference from a good model, in the words of who made it.
std::string why(const std::string& name) {
  std::string text = read_text_file(data_folder() / "malformed" / name / "why.txt").value_or("");
  return text.substr(0, text.find_last_not_of(" \n") + 1);
}

class Malformed : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Folders, Malformed, testing::ValuesIn(malformed_names()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

TEST_P(Malformed, IsRefusedInOneLine) {
  static const std::set<std::string> kHarmless = {
      "tokenizer-regex-catastrophic",  // a valid pattern; only some texts make it slow
  };
  static const std::set<std::string> kNotSeenInHeaders = {
      "config-missing-model-type",
      "config-unknown-model-type",  // judged by the names of the tensors
      "gptq-g_idx-negative",       "gptq-g_idx-too-large", "gptq-scales-inf",
      "gptq-scales-nan",           "weights-nan"};
  const std::string name = GetParam();
  const TemporaryFolder folder;
  const fs::path path = complete(name, folder);
  const bool valid = starts_with(name, "valid-");
  // Neither the codes, nor tokenizers and templates, are looked into by inspect.
  const bool only_run =
      starts_with(name, "tokenizer-") || starts_with(name, "chat-") || kNotSeenInHeaders.count(name) > 0;

  const RunOptions options = {.timeout = std::chrono::seconds(60)};
  const ProgramResult inspected = run_program({"inspect", path.string()}, options);
  EXPECT_EQ(inspected.signal, 0) << inspected;
  EXPECT_FALSE(inspected.timed_out);
  if (valid) {
    EXPECT_EQ(inspected.status, 0) << inspected;
  }
  if (!valid && !only_run && kHarmless.count(name) == 0) {
    EXPECT_GT(inspected.status, 0) << inspected;
  }
  if (inspected.status != 0) {
    EXPECT_TRUE(is_one_error(inspected.err)) << inspected;
  }

  const ProgramResult result = run_program({"run", path.string(), "-p", "aaaa", "-n", "1"}, options);
  EXPECT_EQ(result.signal, 0) << result;
  EXPECT_FALSE(result.timed_out);
  if (valid || kHarmless.count(name) > 0) {
    EXPECT_EQ(result.status, 0) << result;
  } else {
    EXPECT_THAT(result.status, testing::AnyOf(1, 3)) << result;
    EXPECT_TRUE(is_one_error(result.err)) << result;
  }
}

// What can be said in a cell of a table, whatever it is; `folder` is not the same in every run.
std::string as_cell(std::string text, const std::string& folder) {
  for (size_t at = 0; (at = text.find(folder, at)) != text.npos;) text.replace(at, folder.size(), "");
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '<' || c == '*' || c == '_' || c == '`') out += '\\';
    if (c == '\n') {
      out += "<br>";
    } else {
      out += c;
    }
  }
  return out;
}

// docs/malformed.md is what a user sees: a changed message changes the document.
TEST(MalformedList, TheDocumentHasTheMessagesOfToday) {
  std::string table =
      "# Broken files, and what Nibble says\n\n"
      "Each folder of `tests/data/malformed` is a small model with one thing wrong. This is what `nibble "
      "run` says to\n"
      "it, written and checked by `tests/e2e/broken_test.cc`: status 1, or 3 of what is valid and not "
      "supported.\n\n"
      "| folder | what is wrong | status | message |\n| --- | --- | --- | --- |\n";
  for (const std::string& name : malformed_names()) {
    const TemporaryFolder folder;
    const std::string path = complete(name, folder).string();
    const ProgramResult result = run_program({"run", path, "-p", "aaaa", "-n", "1"});
    std::string message =
        result.status == 0 ? "" : result.err.substr(0, result.err.find_last_not_of('\n') + 1);
    message = as_cell(std::move(message), folder.path().string() + "/");
    table += fmt::format("| {} | {} | {} | {} |\n", name, as_cell(why(name), "\1"), result.status, message);
  }
  const fs::path document = data_folder() / "../../docs/malformed.md";
  const fs::path current = fs::current_path() / "malformed.md";
  if (read_text_file(document).value_or("") == table) return;
  ASSERT_TRUE(write_file(current, table).has_value());
  ADD_FAILURE() << "read the new messages as a user would, then: cp " << current << " "
                << fs::weakly_canonical(document);
}

}  // namespace
}  // namespace nibble::test
