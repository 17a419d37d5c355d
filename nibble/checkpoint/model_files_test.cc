#include "nibble/checkpoint/model_files.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/checkpoint/test_folder.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kVariables[] = {"HF_HUB_CACHE",   "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                      "XDG_CACHE_HOME", "HF_HUB_OFFLINE",        "HOME"};

// Each test starts without the variables that say where the cache is; what was set comes back.
class FindModelTest : public testing::Test {
 protected:
  FindModelTest() {
    for (const char* name : kVariables) {
      if (const char* value = std::getenv(name)) saved_.emplace(name, value);
      ::unsetenv(name);
    }
    ::setenv("HOME", folder_.path().c_str(), 1);
  }
  ~FindModelTest() override {
    for (const char* name : kVariables) {
      const auto found = saved_.find(name);
      found == saved_.end() ? ::unsetenv(name) : ::setenv(name, found->second.c_str(), 1);
    }
  }

  // A model in the cache at `hub`, whose main and pr/1 are commit "c0ffee", with a second commit
  // that has no name.
  void add_repo(const std::string& hub) const {
    const std::string repo = hub + "/models--org--name/";
    folder_.add(repo + "refs/main", "c0ffee\n");
    folder_.add(repo + "refs/refs/pr/1", "c0ffee");
    folder_.add(repo + "snapshots/c0ffee/config.json", hub);
    folder_.add(repo + "snapshots/decade/config.json", "decade");
  }

  static std::string config_of(std::string_view model, std::string_view revision = {}) {
    const auto files = find_model(model, revision);
    return files ? files->read_required("config.json").value_or("no config") : to_string(files.error());
  }

  const TestFolder folder_;

 private:
  std::map<std::string, std::string> saved_;
};

TEST_F(FindModelTest, LinksOfTheCacheStayInIt) {
  const auto hub = folder_.path() / ".cache/huggingface/hub";
  add_repo(".cache/huggingface/hub");
  folder_.add(".cache/huggingface/hub/models--org--name/blobs/b10b", "a blob");
  folder_.add("secret.txt", "secret");
  const auto snapshot = hub / "models--org--name/snapshots/decade";
  std::filesystem::create_symlink("../../blobs/b10b", snapshot / "tokenizer.json");
  std::filesystem::create_symlink("../../blobs/gone", snapshot / "vocab.json");
  const auto files = find_model("org/name", "decade");
  ASSERT_TRUE(files) << to_string(files.error());
  EXPECT_EQ(files->read_required("tokenizer.json").value_or("none"), "a blob");

  for (const auto& target :
       {std::filesystem::path("../../../../../../secret.txt"), folder_.path() / "secret.txt"}) {
    std::filesystem::create_symlink(target, snapshot / "merges.txt");
    const auto refused = find_model("org/name", "decade");
    ASSERT_FALSE(refused) << target;
    EXPECT_THAT(to_string(refused.error()), testing::HasSubstr("merges.txt: a link that leads out of"));
    std::filesystem::remove(snapshot / "merges.txt");
  }
}

TEST_F(FindModelTest, TheSnapshotItselfIsInTheCache) {
  add_repo(".cache/huggingface/hub");
  folder_.add("elsewhere/config.json", "{}");
  const auto snapshots = folder_.path() / ".cache/huggingface/hub/models--org--name/snapshots";
  std::filesystem::create_directory_symlink(folder_ / "elsewhere", snapshots / "facade");
  EXPECT_THAT(config_of("org/name@facade"), HasSubstr("facade: a link that leads out of"));
  folder_.add("elsewhere/tool.jinja", "");
  std::filesystem::create_directory(snapshots / "decade/additional_chat_templates");
  std::filesystem::create_symlink(folder_ / "elsewhere/tool.jinja",
                                  snapshots / "decade/additional_chat_templates/tool.jinja");
  EXPECT_THAT(config_of("org/name@decade"), HasSubstr("tool.jinja: a link that leads out of"));
}

