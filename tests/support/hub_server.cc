#include "tests/support/hub_server.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <openssl/sha.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nibble/base/json.h"
#include "nibble/base/sha256.h"

namespace nibble::test {
namespace {

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

std::string percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      out += static_cast<char>(std::strtol(std::string(text.substr(i + 1, 2)).c_str(), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool send_all(int socket, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL);
    if (count <= 0) return false;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

// Up to the empty line; nothing if the other side has gone.
std::optional<HubRequest> read_request(int socket, const std::atomic<bool>& stopping) {
  std::string text;
  while (text.find("\r\n\r\n") == text.npos) {
    pollfd waiting = {socket, POLLIN, 0};
    if (::poll(&waiting, 1, 50) == 0) {
      if (stopping) return std::nullopt;
      continue;
    }
    char chunk[4096];
    const ssize_t count = ::recv(socket, chunk, sizeof(chunk), 0);
    if (count <= 0) return std::nullopt;
    text.append(chunk, static_cast<size_t>(count));
  }
  HubRequest request;
  const size_t end = text.find("\r\n");
  const size_t space = text.find(' ');
  request.method = text.substr(0, space);
  request.target = text.substr(space + 1, text.find(' ', space + 1) - space - 1);
  for (size_t begin = end + 2; begin < text.size();) {
    const size_t line_end = text.find("\r\n", begin);
    const size_t colon = text.find(": ", begin);
    if (line_end == begin) break;
    if (colon < line_end)
      request.headers[lower(text.substr(begin, colon - begin))] =
          text.substr(colon + 2, line_end - colon - 2);
    begin = line_end + 2;
  }
  return request;
}

}  // namespace

struct HubServer::Answer {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
};

std::string git_sha1(std::string_view content) {
  const std::string blob = fmt::format("blob {}", content.size()) + '\0' + std::string(content);
  unsigned char digest[SHA_DIGEST_LENGTH];
  ::SHA1(reinterpret_cast<const unsigned char*>(blob.data()), blob.size(), digest);
  std::string hex;
  for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

HubServer::HubServer(int port) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 64) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::perror("hub server");
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_loop(); });
}

HubServer::~HubServer() {
  stopping_ = true;
  acceptor_.join();
  for (std::thread& connection : connections_) connection.join();
  ::close(listener_);
}

std::string HubServer::endpoint() const { return fmt::format("http://127.0.0.1:{}", port_); }
std::string HubServer::cdn() const { return fmt::format("http://localhost:{}", port_); }

void HubServer::add_repo(const std::string& name, HubRepo repo) {
  const std::lock_guard lock(mutex_);
  for (const auto& [path, content] : repo.files) {
    std::string& hash = hashes_[name + "/" + path];
    hash = content.size() >= repo.lfs_from ? sha256(content) : git_sha1(content);
    if (content.size() >= repo.lfs_from) blobs_[hash] = content;
  }
  repos_[name] = std::move(repo);
}

void HubServer::add_fault(std::string part, const HubFault& fault, size_t count) {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < count; ++i) faults_.emplace_back(part, fault);
}

void HubServer::set_tree(std::string json) {
  const std::lock_guard lock(mutex_);
  tree_ = std::move(json);
}

std::vector<HubRequest> HubServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

size_t HubServer::count_requests(std::string_view part) const {
  size_t count = 0;
  for (const HubRequest& request : requests())
    count += request.target.find(part) != std::string::npos ? 1 : 0;
  return count;
}

void HubServer::accept_loop() {
  while (!stopping_) {
    pollfd waiting = {listener_, POLLIN, 0};
    if (::poll(&waiting, 1, 20) <= 0) continue;
    const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    const std::lock_guard lock(mutex_);
    connections_.emplace_back([this, socket] { serve(socket); });
  }
}

HubFault HubServer::take_fault(const std::string& target) {
  const std::lock_guard lock(mutex_);
  for (auto fault = faults_.begin(); fault != faults_.end(); ++fault) {
    if (target.find(fault->first) == std::string::npos) continue;
    HubFault taken = std::move(fault->second);
    faults_.erase(fault);
    return taken;
  }
  return {};
}

