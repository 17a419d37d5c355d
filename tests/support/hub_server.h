#ifndef NIBBLE_TESTS_SUPPORT_HUB_SERVER_H_
#define NIBBLE_TESTS_SUPPORT_HUB_SERVER_H_

// A hub on 127.0.0.1 that speaks the protocol of huggingface.co as far as downloads need it, and misbehaves
// when told to. Large files are redirected to another "host" (localhost), as the hub does.

#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace nibble::test {

struct HubRepo {
  std::string commit = std::string(40, 'a');
  std::map<std::string, std::string> files;      // path -> content
  std::vector<std::string> branches = {"main"};  // all of them are `commit`
  size_t lfs_from = 1000;                        // bytes: files of this size are large ones
  bool is_gated = false;
  std::string token;  // who may read it; empty: all
};

// What goes wrong with one request.
struct HubFault {
  int status = 0;                                                 // answers with this
  std::vector<std::pair<std::string, std::string>> headers = {};  // more of them
  size_t cut_after = std::string::npos;    // bytes of the body; then the connection is closed
  size_t stall_after = std::string::npos;  // bytes of the body; then nothing more comes
  int64_t length_off_by = 0;               // of Content-Length
  bool wrong_bytes = false;
  bool ignores_range = false;
  bool hides_range = false;   // sends another part than was asked for
  std::string location = {};  // of a redirect, in place of the right one
  size_t slow_bytes_per_second = 0;
};

struct HubRequest {
  std::string method, target;
  std::map<std::string, std::string> headers;  // names in lower case
};

class HubServer {
 public:
  explicit HubServer(int port = 0);  // 0: any that is free
  ~HubServer();
  HubServer(const HubServer&) = delete;
  HubServer& operator=(const HubServer&) = delete;

  std::string endpoint() const;  // "http://127.0.0.1:PORT"
  std::string cdn() const;       // "http://localhost:PORT"

  void add_repo(const std::string& name, HubRepo repo);
  // For the next `count` requests whose target contains `part`.
  void add_fault(std::string part, const HubFault& fault, size_t count = 1);
  // The list of files as it is, in place of one made from the repository.
  void set_tree(std::string json);
  void set_page_size(size_t files) { page_size_ = files; }

  std::vector<HubRequest> requests() const;
  size_t count_requests(std::string_view part) const;  // whose target contains it

 private:
  struct Answer;

  void accept_loop();
  void serve(int socket);
  Answer answer(const HubRequest& request);
  Answer list(const std::string& name, const HubRepo& repo, const std::string& target) const;
  Answer resolve(const std::string& name, const HubRepo& repo, const std::string& path) const;
  HubFault take_fault(const std::string& target);

  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<size_t> page_size_ = 1000;
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, HubRepo> repos_;
  std::map<std::string, std::string> blobs_;   // of large files, by SHA-256
  std::map<std::string, std::string> hashes_;  // "org/name/path" -> hash, the git one of small files
  std::vector<std::pair<std::string, HubFault>> faults_;
  std::string tree_;
  std::vector<HubRequest> requests_;
  std::vector<std::thread> connections_;
  std::thread acceptor_;
};

// git's hash of a file.
std::string git_sha1(std::string_view content);

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_SUPPORT_HUB_SERVER_H_
