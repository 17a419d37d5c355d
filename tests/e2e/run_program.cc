#include "tests/e2e/run_program.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/fixtures.h"

namespace nibble::test {
namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  int read_end = -1;
  int write_end = -1;

  void open() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
    read_end = ends[0];
    write_end = ends[1];
  }
};

void close_fd(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

// In the child. Only async-signal-safe calls would be allowed beside threads; tests have none here.
[[noreturn]] void start(const std::vector<std::string>& arguments, const RunOptions& options) {
  for (const char* const name : {"NIBBLE_CPU", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT",
                                 "HF_TOKEN", "HF_TOKEN_PATH", "NO_COLOR"})
    ::unsetenv(name);
  for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> argv = {const_cast<char*>("nibble")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::execv(NIBBLE_PROGRAM, argv.data());
  ::_exit(127);
}

// Reads what is there; closes fd at its end.
void drain(int& fd, std::string& text) {
  char chunk[1 << 16];
  const ssize_t count = ::read(fd, chunk, sizeof(chunk));
  if (count > 0) text.append(chunk, static_cast<size_t>(count));
  // A terminal whose other side has gone reads as EIO.
  if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) close_fd(fd);
}

void feed(int& fd, const std::string& input, size_t& written, bool terminal) {
  const ssize_t count = ::write(fd, input.data() + written, input.size() - written);
  if (count > 0) written += static_cast<size_t>(count);
  const bool failed = count < 0 && errno != EINTR && errno != EAGAIN;
  if ((failed || written == input.size()) && !terminal) close_fd(fd);
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& arguments, const RunOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);
  ProgramResult result;
  Pipe in, out, err;
  int terminal = -1;
  pid_t child = -1;
  if (options.terminal) {
    child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
    if (child == 0) start(arguments, options);
  } else {
    in.open();
    out.open();
    err.open();
    if (options.abandon_stdout) close_fd(out.read_end);
    child = ::fork();
    if (child == 0) {
      ::dup2(in.read_end, STDIN_FILENO);
      ::dup2(out.write_end, STDOUT_FILENO);
      ::dup2(err.write_end, STDERR_FILENO);
      if (options.close_stdout) ::close(STDOUT_FILENO);
      start(arguments, options);
    }
    close_fd(in.read_end);
    close_fd(out.write_end);
    close_fd(err.write_end);
    ::fcntl(in.write_end, F_SETFL, O_NONBLOCK);
  }
  int& to_program = options.terminal ? terminal : in.write_end;
  int& from_program = options.terminal ? terminal : out.read_end;
  if (options.input.empty() && !options.terminal) close_fd(in.write_end);

  const auto deadline = Clock::now() + options.timeout;
  size_t written = 0;
  int interrupts = 0;
  size_t seen_before = 0;  // of what came, when it was interrupted last
  while (from_program >= 0 || err.read_end >= 0) {
    if (Clock::now() > deadline) {
      result.timed_out = true;
      ::kill(child, SIGKILL);
      break;
    }
    if (options.interrupt_when && interrupts < options.interrupts) {
      const std::string seen = result.out + result.err;
      if (options.interrupt_when(seen.substr(std::min(seen_before, seen.size())))) {
        ::kill(child, options.signal);
        ++interrupts;
        seen_before = seen.size();
      }
    }
    pollfd fds[] = {{from_program, POLLIN, 0}, {err.read_end, POLLIN, 0}, {-1, 0, 0}};
    const bool more_input = written < options.input.size() && to_program >= 0;
    if (more_input) fds[2] = {to_program, POLLOUT, 0};
    if (::poll(fds, 3, options.interrupt_when ? 1 : 50) < 0) continue;
    if (fds[0].revents != 0) drain(from_program, result.out);
    if (fds[1].revents != 0) drain(err.read_end, result.err);
    if (more_input && fds[2].revents != 0 && to_program >= 0)
      feed(to_program, options.input, written, options.terminal);
  }
  close_fd(in.write_end);
  close_fd(out.read_end);
  close_fd(err.read_end);
  close_fd(terminal);
  int status = 0;
  rusage usage = {};
  ::wait4(child, &status, 0, &usage);
  result.peak_rss_bytes = static_cast<size_t>(usage.ru_maxrss) * 1024;
  if (WIFEXITED(status)) result.status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

int patience() {
  const char* const value = std::getenv("NIBBLE_TEST_PATIENCE");
  return value == nullptr ? 1 : std::max(1, std::atoi(value));
}

Json ProgramResult::json() const {
  auto parsed = parse_json(out);
  if (parsed) return *std::move(parsed);
  ADD_FAILURE() << "stdout is not JSON: " << parsed.error().what << "\n" << *this;
  return {};
}

std::ostream& operator<<(std::ostream& out, const ProgramResult& result) {
  return out << "status " << result.status << ", signal " << result.signal
             << (result.timed_out ? ", timed out" : "") << "\nstdout: " << result.out.substr(0, 2000)
             << "\nstderr: " << result.err.substr(0, 2000);
}

bool is_one_error(const std::string& err) {
  size_t errors = 0;
  size_t fixes = 0;
  std::istringstream lines(err);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("warning: ", 0) == 0) continue;
    if (line.rfind("error: ", 0) == 0 && line.size() > 12) {
      ++errors;
    } else if (line.rfind("  ", 0) == 0 && errors == 1) {
      ++fixes;
    } else {
      return false;
    }
  }
  return errors == 1 && fixes <= 1;
}

std::string model(std::string_view name) {
  const auto folder = model_folder(name, {.with_tokenizer = true});
  if (folder) return folder->string();
  ADD_FAILURE() << to_string(folder.error());
  return "/nonexistent";
}

}  // namespace nibble::test
