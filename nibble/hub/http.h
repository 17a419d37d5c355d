#ifndef NIBBLE_HUB_HTTP_H_
#define NIBBLE_HUB_HTTP_H_

// libcurl, as little of it as we need: one GET at a time, without redirects and without retries, which
// hub_client.h adds by its own rules.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "nibble/base/error.h"
#include "nibble/hub/hub_settings.h"

namespace nibble {

struct HttpRequest {
  std::string url;
  std::string token = {};  // sent as "Authorization: Bearer"
  std::string range = {};  // "0-7", "100-"; empty: all of it
};

struct HttpResponse {
  long status = 0;                             // 0: there was no answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string trouble;     // the connection failed or ended early: another try may help; else empty
  std::string error_text;  // how the body of an answer that is neither 200 nor 206 begins
  std::chrono::milliseconds retry_after{0};  // what the server asked for

  std::string header(const std::string& name) const;  // empty if there is none
  bool is_ok() const { return status == 200 || status == 206; }
};

// Takes the body of 200 and 206 in pieces; an error ends the transfer.
using BodySink = std::function<Status(const HttpResponse& head, std::span<const std::byte> piece)>;

// Keeps its connection from one request to the next. One thread at a time.
class HttpSession {
 public:
  explicit HttpSession(const HubTiming& timing);
  ~HttpSession();
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  // kCancelled after Ctrl-C or once *stop is true; the sink's error; kUnavailable for what another try
  // will not mend (a certificate that is not trusted).
  Expected<HttpResponse> get(const HttpRequest& request, const BodySink& sink,
                             const std::atomic<bool>* stop = nullptr);

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
  HubTiming timing_;
};

}  // namespace nibble

#endif  // NIBBLE_HUB_HTTP_H_
