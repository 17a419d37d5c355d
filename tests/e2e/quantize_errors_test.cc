// `nibble quantize` with something wrong: an error that says what, where and how to fix it, before or during
// the work, and nothing left behind.

#include <algorithm>
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/safetensors.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// What is found in the folder, for "nothing left behind".
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// Files that a test gives to --dataset, and a folder for what comes out.
class QuantizeErrors : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(create_folder(inputs()).has_value());
    ASSERT_TRUE(create_folder(outputs()).has_value());
    add("empty.txt", "");
    add("one.txt", "x");
    add("latin1.txt", "caf\xE9 au lait, garçon");
    add("zip.txt", std::string_view("PK\x03\x04\x00\x00\x00 and so on", 17));
    add("broken.jsonl", "{\"text\": \"A dog and a cat went home.\"}\n{\"text\": \"cut");
    add("short.jsonl", "{\"text\": \"Hi.\"}\n");
    add("file", "not a folder");
    add_tokens("foreign.safetensors", Tensor::of(DType::kI64, {1, 4}, std::vector<int64_t>{5, 6, 151643, 7}));
    add_tokens("float.safetensors", Tensor::of(DType::kF32, {1, 2}, std::vector<float>{1.f, std::nanf("")}));
    add_tokens("one.safetensors", Tensor::of(DType::kI32, {3, 1}, std::vector<int32_t>{5, 6, 7}));
  }

  fs::path inputs() const { return folder_.path() / "in"; }
  fs::path outputs() const { return folder_.path() / "out"; }
  std::string input(const std::string& name) const { return (inputs() / name).string(); }

  void add(const std::string& name, std::string_view content) const {
    ASSERT_TRUE(write_file(inputs() / name, content).has_value());
  }
  void add_tokens(const std::string& name, Tensor ids) const {
    std::map<std::string, Tensor> tensors;
    tensors["input_ids"] = std::move(ids);
    ASSERT_TRUE(write_safetensors(inputs() / name, tensors).has_value());
  }

  // A run that fails in the middle keeps what it has done for the next one, but no folder that is a model.
  void expect_error_within(const std::string& model_folder, const std::vector<std::string>& more,
                           const std::string& where) const {
    const fs::path out = outputs() / "q";
    std::vector<std::string> arguments = {"quantize", model_folder, "-o", out.string(), "-q"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = run_program(arguments);
    SCOPED_TRACE(testing::Message() << testing::PrintToString(more) << " says:\n" << result.err);
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, testing::StartsWith("error: "));
    EXPECT_THAT(result.err, HasSubstr(where));
    EXPECT_THAT(result.err, testing::ContainsRegex("\n  .*(fetch|check)")) << "it says how to fix it";
    EXPECT_FALSE(fs::exists(out / "config.json"));
    EXPECT_FALSE(fs::exists(out / "model.safetensors"));
    fs::remove_all(out);
  }

  // Runs `nibble quantize MODEL -o OUT` with more arguments and expects one error.
  void expect_error(const std::string& model_folder, const fs::path& out,
                    const std::vector<std::string>& more, int status,
                    const std::vector<std::string>& says) const {
    std::vector<std::string> arguments = {"quantize", model_folder, "-o", out.string(), "-q"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = run_program(arguments);
    SCOPED_TRACE(testing::Message() << testing::PrintToString(more) << " says:\n" << result.err);
    EXPECT_EQ(result.status, status);
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(is_one_error(result.err));
    EXPECT_THAT(result.err, HasSubstr("\n  ")) << "it says how to fix it";
    for (const std::string& text : says) EXPECT_THAT(result.err, HasSubstr(text));
    EXPECT_THAT(names_in(outputs()), testing::IsEmpty());
  }

 private:
  TemporaryFolder folder_;
};

