#ifndef NIBBLE_HUB_HUB_CLIENT_H_
#define NIBBLE_HUB_HUB_CLIENT_H_

// Requests to the hub about one repository: who gets the token, which redirects are followed, which
// answers are worth another try, and what the others mean.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "nibble/checkpoint/hub_cache.h"
#include "nibble/hub/http.h"
#include "nibble/hub/hub_settings.h"
#include "nibble/hub/retry.h"
#include "nibble/hub/url.h"

namespace nibble {

// One thread at a time; each thread makes its own.
class HubClient {
 public:
  // kUnavailable with HF_HUB_OFFLINE, kInvalidArgument for an endpoint that is no URL.
  static Expected<HubClient> create(HubSettings settings, RepoName name);

  const HubSettings& settings() const { return settings_; }
  const RepoName& name() const { return name_; }

  // While *stop is true, requests end with kCancelled.
  void set_stop(const std::atomic<bool>* stop) { stop_ = stop; }
  const std::atomic<bool>* stop() const { return stop_; }

  // ENDPOINT/api/models/org/name and what follows it.
  std::string api_url(std::string_view rest) const;
  // ENDPOINT/org/name/resolve/COMMIT/PATH.
  std::string file_url(std::string_view commit, std::string_view path) const;

  // One try. Follows redirects; the token goes to the endpoint's scheme, host and port and nowhere else;
  // from https to http is refused.
  Expected<HttpResponse> get(const std::string& url, const std::string& range, const BodySink& sink);

  // What an answer means for with_retries(): done, worth another try, or an error that says how to
  // mend it. `file`: what was asked for, for the message; empty: the repository.
  Expected<Attempt> judge(const HttpResponse& response, std::string_view file) const;

  // A whole answer, with retries.
  struct Answer {
    HttpResponse head;
    std::string body;
  };
  Expected<Answer> get_text(const std::string& url, uint64_t max_bytes, std::string_view file = {});

 private:
  HubClient(HubSettings settings, RepoName name, Origin endpoint);

  HubSettings settings_;
  RepoName name_;
  Origin endpoint_;
  std::unique_ptr<HttpSession> session_;
  const std::atomic<bool>* stop_ = nullptr;
};

// For a wait that nobody watches: said with -v.
void log_wait(std::string_view why, std::chrono::milliseconds wait);

}  // namespace nibble

#endif  // NIBBLE_HUB_HUB_CLIENT_H_
