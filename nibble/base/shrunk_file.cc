#include "nibble/base/shrunk_file.h"

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <unistd.h>

namespace nibble {
namespace {

// Slots, not a container: a signal handler must not take a lock or follow pointers that change. Files beyond
// them are crashes, as they would be without the handler.
struct Mapping {
  std::atomic<uintptr_t> begin = 0;  // 0: free
  std::atomic<uintptr_t> end = 0;
  std::atomic<const char*> path = nullptr;
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);

constexpr size_t kMaxMappings = 1024;
constinit std::array<Mapping, kMaxMappings> g_mappings;

// Marks a slot that is being filled: no address.
constexpr uintptr_t kClaimed = 1;

void write_text(std::string_view text) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

void on_bus_error(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Mapping& mapping : g_mappings) {
    const uintptr_t begin = mapping.begin;
    if (begin <= kClaimed || address < begin || address >= mapping.end) continue;
    const char* const path = mapping.path;
    write_text("error: ");
    write_text({path, std::strlen(path)});
    write_text(
        ": the file has become shorter while it was read\n"
        "  Another program has changed it: fetch the file again, and leave it alone while it is used.\n");
    ::_exit(1);
  }
  // Not ours. The instruction runs again, and the default ends the process.
  std::signal(signal, SIG_DFL);
}

}  // namespace

void add_mapping(std::span<const std::byte> bytes, const char* path) {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  for (Mapping& mapping : g_mappings) {
    uintptr_t free = 0;
    if (!mapping.begin.compare_exchange_strong(free, kClaimed)) continue;
    mapping.path = path;
    mapping.end = begin + bytes.size();
    mapping.begin = begin;
    return;
  }
}

void remove_mapping(std::span<const std::byte> bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  for (Mapping& mapping : g_mappings) {
    if (mapping.begin == begin) {
      mapping.begin = 0;
      return;
    }
  }
}

void install_shrunk_file_handler() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace nibble
