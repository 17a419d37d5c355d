// A quantization that is killed, interrupted or out of space goes on with the same command and ends with the
// same bytes. tools/check-resume does the same for hours.

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<std::string> command(const fs::path& out, const std::vector<std::string>& more = {}) {
  const auto model = model_folder("tiny-llama");
  EXPECT_TRUE(model) << to_string(model.error());
  const std::string tokens = (data_folder() / "calibration-tokens.safetensors").string();
  std::vector<std::string> arguments = {"quantize",  model->string(), "-o",         out.string(),
                                        "--dataset", tokens,          "--nsamples", "8",
                                        "--seqlen",  "256",           "--no-check"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

// SHA-256 of every file, but for the log, which holds times.
std::map<std::string, std::string> hashes(const fs::path& folder) {
  std::map<std::string, std::string> result;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.path().filename() == "quant_log.csv") continue;
    result[fs::relative(entry.path(), folder).string()] = sha256(*read_text_file(entry.path()));
  }
  return result;
}

size_t finished_modules(const fs::path& out) {
  const fs::path modules = out / ".nibble" / "modules";
  size_t count = 0;
  std::error_code ignored;
  for (fs::directory_iterator entry(modules, ignored), end; entry != end; entry.increment(ignored)) {
    count += entry->path().extension() == ".safetensors";
  }
  return count;
}

class QuantizeResume : public testing::TestWithParam<std::vector<std::string>> {
 protected:
  void SetUp() override {
    const ProgramResult result = run_program(command(undisturbed(), GetParam()));
    ASSERT_EQ(result.status, 0) << result;
    expected_ = hashes(undisturbed());
    ASSERT_TRUE(expected_.contains("model.safetensors"));
    ASSERT_TRUE(expected_.contains("config.json"));
  }
  fs::path undisturbed() const { return out_.path() / "undisturbed"; }
  fs::path disturbed() const { return out_.path() / "disturbed"; }

  const TemporaryFolder out_;
  std::map<std::string, std::string> expected_;
};

TEST_P(QuantizeResume, EndsWithTheSameBytesHoweverOftenItIsKilled) {
  size_t kills = 0;
  ProgramResult result;
  for (int i = 0; i < 60; ++i) {
    // Later and later, so that it comes to an end on any machine; never at a place that is known before.
    RunOptions options;
    options.timeout = std::chrono::milliseconds(60 + 45 * i) * patience();
    result = run_program(command(disturbed(), GetParam()), options);
    if (!result.timed_out) break;
    ++kills;
  }
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_GT(kills, 0u);
  EXPECT_EQ(hashes(disturbed()), expected_);
}

TEST_P(QuantizeResume, EndsWithTheSameBytesAfterCtrlC) {
  RunOptions options;
  options.interrupt_when = [&](const std::string&) { return finished_modules(disturbed()) >= 3; };
  const ProgramResult stopped = run_program(command(disturbed(), GetParam()), options);
  ASSERT_EQ(stopped.status, 130) << stopped;
  EXPECT_THAT(stopped.err, HasSubstr("run the same command again"));
  EXPECT_FALSE(fs::exists(disturbed() / "config.json"));
  const ProgramResult result = run_program(command(disturbed(), GetParam()));
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.err, HasSubstr("going on"));
  EXPECT_EQ(hashes(disturbed()), expected_);
}

INSTANTIATE_TEST_SUITE_P(Methods, QuantizeResume,
                         testing::Values(std::vector<std::string>{},
                                         std::vector<std::string>{"--method", "awq", "--effort", "compat"}),
                         [](const auto& test) { return test.param.empty() ? "gptq" : "awq_compat"; });

// A disk of `megabytes`, while this object lives; none where this process may not mount.
class SmallDisk {
 public:
  SmallDisk(const fs::path& path, const std::string& megabytes) : path_(path) {
    fs::create_directory(path);
    const std::string size = "size=" + megabytes + "m";
    mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, size.c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  const fs::path path_;
  bool mounted_ = false;
};

TEST(QuantizeRun, GoesOnAfterAFullDisk) {
  const TemporaryFolder out;
  const SmallDisk disk(out.path() / "disk", "12");
  if (!disk.mounted()) GTEST_SKIP() << "this user may not mount a small disk";
  const fs::path folder = out.path() / "disk" / "q";
  const fs::path filler = out.path() / "disk" / "filler";
  RunOptions options;
  options.interrupt_when = [&](const std::string&) {
    // Not to interrupt: somebody else takes the space that the plan had found free.
    if (finished_modules(folder) >= 3 && !fs::exists(filler)) {
      std::ofstream file(filler);
      const std::string megabyte(1 << 20, 'x');
      while (file.write(megabyte.data(), 1 << 20).flush()) {
      }
    }
    return false;
  };
  const ProgramResult full = run_program(command(folder, {"--bits", "8"}), options);
  EXPECT_EQ(full.status, 1) << full;
  EXPECT_THAT(full.err, HasSubstr("No space left on device"));
  EXPECT_THAT(full.err, HasSubstr("run the same command again"));
  EXPECT_GE(finished_modules(folder), 3u);
  fs::remove(filler);
  const ProgramResult result = run_program(command(folder, {"--bits", "8"}));
  ASSERT_EQ(result.status, 0) << result;
  EXPECT_THAT(result.err, HasSubstr("going on"));
  ASSERT_EQ(run_program(command(out.path() / "expected", {"--bits", "8"})).status, 0);
  EXPECT_EQ(hashes(folder), hashes(out.path() / "expected"));
}

TEST(QuantizeRun, SaysBeforeTheWorkThatTheDiskIsTooSmall) {
  const TemporaryFolder out;
  const SmallDisk disk(out.path() / "disk", "1");
  if (!disk.mounted()) GTEST_SKIP() << "this user may not mount a small disk";
  const ProgramResult result = run_program(command(out.path() / "disk" / "q"));
  EXPECT_EQ(result.status, 3) << result;
  EXPECT_THAT(result.err, HasSubstr("of disk while it runs, but"));
  EXPECT_FALSE(fs::exists(out.path() / "disk" / "q"));
}

TEST(QuantizeRun, RefusesToGoOnWithOtherSettings) {
  const TemporaryFolder out;
  const fs::path folder = out.path() / "q";
  RunOptions options;
  options.interrupt_when = [&](const std::string&) { return finished_modules(folder) >= 1; };
  ASSERT_EQ(run_program(command(folder), options).status, 130);
  const ProgramResult other = run_program(command(folder, {"--group-size", "64"}));
  EXPECT_EQ(other.status, 2) << other;
  EXPECT_THAT(other.err, HasSubstr("group_size: 128 was, 64 is asked for"));
  EXPECT_GE(finished_modules(folder), 1u);
  EXPECT_EQ(run_program(command(folder, {"--group-size", "64", "--overwrite"})).status, 0);
}

TEST(QuantizeRun, DoesAFinishedRunNotTwice) {
  const TemporaryFolder out;
  const fs::path folder = out.path() / "q";
  ASSERT_EQ(run_program(command(folder)).status, 0);
  const auto before = fs::last_write_time(folder / "model.safetensors");
  const ProgramResult again = run_program(command(folder));
  EXPECT_EQ(again.status, 0) << again;
  EXPECT_THAT(again.err, HasSubstr("stands there already"));
  EXPECT_EQ(fs::last_write_time(folder / "model.safetensors"), before);
}

}  // namespace
}  // namespace nibble::test
