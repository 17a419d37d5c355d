#include "nibble/hub/pull.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/cancel.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"
#include "nibble/checkpoint/hub_cache.h"
#include "nibble/hub/repo_cache.h"
#include "nibble/hub/test_hub.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kCommit(40, 'a');

class PullTest : public testing::Test {
 protected:
  ~PullTest() override { reset_cancel(); }

  Expected<PullResult> pull(const PullOptions& options = {}) const {
    NIBBLE_TRY(const PullPlan plan, plan_pull("org/name", options, hub_.settings));
    return run_pull(plan, options, hub_.settings);
  }
  // One file after the other, so that it is known what came before the error.
  std::string error_of_pull() const {
    const auto result = pull({.include = {}, .exclude = {}, .max_workers = 1});
    return result ? "no error" : to_string(result.error());
  }
  fs::path repo() const { return hub_.settings.cache / "models--org--name"; }
  std::string content(const char* file) const {
    return read_text_file(repo() / "snapshots" / kCommit / file).value_or("(no such file)");
  }
  // Of the weights, the one large file.
  std::string weights() const { return some_bytes(300'000); }
  fs::path incomplete() const { return repo() / "blobs" / (sha256(weights()) + ".incomplete"); }
  size_t requests_for_weights() const { return hub_.server.count_requests("/cdn/"); }

  TestHub hub_;
};

TEST_F(PullTest, FillsTheCacheAsHuggingfaceHubDoes) {
  const auto result = pull();
  ASSERT_TRUE(result) << to_string(result.error());
  EXPECT_EQ(result->fetched_files, 4U);
  EXPECT_EQ(result->fetched_bytes, 300'000U + 23 + 2);
  EXPECT_THAT(names_in(repo() / "snapshots" / kCommit),
              ElementsAre("config.json", "empty.json", "model.safetensors", "tokenizer.json"));
  EXPECT_EQ(content("model.safetensors"), weights());
  EXPECT_EQ(fs::read_symlink(repo() / "snapshots" / kCommit / "model.safetensors"),
            "../../blobs/" + sha256(weights()));
  EXPECT_EQ(fs::read_symlink(repo() / "snapshots" / kCommit / "tokenizer.json"),
            "../../blobs/" + test::git_sha1("{}"));
  EXPECT_EQ(read_text_file(repo() / "refs/main").value(), kCommit);
  EXPECT_EQ(names_in(repo() / "blobs").size(), 4U) << "nothing is left over";
  EXPECT_TRUE(fs::exists(hub_.settings.cache / ".locks/models--org--name" / (sha256(weights()) + ".lock")));
  EXPECT_EQ(find_snapshot(repo(), {"org/name", "main"}).value(), repo() / "snapshots" / kCommit);
}

TEST_F(PullTest, ASecondPullFetchesNothing) {
  ASSERT_TRUE(pull());
  const size_t before = hub_.server.count_requests("/resolve/");
  const auto plan = plan_pull("org/name", {}, hub_.settings);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->bytes_to_fetch, 0U);
  EXPECT_EQ(plan->total_bytes, 300'000U + 23 + 2);
  const auto result = run_pull(*plan, {}, hub_.settings);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->fetched_files, 0U);
  EXPECT_EQ(hub_.server.count_requests("/resolve/"), before);
}

TEST_F(PullTest, ALinkThatIsMissingIsMadeFromTheBlob) {
  ASSERT_TRUE(pull());
  fs::remove(repo() / "snapshots" / kCommit / "model.safetensors");
  const auto result = pull();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->fetched_files, 0U);
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, ADamagedBlobIsFetchedAgain) {
  ASSERT_TRUE(pull());
  fs::resize_file(repo() / "blobs" / sha256(weights()), 1000);
  ASSERT_TRUE(pull());
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, FilesInSubfoldersAreLinkedFromThere) {
  ASSERT_TRUE(pull({.include = {"onnx/*"}, .exclude = {}}));
  EXPECT_EQ(fs::read_symlink(repo() / "snapshots" / kCommit / "onnx/model.onnx"),
            "../../../blobs/" + test::git_sha1("onnx"));
  EXPECT_EQ(content("onnx/model.onnx"), "onnx");
}

TEST_F(PullTest, ALinkInTheSnapshotLeadsNowhere) {
  const fs::path outside = hub_.folder / "outside";
  fs::create_directories(outside);
  fs::create_directories(repo() / "snapshots" / kCommit);
  fs::create_directory_symlink(outside, repo() / "snapshots" / kCommit / "onnx");
  const auto result = pull({.include = {"onnx/*"}, .exclude = {}});
  ASSERT_FALSE(result);
  EXPECT_THAT(to_string(result.error()), HasSubstr("may lead out of the snapshot"));
  EXPECT_TRUE(fs::is_empty(outside));
}

TEST_F(PullTest, ACutIsMendedByARange) {
  hub_.server.add_fault("/cdn/", {.cut_after = 100'000});
  hub_.server.add_fault("/cdn/", {.cut_after = 50'000});
  const auto result = pull();
  ASSERT_TRUE(result) << to_string(result.error());
  EXPECT_EQ(result->fetched_bytes, 300'000U + 23 + 2) << "no byte came twice";
  std::vector<std::string> ranges;
  for (const auto& request : hub_.server.requests()) {
    if (request.target.starts_with("/cdn/") && request.headers.contains("range")) {
      ranges.push_back(request.headers.at("range"));
    }
  }
  EXPECT_THAT(ranges, ElementsAre("bytes=100000-", "bytes=150000-"));
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, TriesCountOnlyWhileNothingComes) {
  hub_.server.add_fault("/cdn/", {.cut_after = 10'000}, 7);
  ASSERT_TRUE(pull());
  EXPECT_EQ(requests_for_weights(), 8U);
  fs::remove_all(hub_.settings.cache);
  hub_.server.add_fault("/cdn/", {.cut_after = 0}, 3);
  EXPECT_THAT(error_of_pull(),
              testing::AllOf(HasSubstr("org/name: model.safetensors"), HasSubstr("(3 tries)")));
}

TEST_F(PullTest, AnInterruptedDownloadGoesOn) {
  ASSERT_TRUE(create_folder(repo() / "blobs"));
  ASSERT_TRUE(write_file(incomplete(), weights().substr(0, 120'000)));
  const auto plan = plan_pull("org/name", {}, hub_.settings);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->bytes_to_fetch, 180'000U + 23 + 2);
  const auto result = run_pull(*plan, {}, hub_.settings);
  ASSERT_TRUE(result) << to_string(result.error());
  EXPECT_EQ(result->fetched_bytes, 180'000U + 23 + 2);
  EXPECT_EQ(content("model.safetensors"), weights());
  EXPECT_FALSE(fs::exists(incomplete()));
}

TEST_F(PullTest, ACompleteOneNeedsNoRequest) {
  ASSERT_TRUE(create_folder(repo() / "blobs"));
  ASSERT_TRUE(write_file(incomplete(), weights()));
  ASSERT_TRUE(pull());
  EXPECT_EQ(requests_for_weights(), 0U);
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, ALeftoverThatIsWrongIsFetchedAnew) {
  ASSERT_TRUE(create_folder(repo() / "blobs"));
  ASSERT_TRUE(write_file(incomplete(), std::string(120'000, 'x')));
  ASSERT_TRUE(pull());
  EXPECT_EQ(content("model.safetensors"), weights());
  EXPECT_EQ(requests_for_weights(), 2U);

  fs::remove_all(hub_.settings.cache);
  ASSERT_TRUE(create_folder(repo() / "blobs"));
  ASSERT_TRUE(write_file(incomplete(), std::string(400'000, 'x')));
  ASSERT_TRUE(pull());
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, AServerWithoutRangesSendsAllOfItAgain) {
  hub_.server.add_fault("/cdn/", {.cut_after = 100'000});
  hub_.server.add_fault("/cdn/", {.ignores_range = true});
  ASSERT_TRUE(pull());
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, WhatComesForTheSecondTimeIsNoProgress) {
  hub_.server.add_fault("/cdn/", {.cut_after = 100'000, .ignores_range = true}, /*count=*/20);
  EXPECT_THAT(error_of_pull(), HasSubstr("(3 tries)"));
  EXPECT_EQ(requests_for_weights(), 3U);
}

TEST_F(PullTest, AnotherPartIsNotTaken) {
  hub_.server.add_fault("/cdn/", {.cut_after = 100'000});
  hub_.server.add_fault("/cdn/", {.hides_range = true});
  EXPECT_THAT(error_of_pull(), HasSubstr("another part than was asked for"));
  ASSERT_TRUE(pull());
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, WrongBytesNeverReachTheCache) {
  hub_.server.add_fault("config.json", {.wrong_bytes = true});
  EXPECT_THAT(error_of_pull(), HasSubstr("config.json: the bytes have the hash"));
  hub_.server.add_fault("/cdn/", {.wrong_bytes = true});
  EXPECT_THAT(error_of_pull(), HasSubstr("but the hub lists " + sha256(weights())));
  EXPECT_EQ(content("model.safetensors"), "(no such file)");
  EXPECT_FALSE(fs::exists(incomplete()));
  EXPECT_FALSE(fs::exists(repo() / "refs/main")) << "what is not whole has no name";
  ASSERT_TRUE(pull());
}

TEST_F(PullTest, AWrongLengthIsMendedOrRefused) {
  hub_.server.add_fault("/cdn/", {.length_off_by = 10});  // promises more than it sends
  hub_.server.add_fault("/cdn/", {.length_off_by = -10});
  ASSERT_TRUE(pull());
  EXPECT_EQ(content("model.safetensors"), weights());

  test::HubRepo repo;
  repo.files = {{"model.safetensors", weights() + "more"}};
  hub_.server.add_repo("org/name", repo);
  hub_.server.set_tree(fmt::format(
      R"([{{"type": "file", "path": "model.safetensors", "size": 1, "oid": "", "lfs": {{"oid": "{}", "size": 300000}}}}])",
      std::string(64, 'd')));
  EXPECT_THAT(error_of_pull(), HasSubstr("sends more than the 300000 bytes"));
}

TEST_F(PullTest, AServerThatFallsSilentIsAskedAgain) {
  hub_.server.add_fault("/cdn/", {.stall_after = 100'000});
  const auto result = pull();
  ASSERT_TRUE(result) << to_string(result.error());
  EXPECT_EQ(requests_for_weights(), 2U);
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, WhatMayPassIsTriedAgainAndWhatNotIsNot) {
  hub_.server.add_fault("/resolve/", {.status = 503});
  hub_.server.add_fault("/cdn/", {.status = 429});
  ASSERT_TRUE(pull());
  fs::remove_all(hub_.settings.cache);
  const size_t before = requests_for_weights();
  hub_.server.add_fault("/cdn/", {.status = 403}, 5);
  EXPECT_THAT(error_of_pull(), HasSubstr("HTTP 403 Forbidden"));
  EXPECT_EQ(requests_for_weights(), before + 1);
}

TEST_F(PullTest, TwoAtOnceFetchEachFileOnce) {
  hub_.server.add_fault("/cdn/", {.slow_bytes_per_second = 1'000'000});
  Expected<PullResult> other;
  std::thread thread([&] { other = pull(); });
  const auto result = pull();
  thread.join();
  ASSERT_TRUE(result) << to_string(result.error());
  ASSERT_TRUE(other) << to_string(other.error());
  EXPECT_EQ(result->fetched_bytes + other->fetched_bytes, 300'000U + 23 + 2);
  EXPECT_EQ(requests_for_weights(), 1U);
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, CtrlCKeepsWhatHasComeAndTheSameCallGoesOn) {
  hub_.server.add_fault("/cdn/", {.stall_after = 100'000});
  hub_.settings.timing.stall_timeout = std::chrono::seconds(60);
  std::thread user([&] {
    std::error_code error;
    while (fs::file_size(incomplete(), error) != 100'000) std::this_thread::yield();
    request_cancel();
  });
  const auto interrupted = pull();
  user.join();
  ASSERT_FALSE(interrupted);
  EXPECT_EQ(interrupted.error().code, ErrorCode::kCancelled);
  EXPECT_THAT(interrupted.error().fix, HasSubstr("the same command goes on"));
  EXPECT_EQ(fs::file_size(incomplete()), 100'000U);
  reset_cancel();
  const auto result = pull();
  ASSERT_TRUE(result) << to_string(result.error());
  EXPECT_LE(result->fetched_bytes, 200'000U + 23 + 2);
  EXPECT_EQ(content("model.safetensors"), weights());
}

TEST_F(PullTest, TheDiskIsAskedFirst) {
  hub_.server.set_tree(fmt::format(
      R"([{{"type": "file", "path": "model.safetensors", "size": 1, "oid": "", "lfs": {{"oid": "{}", "size": 900000000000000}}}}])",
      std::string(64, 'd')));
  EXPECT_THAT(error_of_pull(),
              testing::AllOf(HasSubstr("900 TB are to be fetched"), HasSubstr("HF_HUB_CACHE")));
  EXPECT_EQ(requests_for_weights(), 0U);
  EXPECT_FALSE(fs::exists(hub_.settings.cache));
}

TEST_F(PullTest, OfHuggingfaceHubsCacheNothingIsFetchedAgain) {
  // As huggingface_hub leaves it where links cannot be made: the files themselves.
  for (const auto& [file, text] :
       {std::pair<std::string, std::string>{"config.json", R"({"model_type": "llama"})"},
        {"model.safetensors", weights()}}) {
    hub_.folder.add("cache/models--org--name/snapshots/" + kCommit + "/" + file, text);
  }
  const auto result = pull();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->fetched_bytes, 2U);
}

TEST(FileLockTest, ExcludesAnotherAndFollowsTheFile) {
  const TestFolder folder;
  const fs::path path = folder / "a.lock";
  std::atomic<bool> stop = false;
  auto first = FileLock::acquire(path, nullptr, {});
  ASSERT_TRUE(first);
  const auto second =
      FileLock::acquire(path, &stop, [&](std::string_view, std::chrono::milliseconds) { stop = true; });
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kCancelled);
  // Who removes the file ends the lock's meaning: the next one makes a new file.
  fs::remove(path);
  EXPECT_TRUE(FileLock::acquire(path, nullptr, {}));
}

}  // namespace
}  // namespace nibble
