#ifndef NIBBLE_HUB_TEST_HUB_H_
#define NIBBLE_HUB_TEST_HUB_H_

// For tests: a hub on this machine with one model, and settings that do not wait.

#include <string>

#include "nibble/checkpoint/test_folder.h"
#include "nibble/hub/hub_settings.h"
#include "tests/support/hub_server.h"

namespace nibble {

// Bytes that repeat late, so that a part in the wrong place changes the hash.
inline std::string some_bytes(size_t size, unsigned seed = 1) {
  std::string bytes(size, '\0');
  for (char& c : bytes) {
    seed = seed * 1664525U + 1013904223U;
    c = static_cast<char>(seed >> 24);
  }
  return bytes;
}

struct TestHub {
  TestHub() {
    // Whatever proxy this machine uses, it is not for talking to itself.
    ::setenv("no_proxy", "127.0.0.1,localhost", 1);
    test::HubRepo repo;
    repo.files = {{"config.json", R"({"model_type": "llama"})"},
                  {"tokenizer.json", "{}"},
                  {"model.safetensors", some_bytes(300'000)},
                  {"README.md", "read me"},
                  {"onnx/model.onnx", "onnx"},
                  {"empty.json", ""}};
    server.add_repo("org/name", repo);
    settings.endpoint = server.endpoint();
    settings.cache = folder / "cache";
    settings.timing.first_wait = std::chrono::milliseconds(1);
    settings.timing.stall_timeout = std::chrono::seconds(1);
    settings.timing.attempts = 3;
  }

  const TestFolder folder;
  test::HubServer server;
  HubSettings settings;
};

}  // namespace nibble

#endif  // NIBBLE_HUB_TEST_HUB_H_
