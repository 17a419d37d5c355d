#ifndef NIBBLE_HUB_HUB_SETTINGS_H_
#define NIBBLE_HUB_HUB_SETTINGS_H_

// Where the hub is, who asks, and how patient we are: the variables of huggingface_hub.

#include <chrono>
#include <filesystem>
#include <string>

#include "nibble/base/error.h"

namespace nibble {

// When a try is given up and when the next one begins. Tests make all of it short.
struct HubTiming {
  std::chrono::seconds connect_timeout{10};
  std::chrono::seconds stall_timeout{10};           // without a byte; HF_HUB_DOWNLOAD_TIMEOUT
  int attempts = 5;                                 // in a row without a new byte
  std::chrono::milliseconds first_wait{1000};       // then twice as long each time
  std::chrono::milliseconds longest_wait{300'000};  // a server that asks for more is not waited for
};

struct HubSettings {
  std::string endpoint = "https://huggingface.co";  // without a slash at its end
  std::string token;                                // empty: none
  std::filesystem::path cache;                      // checkpoint/hub_cache.h
  bool offline = false;
  HubTiming timing;
};

// HF_ENDPOINT; HF_TOKEN, or the file HF_TOKEN_PATH or HF_HOME/token; HF_HUB_OFFLINE; the cache's place.
// kInvalidArgument for an endpoint that is no http(s) URL. Warns where the connection is not encrypted
// and leads to another machine.
Expected<HubSettings> hub_settings_from_environment();

}  // namespace nibble

#endif  // NIBBLE_HUB_HUB_SETTINGS_H_
