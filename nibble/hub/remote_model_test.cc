#include "nibble/hub/remote_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/hub/file_list.h"
#include "nibble/hub/test_hub.h"

namespace nibble {
namespace {

using testing::HasSubstr;
using testing::Not;

class RemoteModelTest : public testing::Test {
 protected:
  std::string error_of(std::string_view name) const {
    const auto model = open_remote(name, hub_.settings);
    return model ? "no error" : to_string(model.error());
  }

  TestHub hub_;
};

TEST_F(RemoteModelTest, ListsAndReads) {
  const auto model = open_remote("org/name", hub_.settings);
  ASSERT_TRUE(model) << to_string(model.error());
  EXPECT_EQ(model->commit(), std::string(40, 'a'));
  EXPECT_EQ(model->revision(), "main");
  ASSERT_EQ(model->files().size(), 6U);
  EXPECT_EQ(model->find("model.safetensors")->size, 300'000U);
  EXPECT_EQ(model->find("model.safetensors")->etag.size(), 64U);
  EXPECT_EQ(model->find("config.json")->etag, test::git_sha1(R"({"model_type": "llama"})"));
  EXPECT_EQ(model->find("other"), nullptr);

  EXPECT_EQ(model->read("config.json").value(), R"({"model_type": "llama"})");
  EXPECT_EQ(model->read("empty.json").value(), "");
  EXPECT_EQ(model->read("other").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(model->read("model.safetensors", 1000).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(model->read("model.safetensors").value(), some_bytes(300'000));
}

TEST_F(RemoteModelTest, ReadsAPartAndNoMore) {
  const auto model = open_remote("org/name", hub_.settings);
  ASSERT_TRUE(model) << to_string(model.error());
  const auto part = model->read_range("model.safetensors", 1000, 8);
  ASSERT_TRUE(part) << to_string(part.error());
  const std::string text(reinterpret_cast<const char*>(part->data()), part->size());
  EXPECT_EQ(text, some_bytes(300'000).substr(1000, 8));
  EXPECT_EQ(hub_.server.requests().back().headers.at("range"), "bytes=1000-1007");
  EXPECT_EQ(model->read_range("config.json", 2, 10)->size(), 10U);
  EXPECT_EQ(model->read_range("config.json", 0, 0)->size(), 0U);
  EXPECT_FALSE(model->read_range("model.safetensors", 299'999, 2));
  EXPECT_FALSE(model->read_range("model.safetensors", ~uint64_t{0}, 2));

  hub_.server.add_fault("/resolve/", {.ignores_range = true});
  const auto sliced = model->read_range("config.json", 2, 10);
  ASSERT_TRUE(sliced) << to_string(sliced.error());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(sliced->data()), 10), "model_type");
}

TEST_F(RemoteModelTest, ReadChecksTheHash) {
  const auto model = open_remote("org/name", hub_.settings);
  ASSERT_TRUE(model) << to_string(model.error());
  hub_.server.add_fault("/resolve/", {.wrong_bytes = true});
  EXPECT_EQ(model->read("config.json").error().code, ErrorCode::kDataLoss);
}

TEST_F(RemoteModelTest, TheListComesInPages) {
  hub_.server.set_page_size(2);
  const auto model = open_remote("org/name@main", hub_.settings);
  ASSERT_TRUE(model) << to_string(model.error());
  EXPECT_EQ(model->files().size(), 6U);
  EXPECT_EQ(hub_.server.count_requests("/tree/"), 3U);
}

TEST_F(RemoteModelTest, ARevisionIsABranchOrACommit) {
  test::HubRepo repo;
  repo.commit = std::string(40, 'b');
  repo.branches = {"main", "refs/pr/1"};
  repo.files = {{"config.json", "{}"}};
  hub_.server.add_repo("gpt2", repo);
  EXPECT_EQ(open_remote("gpt2@refs/pr/1", hub_.settings)->commit(), repo.commit);
  EXPECT_EQ(open_remote("hf://gpt2@" + repo.commit, hub_.settings)->commit(), repo.commit);
  EXPECT_EQ(hub_.server.count_requests("/revision/"), 1U) << "a commit needs no looking up";
  EXPECT_THAT(error_of("gpt2@v9"), HasSubstr("gpt2 has no revision v9"));
}

TEST_F(RemoteModelTest, TheTokenGoesToTheEndpointAndNoFurther) {
  hub_.settings.token = "hf_secret";
  const auto model = open_remote("org/name", hub_.settings);
  ASSERT_TRUE(model) << to_string(model.error());
  ASSERT_TRUE(model->read_range("model.safetensors", 0, 8));
  size_t to_cdn = 0;
  for (const test::HubRequest& request : hub_.server.requests()) {
    const bool is_cdn = request.headers.at("host").starts_with("localhost");
    to_cdn += is_cdn ? 1 : 0;
    EXPECT_EQ(request.headers.count("authorization"), is_cdn ? 0U : 1U) << request.target;
  }
  EXPECT_EQ(to_cdn, 1U);
}

TEST_F(RemoteModelTest, RedirectsEndSomewhere) {
  const auto model = open_remote("org/name", hub_.settings);
  ASSERT_TRUE(model) << to_string(model.error());
  hub_.server.add_fault("/resolve/", {.location = hub_.server.endpoint() + "/org/name/resolve/x"}, 100);
  EXPECT_THAT(to_string(model->read("config.json").error()), HasSubstr("redirects"));
  hub_.server.add_fault("/revision/", {.location = "ftp://localhost/x"});
  EXPECT_THAT(error_of("org/name"), HasSubstr("does not begin with https://"));
}

TEST_F(RemoteModelTest, WhoMayNotReadIsToldWhatToDo) {
  EXPECT_THAT(error_of("org/nmae"),
              AllOf(HasSubstr("org/nmae: the hub has no such model, or you may not see it"),
                    HasSubstr("Check the spelling"), HasSubstr("set HF_TOKEN")));
  test::HubRepo repo;
  repo.files = {{"config.json", "{}"}};
  repo.token = "hf_right";
  hub_.server.add_repo("org/private", repo);
  EXPECT_THAT(error_of("org/private"), HasSubstr("no such model"));
  hub_.settings.token = "hf_right";
  EXPECT_TRUE(open_remote("org/private", hub_.settings));
  EXPECT_EQ(hub_.server.count_requests("org/nmae"), 1U) << "no second try";

  repo.is_gated = true;
  hub_.server.add_repo("org/gated", repo);
  hub_.settings.token = "hf_wrong";
  const auto gated = open_remote("org/gated", hub_.settings);
  ASSERT_TRUE(gated) << to_string(gated.error());
  const auto config = gated->read("config.json");
  ASSERT_FALSE(config);
  EXPECT_THAT(to_string(config.error()),
              AllOf(HasSubstr("gated"), HasSubstr("Ask for access at http"), Not(HasSubstr("hf_wrong"))));
}

TEST_F(RemoteModelTest, WhatMayPassIsTriedAgain) {
  hub_.server.add_fault("/revision/", {.status = 503});
  hub_.server.add_fault("/revision/", {.status = 429});
  EXPECT_TRUE(open_remote("org/name", hub_.settings));
  EXPECT_EQ(hub_.server.count_requests("/revision/"), 3U);

  hub_.server.add_fault("/revision/", {.status = 503}, 3);
  EXPECT_THAT(error_of("org/name"), HasSubstr("HTTP 503 Service Unavailable (3 tries)"));
  EXPECT_EQ(hub_.server.count_requests("/revision/"), 6U);
}

TEST_F(RemoteModelTest, TheServerSaysHowLongToWait) {
  hub_.settings.timing.longest_wait = std::chrono::milliseconds(1500);
  hub_.server.add_fault("/revision/", {.status = 429, .headers = {{"Retry-After", "120"}}});
  EXPECT_THAT(error_of("org/name"), HasSubstr("asks to wait for 120 s"));
  hub_.server.add_fault("/revision/", {.status = 429, .headers = {{"RateLimit", "\"api\";r=0;t=55"}}});
  EXPECT_THAT(error_of("org/name"), HasSubstr("asks to wait for 55 s"));
  hub_.server.add_fault("/revision/", {.status = 503, .headers = {{"Retry-After", "1"}}});
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(open_remote("org/name", hub_.settings));
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST_F(RemoteModelTest, NoServerIsNoModel) {
  hub_.settings.endpoint = "http://127.0.0.1:1";
  EXPECT_THAT(error_of("org/name"), HasSubstr("(3 tries)"));
  hub_.settings.offline = true;
  EXPECT_THAT(error_of("org/name"), HasSubstr("HF_HUB_OFFLINE is set"));
}

TEST_F(RemoteModelTest, HostileNamesAreRefused) {
  for (const char* path : {"../x", "a/../../x", "/etc/passwd", "a\\\\..\\\\x", "a//b", "", "a/.", "x\\u0000y",
                           "\\u001b[2J", "a\\u009b2J"}) {
    hub_.server.set_tree(fmt::format(R"([{{"type": "file", "path": "{}", "size": 1, "oid": "{}"}}])", path,
                                     std::string(40, 'c')));
    EXPECT_THAT(error_of("org/name"), AllOf(HasSubstr("no plain name"), Not(HasSubstr("\x1b")))) << path;
  }
  const std::string file =
      R"({"type": "file", "path": "a", "size": 1, "oid": ")" + std::string(40, 'c') + "\"}";
  const std::string below =
      R"({"type": "file", "path": "a/b", "size": 1, "oid": ")" + std::string(40, 'c') + "\"}";
  hub_.server.set_tree("[" + file + "," + below + "]");
  EXPECT_THAT(error_of("org/name"), HasSubstr("lists \"a/b\" twice"));
  hub_.server.set_tree("[" + file + "," + file + "]");
  EXPECT_THAT(error_of("org/name"), HasSubstr("lists \"a\" twice"));
}

TEST_F(RemoteModelTest, AnswersThatCannotBeAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"error": 1})", "no list of files"},
      {"[1]", "no list of files"},
      {"not JSON", "org/name"},
      {R"([{"type": "file", "path": "a", "size": -1, "oid": "x"}])", "gives no size"},
      {R"([{"type": "file", "path": "a", "size": 1, "oid": "../../x"}])", "gives no hash"},
      {R"([{"type": "file", "path": "a", "size": 1, "oid": "x", "lfs": {"oid": "sha", "size": 1}}])",
       "gives no hash"}};
  for (const auto& [tree, what] : cases) {
    hub_.server.set_tree(tree);
    EXPECT_THAT(error_of("org/name"), HasSubstr(what)) << tree;
  }
}

TEST_F(RemoteModelTest, WhatIsNoNameIsRefusedBeforeAnybodyIsAsked) {
  for (const char* name :
       {"", "a/b/c", "../x", "org/na me", "org/name@../x", "a--b/c", "https://example.com/org/name"}) {
    EXPECT_THAT(error_of(name), HasSubstr("not of the form")) << name;
  }
  EXPECT_TRUE(hub_.server.requests().empty());
}

}  // namespace
}  // namespace nibble