TEST_F(QuantizeErrors, OfTheCommandLine) {
  struct Case {
    std::vector<std::string> arguments;
    int status;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {{"--seqlen", "1"}, 2, {"--seqlen", "\"1\" is not a whole number from 2"}},
      {{"--nsamples", "0"}, 2, {"--nsamples", "\"0\" is not a whole number from 1"}},
      {{"--damp-percent", "2"}, 2, {"damp_percent is 2", "between 0 and 1"}},
      {{"--damp-percent", "nan"}, 2, {"--damp-percent", "\"nan\" is not a number"}},
      {{"--bits", "9"}, 2, {"--bits", "from 2 to 8"}},
      {{"--bits", "5", "--format", "gptq"}, 2, {"bits is 5", "gptq_p"}},
      {{"--group-size", "0"}, 2, {"group_size is 0", "-1 (all inputs)"}},
      {{"--group-size", "96"},
       2,
       {"model.layers.0.", "group_size 96 does not divide", "Group sizes that fit"}},
      {{"--method", "awq", "--group-size", "96"},
       2,
       {"group_size 96 does not divide", "Group sizes that fit"}},
      {{"--method", "awq", "--bits", "3"}, 2, {"bits is 3", "AWQ checkpoints have 4"}},
      {{"--method", "awq", "--format", "gptq"}, 2, {"--format gptq is a layout of GPTQ"}},
      {{"--method", "gptq", "--format", "gemm"}, 2, {"--format gemm is a layout of AWQ", "--method awq"}},
      {{"--method", "nf4", "--bits", "4"}, 2, {"--bits says nothing to nf4"}},
      {{"--method", "nf4", "--nsamples", "8"}, 2, {"--nsamples says nothing to nf4"}},
      {{"--method", "nf4", "--desc-act"}, 2, {"--desc-act says nothing to nf4"}},
      {{"--method", "int8", "--double-quant"}, 2, {"--double-quant says nothing to int8"}},
      {{"--method", "gptqq"}, 2, {"--method", "gptqq", "gptq"}},
      {{"--for", "llama.cpp"}, 2, {"--for", "llama.cpp", "vllm"}},
      {{"--for", "vllm", "--bits", "5"}, 2, {"vLLM does not read the layout gptq_p", "--format"}},
      {{"--for", "gptqmodel", "--group-size", "4"},
       2,
       {"no kernel for group_size 4", "Group sizes that fit"}},
      {{"--dynamic", "{\"+:a\": {\"bits\": 8"}, 2, {"dynamic", "-:PATTERN"}},
      {{"--dynamic", "{\"+:a(\": {\"bits\": 8}}"}, 2, {"a(", "not valid"}},
      {{"--dynamic", "{\"+:a\": {\"bits\": 9}}"}, 2, {"\"a\"", "bits is 9"}},
      {{"--dynamic", "{\"+:a\": {\"bit\": 8}}"}, 2, {"+:a", "\"bit\" is not a setting"}},
      {{"--dynamic", "rules-that-are-not-there.json"}, 1, {"rules-that-are-not-there.json"}},
      {{"--max-memory", "much"}, 2, {"--max-memory", "much"}},
  };
  for (const Case& c : cases)
    expect_error(model("tiny-llama"), outputs() / "q", c.arguments, c.status, c.says);
}

TEST_F(QuantizeErrors, OfTheData) {
  struct Case {
    std::string dataset;
    int status;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {input("empty.txt"), 2, {"empty.txt: the file is empty"}},
      {input("one.txt"), 2, {"one.txt: the text has 1 token", "needs 2"}},
      {input("latin1.txt"), 2, {"latin1.txt: the text is not UTF-8", "iconv"}},
      {input("zip.txt"), 2, {"zip.txt: byte 4 is 0"}},
      {input("broken.jsonl"), 2, {"broken.jsonl: line 2", "Each line is an object"}},
      {input("short.jsonl"), 2, {"no calibration data", "at most 10 tokens were left out"}},
      {input("missing.txt"), 1, {"missing.txt", "No such file"}},
      {input("missing.safetensors"), 1, {"missing.safetensors"}},
      {input("foreign.safetensors"),
       2,
       {"foreign.safetensors: input_ids row 0: token 151643 is outside the model's vocabulary of 2048",
        "tokenizer of another model"}},
      {input("float.safetensors"), 2, {"float.safetensors: input_ids: elements are F32", "I32 or I64"}},
      {input("one.safetensors"), 2, {"no calibration data", "less than 2 tokens"}},
      {input("empty.txt") + ":num=0", 2, {"num must be a whole number from 1"}},
      {input("empty.txt") + ",", 2, {"the name of a file is missing"}},
      {inputs().string(), 2, {inputs().string() + ": not a regular file"}},
  };
  for (const Case& c : cases) {
    expect_error(model("tiny-llama"), outputs() / "q", {"--dataset", c.dataset}, c.status, c.says);
  }
}