TEST_F(FindModelTest, ARevisionIsWrittenIntoAName) {
  folder_.add("dir/config.json", "{}");
  EXPECT_EQ(with_revision("org/name", "v1"), "org/name@v1");
  EXPECT_EQ(with_revision("org/name:Q4_0", "v1"), "org/name@v1:Q4_0");
  EXPECT_EQ(with_revision("hf://org/name@v2", "v1"), "hf://org/name@v2");
  EXPECT_EQ(with_revision("org/name", ""), "org/name");
  for (const std::string& path :
       {(folder_ / "dir").string(), std::string("./dir:Q4_0"), std::string("~/m")}) {
    EXPECT_EQ(with_revision(path, "v1"), path);
  }
}

TEST_F(FindModelTest, AFolderIsAModel) {
  folder_.add("m/config.json", "{}");
  folder_.add("m/sub/other.json", "{}");
  folder_.add("m/a.txt", "text");
  const auto files = find_model((folder_ / "m").string());
  ASSERT_TRUE(files) << to_string(files.error());
  EXPECT_THAT(files->list(), ElementsAre("a.txt", "config.json"));
  EXPECT_EQ(files->read("a.txt").value(), "text");
  EXPECT_EQ(files->read("b.txt").value(), std::nullopt);
  const auto missing = files->read_required("tokenizer.json");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(to_string(missing.error()), HasSubstr("tokenizer.json is missing"));
}

TEST_F(FindModelTest, TheCacheIsWhereTheVariablesSay) {
  add_repo(".cache/huggingface/hub");
  EXPECT_EQ(config_of("org/name"), ".cache/huggingface/hub");
  add_repo("xdg/huggingface/hub");
  ::setenv("XDG_CACHE_HOME", (folder_ / "xdg").c_str(), 1);
  EXPECT_EQ(config_of("org/name"), "xdg/huggingface/hub");
  add_repo("home/hub");
  ::setenv("HF_HOME", "~/home", 1);
  EXPECT_EQ(config_of("org/name"), "home/hub");
  add_repo("cache");
  ::setenv("HF_HUB_CACHE", (folder_ / "cache").c_str(), 1);
  EXPECT_EQ(config_of("org/name"), "cache");
  EXPECT_EQ(config_of("hf://org/name"), "cache");
}

TEST_F(FindModelTest, ARevisionIsANameOrACommit) {
  add_repo("cache");
  ::setenv("HF_HUB_CACHE", (folder_ / "cache").c_str(), 1);
  EXPECT_EQ(config_of("org/name@main"), "cache");
  EXPECT_EQ(config_of("org/name@refs/pr/1"), "cache");
  EXPECT_EQ(config_of("org/name@decade"), "decade");
  EXPECT_EQ(config_of("org/name", "decade"), "decade");
  EXPECT_EQ(config_of("hf://org/name@main", "decade"), "cache") << "what the name says wins";
  EXPECT_THAT(config_of("org/name@v2"), HasSubstr("no revision v2; it has main"));
  EXPECT_THAT(config_of("org/name@v2"), HasSubstr("nibble pull org/name@v2"));
}

TEST_F(FindModelTest, NamesOfTheHubAreTakenApart) {
  for (const std::string prefix : {"", "hf://", "hf.co/", "https://huggingface.co/"}) {
    const auto name = parse_repo_name(prefix + "org/name@v2:Q4_K_M");
    ASSERT_TRUE(name) << prefix;
    EXPECT_EQ(name->repo, "org/name");
    EXPECT_EQ(name->revision, "v2");
    EXPECT_EQ(name->quant, "Q4_K_M");
    EXPECT_EQ(to_string(*name), "org/name@v2:Q4_K_M");
  }
  EXPECT_EQ(to_string(parse_repo_name("org/name:q8_0").value()), "org/name:q8_0");
  for (const char* const bad : {"org/name:", "org/name:../x", "org/name:a:b", ":Q4_0", "org/name:Q4@v2"}) {
    EXPECT_FALSE(parse_repo_name(bad)) << bad;
  }
}