void HubServer::serve(int socket) {
  const auto request = read_request(socket, stopping_);
  if (!request) {
    ::close(socket);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(*request);
  }
  const HubFault fault = take_fault(request->target);
  Answer reply = answer(*request);
  if (fault.status != 0) reply = Answer{.status = fault.status};
  if (!fault.location.empty()) reply = Answer{.status = 302, .headers = {{"Location", fault.location}}};
  reply.headers.insert(reply.headers.end(), fault.headers.begin(), fault.headers.end());
  if (fault.wrong_bytes && !reply.body.empty()) reply.body.back() ^= 1;

  const auto range = request->headers.find("range");
  if (range != request->headers.end() && reply.status == 200 && !fault.ignores_range) {
    const size_t size = reply.body.size();
    size_t begin = 0;
    size_t end = size;
    std::string text = range->second.substr(std::string_view("bytes=").size());
    begin = std::strtoull(text.c_str(), nullptr, 10);
    if (text.back() != '-')
      end = std::min<size_t>(size, std::strtoull(text.c_str() + text.find('-') + 1, nullptr, 10) + 1);
    if (begin >= size) {
      reply = Answer{.status = 416};
    } else {
      if (fault.hides_range) begin = 0;
      reply.status = 206;
      reply.body = reply.body.substr(begin, end - begin);
      reply.headers.emplace_back("Content-Range", fmt::format("bytes {}-{}/{}", begin, end - 1, size));
    }
  }

  std::string head = fmt::format("HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status,
                                 static_cast<int64_t>(reply.body.size()) + fault.length_off_by);
  for (const auto& [name, value] : reply.headers) head += fmt::format("{}: {}\r\n", name, value);
  bool alive = send_all(socket, head + "\r\n");
  if (request->method != "HEAD") {
    const size_t end = std::min({reply.body.size(), fault.cut_after, fault.stall_after});
    const size_t piece =
        fault.slow_bytes_per_second > 0 ? std::max<size_t>(1, fault.slow_bytes_per_second / 20) : 65536;
    for (size_t at = 0; at < end && alive && !stopping_; at += piece) {
      alive = send_all(socket, std::string_view(reply.body).substr(at, std::min(piece, end - at)));
      if (fault.slow_bytes_per_second > 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    while (alive && fault.stall_after != std::string::npos && !stopping_) {
      pollfd gone = {socket, POLLRDHUP, 0};
      if (::poll(&gone, 1, 20) > 0) break;
    }
  }
  ::shutdown(socket, SHUT_RDWR);
  ::close(socket);
}

HubServer::Answer HubServer::answer(const HubRequest& request) {
  const std::lock_guard lock(mutex_);
  constexpr std::string_view kApi = "/api/models/";
  constexpr std::string_view kCdn = "/cdn/";
  const std::string path = request.target.substr(0, request.target.find('?'));
  if (path.starts_with(kCdn)) {
    const auto blob = blobs_.find(path.substr(kCdn.size()));
    return blob == blobs_.end() ? Answer{.status = 404} : Answer{.body = blob->second};
  }
  const bool is_api = path.starts_with(kApi);
  const std::string rest = path.substr(is_api ? kApi.size() : 1);
  const auto authorization = request.headers.find("authorization");
  const std::string token = authorization == request.headers.end()
                                ? ""
                                : authorization->second.substr(std::string_view("Bearer ").size());
  for (const auto& [name, repo] : repos_) {
    if (!rest.starts_with(name + "/")) continue;
    const bool may_read = repo.token.empty() || repo.token == token;
    if (!may_read && !repo.is_gated) break;                 // as if it were not there
    const std::string tail = rest.substr(name.size() + 1);  // "revision/main", "resolve/COMMIT/a/b"
    const size_t slash = tail.find('/');
    const std::string verb = tail.substr(0, slash);
    std::string revision = tail.substr(slash + 1);
    std::string file;
    if (!is_api) {
      const size_t end = revision.find('/');
      file = percent_decode(revision.substr(end + 1));
      revision = revision.substr(0, end);
    }
    revision = percent_decode(revision);
    if (revision != repo.commit &&
        std::find(repo.branches.begin(), repo.branches.end(), revision) == repo.branches.end()) {
      return {.status = 404, .headers = {{"X-Error-Code", "RevisionNotFound"}}};
    }
    if (verb == "revision") {
      Json siblings = Json::array();
      for (const auto& known : repo.files) siblings.push_back({{"rfilename", known.first}});
      return {.body = Json{{"id", name}, {"sha", repo.commit}, {"siblings", siblings}}.dump()};
    }
    if (verb == "tree") return tree_.empty() ? list(name, repo, request.target) : Answer{.body = tree_};
    if (!may_read) return {.status = 403, .headers = {{"X-Error-Code", "GatedRepo"}}};
    return resolve(name, repo, file);
  }
  return {.status = token.empty() ? 401 : 404, .headers = {{"X-Error-Code", "RepoNotFound"}}};
}

HubServer::Answer HubServer::list(const std::string& name, const HubRepo& repo,
                                  const std::string& target) const {
  const size_t cursor = target.find("cursor=");
  size_t skip = cursor == target.npos ? 0 : std::strtoull(target.c_str() + cursor + 7, nullptr, 10);
  Answer reply;
  Json page = Json::array();
  std::string folder;
  size_t index = 0;
  for (const auto& [path, content] : repo.files) {
    if (index++ < skip) continue;
    if (page.size() == page_size_) {
      const std::string base = target.substr(0, target.find("&cursor="));
      reply.headers.emplace_back("Link",
                                 fmt::format("<{}{}&cursor={}>; rel=\"next\"", endpoint(), base, index - 1));
      break;
    }
    Json entry = {
        {"type", "file"}, {"path", path}, {"size", content.size()}, {"oid", hashes_.at(name + "/" + path)}};
    if (content.size() >= repo.lfs_from) {
      entry["lfs"] = {{"oid", entry["oid"]}, {"size", content.size()}, {"pointerSize", 130}};
      entry["oid"] = git_sha1("a pointer");
    }
    page.push_back(std::move(entry));
  }
  reply.body = page.dump();
  return reply;
}

HubServer::Answer HubServer::resolve(const std::string& name, const HubRepo& repo,
                                     const std::string& path) const {
  const auto file = repo.files.find(path);
  if (file == repo.files.end()) {
    return {.status = 404, .headers = {{"X-Error-Code", "EntryNotFound"}, {"X-Repo-Commit", repo.commit}}};
  }
  const std::string& content = file->second;
  const std::string& hash = hashes_.at(name + "/" + path);
  if (content.size() < repo.lfs_from) {
    return {.headers = {{"X-Repo-Commit", repo.commit}, {"ETag", fmt::format("\"{}\"", hash)}},
            .body = content};
  }
  return {.status = 302,
          .headers = {{"X-Repo-Commit", repo.commit},
                      {"X-Linked-Etag", fmt::format("\"{}\"", hash)},
                      {"X-Linked-Size", std::to_string(content.size())},
                      {"Location", fmt::format("{}/cdn/{}", cdn(), hash)}}};
}

}  // namespace nibble::test
