#include "nibble/pipeline/run_folder.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fixtures.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

Json description(int bits) { return {{"nibble", "0.1.0"}, {"settings", {{"bits", bits}, {"sym", true}}}}; }

JournalEntry entry(float value) {
  JournalEntry entry;
  entry.tensors["a.scales"] = Tensor::of(DType::kF32, {2}, std::vector<float>{value, 2.f});
  entry.row = {{"module", "a"}, {"loss", 0.5}};
  return entry;
}

void touch(const fs::path& path) { std::ofstream(path) << "x"; }

TEST(RunFolder, TakesUpAnUnfinishedRunWithItsEntries) {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "out";
  {
    auto folder = RunFolder::open(path, description(4), false);
    ASSERT_TRUE(folder) << to_string(folder.error());
    ASSERT_TRUE(folder->put("model.layers.0.a", entry(1.f)));
  }
  auto again = RunFolder::open(path, description(4), false);
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_FALSE(again->finished());
  EXPECT_THAT(again->names(), ElementsAre("model.layers.0.a"));
  const auto read = again->get("model.layers.0.a");
  ASSERT_TRUE(read) << to_string(read.error());
  EXPECT_THAT(copy_elements<float>(read->tensors.at("a.scales")), ElementsAre(1.f, 2.f));
  EXPECT_EQ(read->row["loss"], 0.5);
}

TEST(RunFolder, SaysWhatIsDifferentAboutAnotherRun) {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "out";
  {
    auto folder = RunFolder::open(path, description(4), false);
    ASSERT_TRUE(folder);
    ASSERT_TRUE(folder->put("a", entry(1.f)));
  }
  const auto other = RunFolder::open(path, description(3), false);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().what, HasSubstr("settings.bits: 4 was, 3 is asked for"));
  EXPECT_THAT(other.error().what, testing::Not(HasSubstr("sym")));
  EXPECT_THAT(other.error().fix, HasSubstr("--overwrite"));

  const auto anew = RunFolder::open(path, description(3), true);
  ASSERT_TRUE(anew) << to_string(anew.error());
  EXPECT_EQ(anew->num_entries(), 0u);
}

TEST(RunFolder, KnowsAFinishedRunByItsManifest) {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "out";
  {
    auto folder = RunFolder::open(path, description(4), false);
    ASSERT_TRUE(folder);
    ASSERT_TRUE(folder->put("a", entry(1.f)));
    std::ofstream(path / kManifestFile) << dump_json({{"run", description(4)}});
    touch(path / "config.json");
    ASSERT_TRUE(folder->finish());
  }
  EXPECT_FALSE(fs::exists(path / ".nibble"));
  const auto same = RunFolder::open(path, description(4), false);
  ASSERT_TRUE(same) << to_string(same.error());
  EXPECT_TRUE(same->finished());
  const auto other = RunFolder::open(path, description(3), false);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().what, HasSubstr("settings.bits"));
}

TEST(RunFolder, RemovesOnlyWhatItMadeItselfAndOnlyWhenNothingIsFinished) {
  const TemporaryFolder temporary;
  { ASSERT_TRUE(RunFolder::open(temporary.path() / "new", description(4), false)); }
  EXPECT_FALSE(fs::exists(temporary.path() / "new"));

  fs::create_directory(temporary.path() / "empty");
  { ASSERT_TRUE(RunFolder::open(temporary.path() / "empty", description(4), false)); }
  EXPECT_TRUE(fs::exists(temporary.path() / "empty"));
}

TEST(RunFolder, RefusesAFolderWithSomethingElseInIt) {
  const TemporaryFolder temporary;
  touch(temporary.path() / "thesis.txt");
  const auto folder = RunFolder::open(temporary.path(), description(4), false);
  ASSERT_FALSE(folder);
  EXPECT_THAT(folder.error().what, HasSubstr("not empty"));
  const auto file = RunFolder::open(temporary.path() / "thesis.txt", description(4), false);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().what, HasSubstr("is a file"));
  EXPECT_TRUE(RunFolder::open(temporary.path(), description(4), true));
  EXPECT_TRUE(fs::exists(temporary.path() / "thesis.txt"));
}

TEST(RunFolder, ForgetsWhatAKilledProcessLeftHalfWritten) {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "out";
  {
    auto folder = RunFolder::open(path, description(4), false);
    ASSERT_TRUE(folder);
    ASSERT_TRUE(folder->put("a", entry(1.f)));
  }
  const std::vector<fs::path> torsos = {path / "model.safetensors.tmp.Ab3xYz",
                                        path / ".nibble/modules/b.safetensors.tmp.q1w2e3"};
  for (const fs::path& torso : torsos) touch(torso);
  fs::create_directory(path / ".nibble/stream.new");
  const auto again = RunFolder::open(path, description(4), false);
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_THAT(again->names(), ElementsAre("a"));
  EXPECT_FALSE(again->snapshot());
  for (const fs::path& torso : torsos) EXPECT_FALSE(fs::exists(torso)) << torso;
}

// A process that was killed while it removed a journal leaves parts of it, without what the run was.
TEST(RunFolder, TakesNothingOfAJournalWithoutARun) {
  for (const bool overwrite : {false, true}) {
    const TemporaryFolder temporary;
    const fs::path path = temporary.path() / "out";
    {
      auto folder = RunFolder::open(path, description(4), false);
      ASSERT_TRUE(folder);
      ASSERT_TRUE(folder->put("a", entry(1.f)));
      ASSERT_TRUE(folder->put_snapshot(7, [](const fs::path& place) -> Status {
        touch(place / "quantized.activations");
        return {};
      }));
    }
    fs::remove(path / ".nibble/run.json");
    for (int attempt = 0; attempt < 2; ++attempt) {  // the second finds the run of the first
      const auto again = RunFolder::open(path, description(3), overwrite);
      ASSERT_TRUE(again) << to_string(again.error());
      EXPECT_THAT(again->names(), ElementsAre());
      EXPECT_FALSE(again->snapshot());
    }
  }
}

TEST(RunFolder, KeepsTheNewestSnapshotAlone) {
  const TemporaryFolder temporary;
  auto folder = RunFolder::open(temporary.path() / "out", description(4), false);
  ASSERT_TRUE(folder);
  ASSERT_TRUE(folder->put("a", entry(1.f)));
  for (const size_t layer : {2u, 9u, 10u}) {
    ASSERT_TRUE(folder->put_snapshot(layer, [&](const fs::path& place) -> Status {
      touch(place / "quantized.activations");
      return {};
    }));
  }
  const auto snapshot = folder->snapshot();
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->layer, 10u);
  EXPECT_TRUE(fs::exists(snapshot->folder / "quantized.activations"));
  EXPECT_FALSE(fs::exists(folder->journal() / "stream-9"));

  const auto failed = folder->put_snapshot(
      11, [](const fs::path&) -> Status { return fail(ErrorCode::kUnavailable, "the disk is full"); });
  EXPECT_FALSE(failed);
  EXPECT_EQ(folder->snapshot()->layer, 10u);
}

}  // namespace
}  // namespace nibble
