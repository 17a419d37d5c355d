#include "nibble/cli/child_process.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nibble/base/cancel.h"

extern char** environ;

namespace nibble::cli {
namespace {

Failure system_error(std::string_view what, int number = errno) {
  return fail(ErrorCode::kUnavailable, "{}: {}", what, std::strerror(number));
}

Expected<std::string> read_all(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count > 0) {
      text.append(buffer.data(), static_cast<size_t>(count));
    } else if (count == 0) {
      return text;
    } else if (errno != EINTR) {
      return system_error("reading from a child process");
    }
  }
}

}  // namespace

Expected<std::string> run_self(const std::vector<std::string>& arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return system_error("pipe");
  std::vector<char*> argv = {const_cast<char*>("nibble")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    ::close(ends[0]);
    return system_error("starting a child process", error);
  }
  auto text = read_all(ends[0]);
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  NIBBLE_RETURN_IF_ERROR(check_cancelled());
  if (!text) return text;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  if (WIFSIGNALED(status)) {
    return fail(ErrorCode::kUnavailable, "the child process was killed by signal {}", WTERMSIG(status))
        .with_fix("Memory may have run out.");
  }
  return fail(ErrorCode::kUnavailable, "the child process failed: nibble {}",
              arguments.empty() ? "" : arguments.front());
}

}  // namespace nibble::cli
