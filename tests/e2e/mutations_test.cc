// Single bytes of small files changed, and the whole program run on the result: it works or says in one line
// what is wrong, in little time and memory. Every byte of every header gets its turn in the tests of
// tests/fuzz; these are a sample of them.

#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostBytes = size_t{200} << 20;

struct MutationCase {
  const char* folder;  // of tests/data/malformed
  const char* file;
  size_t most_bytes;  // of the file: where its header ends
};

std::ostream& operator<<(std::ostream& out, const MutationCase& c) {
  return out << c.folder << "/" << c.file;
}

class MutatedFile : public testing::TestWithParam<MutationCase> {};
INSTANTIATE_TEST_SUITE_P(Files, MutatedFile,
                         testing::Values(MutationCase{"valid-float", "model.safetensors", 1200},
                                         MutationCase{"valid-float", "config.json", 2000},
                                         MutationCase{"valid-gptq", "model.safetensors", 1500},
                                         MutationCase{"valid-gptq", "config.json", 2000},
                                         MutationCase{"valid-awq", "config.json", 2000},
                                         MutationCase{"valid-bnb4", "model.safetensors", 4000},
                                         MutationCase{"valid-bnb4", "config.json", 2000},
                                         MutationCase{"valid-int8", "model.safetensors", 2000},
                                         MutationCase{"valid-sharded", "model.safetensors.index.json", 2000},
                                         MutationCase{"valid-tokenizer", "tokenizer.json", 2000},
                                         MutationCase{"valid-tokenizer", "tokenizer_config.json", 2000}),
                         [](const auto& test) {
                           std::string name = fmt::format("{}_{}", test.param.folder, test.param.file);
                           for (char& c : name)
                             c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : 'X';
                           return name;
                         });

void expect_harmless(const std::vector<std::string>& arguments, const std::string& what) {
  const ProgramResult result = run_program(arguments, {.timeout = std::chrono::seconds(10)});
  EXPECT_EQ(result.signal, 0) << what << "\n" << result;
  EXPECT_FALSE(result.timed_out) << what;
  // 2: a value that exists, but not here, such as a bits of 9.
  EXPECT_TRUE(result.status >= 0 && result.status <= 3) << what << "\n" << result;
  EXPECT_LT(result.peak_rss_bytes, kMostBytes) << what;
  // --check has its say on stdout.
  if (result.status != 0 && result.out.empty()) {
    EXPECT_TRUE(is_one_error(result.err)) << what << "\n" << result;
  }
}

// The files of these folders of tests/data/malformed; the first one that has a file counts.
void copy_model(std::initializer_list<const char*> sources, const TemporaryFolder& folder) {
  for (const char* const source : sources) {
    for (const auto& entry : fs::directory_iterator(data_folder() / "malformed" / source)) {
      const fs::path target = folder.path() / entry.path().filename();
      if (!fs::exists(target)) fs::copy_file(entry.path(), target);
    }
  }
}

char mutated(char byte, size_t turn) {
  constexpr char kValues[] = {'\0', '\xff', '9', '-', '"', ' '};
  const size_t which = turn % (std::size(kValues) + 3);
  if (which < std::size(kValues)) return kValues[which];
  return static_cast<char>(byte ^ (1 << (turn % 8)));
}

TEST_P(MutatedFile, IsAnErrorOrWorks) {
  constexpr size_t kRuns = 16;  // of both commands
  const MutationCase& c = GetParam();
  const TemporaryFolder folder;
  // A tokenizer alone gets weights; weights get a tokenizer.
  const bool is_tokenizer = std::string_view(c.folder) == "valid-tokenizer";
  copy_model({c.folder, is_tokenizer ? "valid-float" : "valid-tokenizer"}, folder);
  const std::string original = read_text_file(folder.path() / c.file).value();
  const size_t bytes = std::min(original.size(), c.most_bytes);
  for (size_t run = 0; run < kRuns; ++run) {
    std::string text = original;
    const size_t place = run * bytes / kRuns + run % 7 % std::max<size_t>(1, bytes / kRuns);
    text[place] = mutated(text[place], run);
    ASSERT_TRUE(write_file(folder.path() / c.file, text).has_value());
    const std::string what =
        fmt::format("byte {}: {:#04x} -> {:#04x}", place, static_cast<uint8_t>(original[place]),
                    static_cast<uint8_t>(text[place]));
    expect_harmless({"inspect", folder.path().string(), "--check", "--explain"}, what);
    expect_harmless({"run", folder.path().string(), "-p", "aaaa", "-n", "1"}, what);
  }
}

// What a file claims is not what it gets: each of these numbers would be tera- or petabytes.
TEST(HugeClaims, AreNoAllocations) {
  for (const auto& [key, value] :
       {std::pair("num_hidden_layers", "2000000000"), std::pair("vocab_size", "2000000000"),
        std::pair("hidden_size", "2000000000"), std::pair("max_position_embeddings", "2000000000"),
        std::pair("intermediate_size", "2000000000"), std::pair("num_attention_heads", "1000000000")}) {
    const TemporaryFolder folder;
    copy_model({"valid-float", "valid-tokenizer"}, folder);
    Json config = parse_json(read_text_file(folder.path() / "config.json").value()).value();
    config[key] = parse_json(value).value();
    ASSERT_TRUE(write_file(folder.path() / "config.json", config.dump()).has_value());
    expect_harmless({"inspect", folder.path().string()}, key);
    expect_harmless({"run", folder.path().string(), "-p", "aaaa", "-n", "1"}, key);
  }
}

}  // namespace
}  // namespace nibble::test