TEST_F(QuantizeErrors, OfTheModelAndTheOutput) {
  expect_error(input("no-model"), outputs() / "q", {}, 1, {"no-model: no such folder or file"});
  expect_error(model("gptq-4b-g128"), outputs() / "q", {}, 2, {"quantized already"});
  // Below a file, and where no folder can be made: what a read-only disk is to others than root.
  expect_error(model("tiny-llama"), inputs() / "file" / "q", {"--method", "rtn"}, 1, {"Not a directory"});
  expect_error(model("tiny-llama"), "/proc/nibble-output", {"--method", "rtn"}, 3, {"/proc/nibble-output"});
  expect_error(model("tiny-llama"), inputs() / "file", {"--method", "rtn"}, 2, {"is a file"});
  expect_error(model("tiny-llama"), inputs(), {"--method", "rtn"}, 2, {"not empty", "-o"});
  EXPECT_TRUE(fs::exists(inputs() / "empty.txt"));
}

// A copy of tiny-llama, some of whose weights are no numbers.
void write_damaged_model(const fs::path& folder, const std::string& name, float value) {
  ASSERT_TRUE(create_folder(folder).has_value());
  const fs::path source = model("tiny-llama");
  for (const auto& entry : fs::directory_iterator(source)) {
    if (entry.path().extension() != ".safetensors") {
      fs::copy_file(entry.path(), folder / entry.path().filename());
    }
  }
  const auto file = SafetensorsFile::open(source / "model.safetensors");
  ASSERT_TRUE(file) << to_string(file.error());
  std::map<std::string, Tensor> tensors;
  for (const auto& [tensor, entry] : file->header().tensors) tensors[tensor] = file->tensor(tensor).value();
  const Tensor& damaged = tensors.at(name);
  std::vector<float> values(damaged.size(), 0.01f);
  values[values.size() / 2] = value;
  tensors[name] = Tensor::of(DType::kF32, damaged.shape, values);
  ASSERT_TRUE(write_safetensors(folder / "model.safetensors", tensors).has_value());
}

TEST_F(QuantizeErrors, OfWeightsThatAreNoNumbers) {
  const std::string module = "model.layers.1.mlp.up_proj";
  const float inf = std::numeric_limits<float>::infinity();
  write_damaged_model(inputs() / "nan", module + ".weight", std::nanf(""));
  write_damaged_model(inputs() / "inf", module + ".weight", -inf);
  for (const char* const kind : {"nan", "inf"}) {
    for (const char* const method : {"gptq", "awq", "rtn", "nf4", "int8"}) {
      SCOPED_TRACE(kind);
      std::vector<std::string> more = {"--method", method};
      if (std::string_view(method) == "gptq" || std::string_view(method) == "awq")
        more.insert(more.end(), {"--nsamples", "4", "--seqlen", "64"});
      expect_error_within(input(kind), more, module);
    }
  }
}

TEST_F(QuantizeErrors, OfActivationsThatAreNoNumbers) {
  write_damaged_model(inputs() / "norm", "model.layers.1.input_layernorm.weight",
                      std::numeric_limits<float>::quiet_NaN());
  expect_error_within(input("norm"), {"--nsamples", "4", "--seqlen", "64"}, "model.layers.1.");
}

}  // namespace
}  // namespace nibble::test
