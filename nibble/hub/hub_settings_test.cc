#include "nibble/hub/hub_settings.h"

#include <cstdlib>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/checkpoint/test_folder.h"

namespace nibble {
namespace {

using testing::HasSubstr;

constexpr const char* kVariables[] = {
    "HF_ENDPOINT",          "HF_TOKEN",       "HF_TOKEN_PATH",  "HF_HOME",
    "HF_HUB_CACHE",         "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "HF_HUB_DOWNLOAD_TIMEOUT",
    "HUGGINGFACE_HUB_CACHE"};

class HubSettingsTest : public testing::Test {
 protected:
  HubSettingsTest() {
    for (const char* name : kVariables) {
      if (const char* value = std::getenv(name)) saved_.emplace(name, value);
      ::unsetenv(name);
    }
    ::setenv("HF_HOME", folder_.path().c_str(), 1);
  }
  ~HubSettingsTest() override {
    for (const char* name : kVariables) {
      const auto found = saved_.find(name);
      found == saved_.end() ? ::unsetenv(name) : ::setenv(name, found->second.c_str(), 1);
    }
  }

  const TestFolder folder_;

 private:
  std::map<std::string, std::string> saved_;
};

TEST_F(HubSettingsTest, DefaultsAreThoseOfHuggingfaceHub) {
  const HubSettings settings = hub_settings_from_environment().value();
  EXPECT_EQ(settings.endpoint, "https://huggingface.co");
  EXPECT_EQ(settings.token, "");
  EXPECT_EQ(settings.cache, folder_ / "hub");
  EXPECT_FALSE(settings.offline);
  EXPECT_EQ(settings.timing.stall_timeout.count(), 10);
}

TEST_F(HubSettingsTest, TheTokenComesFromTheVariableOrAFile) {
  folder_.add("token", "hf_file\n");
  EXPECT_EQ(hub_settings_from_environment().value().token, "hf_file");
  ::setenv("HF_TOKEN_PATH", folder_.add("other", " hf_other \n").c_str(), 1);
  EXPECT_EQ(hub_settings_from_environment().value().token, "hf_other");
  ::setenv("HF_TOKEN", "hf_variable\n", 1);
  EXPECT_EQ(hub_settings_from_environment().value().token, "hf_variable");
}

TEST_F(HubSettingsTest, ATokenThatWouldBreakAHeaderIsRefusedAndNotRepeated) {
  ::setenv("HF_TOKEN", "hf_x\r\nHost: evil", 1);
  const auto settings = hub_settings_from_environment();
  ASSERT_FALSE(settings);
  EXPECT_THAT(to_string(settings.error()), HasSubstr("not a token"));
  EXPECT_THAT(to_string(settings.error()), testing::Not(HasSubstr("hf_x")));
}

TEST_F(HubSettingsTest, AnEndpointIsAUrl) {
  ::setenv("HF_ENDPOINT", "https://mirror.example/hub//", 1);
  EXPECT_EQ(hub_settings_from_environment().value().endpoint, "https://mirror.example/hub");
  ::setenv("HF_ENDPOINT", "mirror.example", 1);
  EXPECT_THAT(to_string(hub_settings_from_environment().error()), HasSubstr("HF_ENDPOINT"));
}

TEST_F(HubSettingsTest, ATimeoutIsANumber) {
  ::setenv("HF_HUB_DOWNLOAD_TIMEOUT", "30", 1);
  EXPECT_EQ(hub_settings_from_environment().value().timing.stall_timeout.count(), 30);
  ::setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon", 1);
  EXPECT_FALSE(hub_settings_from_environment());
}

}  // namespace
}  // namespace nibble
