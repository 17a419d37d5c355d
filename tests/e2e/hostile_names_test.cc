// Names in files may hold whatever steers a terminal or starts a line of their own: no command passes it on.

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/model_copy.h"

namespace nibble::test {
namespace {

using testing::HasSubstr;

// A change of color, a new line, DEL, U+009B (an escape sequence in one character), a reset of the terminal.
const std::string kHostile =
    "evil\x1b[31m\nFAKE\x7f\u009b2J\x1b"
    "c";

void expect_harmless(const ProgramResult& result) {
  EXPECT_EQ(result.signal, 0) << result;
  for (const std::string& text : {result.out, result.err}) {
    EXPECT_TRUE(std::ranges::all_of(text, [](char c) {
      return static_cast<unsigned char>(c) >= 0x20 ? c != '\x7f' : c == '\n';
    })) << result;
    EXPECT_EQ(text.find("\u009b"), text.npos) << result;
    EXPECT_EQ(text.find("\nFAKE"), text.npos) << result;
  }
}

// One more tensor and one more setting of hostile names.
void make_hostile(const ModelCopy& copy) {
  auto tensors = copy.tensors();
  tensors[kHostile] = Tensor::of<float>(DType::kF32, {2}, {1.f, 2.f});
  copy.write(tensors);
  copy.edit_config([](Json& config) { config[kHostile] = kHostile; });
}

TEST(HostileNames, InDifferences) {
  const ModelCopy copy("tiny-llama");
  make_hostile(copy);
  ASSERT_TRUE(write_file(copy.path() / (kHostile + ".json"), "{}"));
  for (const std::vector<std::string>& order :
       {std::vector<std::string>{"diff", model("tiny-llama"), copy.path().string()},
        {"diff", copy.path().string(), model("tiny-llama"), "--all"}}) {
    const ProgramResult result = run_program(order);
    expect_harmless(result);
    EXPECT_EQ(result.status, 1) << result;
    EXPECT_THAT(result.out, HasSubstr("evil\\x1b[31m\\x0aFAKE\\x7f\\x9b2J\\x1bc")) << result;
  }
}

TEST(HostileNames, InPlansAndErrors) {
  const ModelCopy copy("tiny-llama");
  make_hostile(copy);
  const std::string folder = copy.path().string();
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"plan", folder},
        {"plan", folder, "--json"},
        {"inspect", folder},
        {"inspect", folder, "--check"},
        {"inspect", folder, "--explain"},
        {"run", folder, "-p", "x", "-n", "1"},
        {"quantize", folder, "--method", "nf4", "-o", folder + "/out"}}) {
    expect_harmless(run_program(arguments));
  }
}

TEST(HostileNames, OfFolders) {
  const ModelCopy copy("tiny-llama");
  const std::filesystem::path folder = copy.path() / kHostile;
  std::filesystem::create_directory(folder);
  for (const char* file : {"config.json", "model.safetensors", "tokenizer.json"}) {
    std::filesystem::copy_file(copy.path() / file, folder / file);
  }
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"plan", folder.string(), "--methods", "float,nf4"},
        {"diff", folder.string(), model("tiny-llama")},
        {"inspect", folder.string()},
        {"quantize", folder.string(), "--method", "nf4", "-o", (copy.path() / (kHostile + "2")).string()}}) {
    const ProgramResult result = run_program(arguments);
    expect_harmless(result);
    EXPECT_NE(result.status, 2) << result;
  }
}

}  // namespace
}  // namespace nibble::test