TEST_F(FindModelTest, AnotherFileOfACachedModelIsMissing) {
  add_repo(".cache/huggingface/hub");
  folder_.add(".cache/huggingface/hub/models--org--name/snapshots/c0ffee/m-Q4_0.gguf", "");
  EXPECT_FALSE(missing_from_cache("org/name"));
  EXPECT_FALSE(missing_from_cache("org/name:q4_0"));
  folder_.add(".cache/huggingface/hub/models--org--name/snapshots/c0ffee/Q2_K/m-Q2_K.gguf", "");
  EXPECT_FALSE(missing_from_cache("org/name:Q2_K"));
  const auto missing = missing_from_cache("org/name:Q8_0");
  ASSERT_TRUE(missing);
  EXPECT_EQ(to_string(*missing), "org/name:Q8_0");
  const auto files = find_model("org/name:Q8_0");
  ASSERT_FALSE(files);
  EXPECT_EQ(to_string(files.error()),
            "org/name:Q8_0: no GGUF file has \"Q8_0\" in its name; there are m-Q4_0.gguf, Q2_K/m-Q2_K.gguf\n"
            "  Run: nibble pull org/name:Q8_0");
}

TEST_F(FindModelTest, AFolderWinsOverTheCache) {
  add_repo("cache");
  ::setenv("HF_HUB_CACHE", (folder_ / "cache").c_str(), 1);
  folder_.add("org/name/config.json", "local");
  const auto old = std::filesystem::current_path();
  std::filesystem::current_path(folder_.path());
  EXPECT_EQ(config_of("org/name"), "local");
  EXPECT_EQ(config_of("hf://org/name"), "cache");
  std::filesystem::current_path(old);
}

TEST_F(FindModelTest, AnAbsentModelIsToldHowToGet) {
  const auto files = find_model("org/other");
  ASSERT_FALSE(files);
  EXPECT_EQ(files.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(files.error().what, HasSubstr((folder_ / ".cache/huggingface/hub").string()));
  EXPECT_EQ(files.error().fix, "Run: nibble pull org/other");
  ::setenv("HF_HUB_OFFLINE", "true", 1);
  EXPECT_THAT(find_model("org/other").error().fix, HasSubstr("HF_HUB_OFFLINE is set"));
}

TEST_F(FindModelTest, ThePathOfAMissingFolderIsNotLookedUp) {
  for (const char* model : {"./org/name", "/org/name", "~/name", "a/b/c", "x.gguf", "or g/name"}) {
    EXPECT_THAT(config_of(model), HasSubstr("no such folder or file")) << model;
  }
  EXPECT_FALSE(find_model(""));
}

TEST_F(FindModelTest, NamesCannotLeaveTheCache) {
  add_repo("cache");
  ::setenv("HF_HUB_CACHE", (folder_ / "cache").c_str(), 1);
  folder_.add("cache/models--org--evil/refs/main", "../../..");
  folder_.add("secret/config.json", "secret");
  EXPECT_THAT(config_of("org/evil"), HasSubstr("not a commit hash"));
  EXPECT_FALSE(find_model("hf://org/name@../snapshots/decade"));
  EXPECT_FALSE(find_model("hf://../name"));
  EXPECT_FALSE(find_model("hf://org/name@a/../../decade"));
}

TEST_F(FindModelTest, AWeightFileAloneIsNoModel) {
  folder_.add("m/model.safetensors", "");
  EXPECT_THAT(config_of((folder_ / "m/model.safetensors").string()), HasSubstr("Name the folder"));
}

TEST_F(FindModelTest, AFileThatIsNotGgufIsRefused) {
  folder_.add("x.gguf", "not a model at all");
  EXPECT_THAT(config_of((folder_ / "x.gguf").string()), HasSubstr("not a GGUF file"));
}

}  // namespace
}  // namespace nibble
