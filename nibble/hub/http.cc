#include "nibble/hub/http.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <string_view>

#include <curl/curl.h>

#include "nibble/base/cancel.h"
#include "nibble/base/check.h"
#include "nibble/base/text.h"
#include "nibble/checkpoint/hub_cache.h"

namespace nibble {
namespace {

constexpr size_t kMaxErrorText = 4096;
constexpr size_t kMaxHeaderBytes = 1 << 16;

using Clock = std::chrono::steady_clock;

// What one transfer's callbacks share.
struct Transfer {
  const BodySink& sink;
  const std::atomic<bool>* stop;
  CURL* curl;
  std::chrono::seconds stall_timeout;
  HttpResponse response = {};
  size_t header_bytes = 0;
  std::optional<Error> sink_error = {};
  Clock::time_point last_byte = Clock::now();
  bool is_stalled = false;

  bool is_stopped() const {
    return cancel_requested() || (stop != nullptr && stop->load(std::memory_order_relaxed));
  }
};

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// curl calls these with C linkage and must see no exception; nothing here throws but out of memory.
size_t on_header(char* data, size_t, size_t count, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  transfer.last_byte = Clock::now();
  transfer.header_bytes += count;
  if (transfer.header_bytes > kMaxHeaderBytes) return 0;
  const std::string_view line(data, count);
  if (line.starts_with("HTTP/")) {
    transfer.response.headers.clear();  // of "100 Continue", or of a proxy
    return count;
  }
  const size_t colon = line.find(':');
  if (colon == line.npos) return count;
  const std::string name = lower_case(trim(line.substr(0, colon)));
  transfer.response.headers[name] = trim(line.substr(colon + 1));
  return count;
}

size_t on_body(char* data, size_t, size_t count, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  HttpResponse& response = transfer.response;
  if (response.status == 0) curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &response.status);
  if (!response.is_ok()) {
    const size_t room = kMaxErrorText - response.error_text.size();
    response.error_text.append(data, std::min(room, count));
    return count;
  }
  const Status status = transfer.sink(response, std::as_bytes(std::span(data, count)));
  transfer.last_byte = Clock::now();
  if (status) return count;
  transfer.sink_error = status.error();
  return CURL_WRITEFUNC_ERROR;
}

// Called at least once a second. curl's own limit for slow transfers looks at the average of the last
// seconds, and so takes long to notice that a fast one has fallen silent.
int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  transfer.is_stalled = Clock::now() - transfer.last_byte >= transfer.stall_timeout;
  return transfer.is_stalled || transfer.is_stopped() ? 1 : 0;
}

// Whether another try may end differently.
bool is_transient(CURLcode code) {
  constexpr std::array kTransient = {CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY,
                                     CURLE_COULDNT_CONNECT,      CURLE_OPERATION_TIMEDOUT,
                                     CURLE_PARTIAL_FILE,         CURLE_GOT_NOTHING,
                                     CURLE_RECV_ERROR,           CURLE_SEND_ERROR,
                                     CURLE_SSL_CONNECT_ERROR,    CURLE_HTTP2,
                                     CURLE_HTTP2_STREAM,         CURLE_WEIRD_SERVER_REPLY};
  return std::find(kTransient.begin(), kTransient.end(), code) != kTransient.end();
}

// 'RateLimit: "api";r=0;t=55' as the hub sends it with 429: nothing left for 55 seconds.
std::chrono::milliseconds rate_limit_wait(const HttpResponse& response) {
  const std::string text = response.header("ratelimit");
  if (text.find(";r=0") == text.npos) return {};
  const size_t at = text.find(";t=");
  if (at == text.npos) return {};
  return std::chrono::seconds(std::clamp(std::atol(text.c_str() + at + 3), 0L, 1L << 20));
}

std::chrono::milliseconds retry_after(CURL* curl, const HttpResponse& response) {
  curl_off_t seconds = 0;
  curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &seconds);  // a number or a date
  if (seconds > 0) return std::chrono::seconds(std::min<curl_off_t>(seconds, 1 << 20));
  return response.status == 429 ? rate_limit_wait(response) : std::chrono::milliseconds(0);
}

}  // namespace

struct HttpSession::Handle {
  CURL* curl = nullptr;
  std::array<char, CURL_ERROR_SIZE> message = {};
};

std::string HttpResponse::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

HttpSession::HttpSession(const HubTiming& timing) : handle_(std::make_unique<Handle>()), timing_(timing) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);  // once, whichever thread comes first
  NIBBLE_CHECK(ready == CURLE_OK);
  handle_->curl = curl_easy_init();
  NIBBLE_CHECK(handle_->curl != nullptr);
}

HttpSession::~HttpSession() { curl_easy_cleanup(handle_->curl); }

Expected<HttpResponse> HttpSession::get(const HttpRequest& request, const BodySink& sink,
                                        const std::atomic<bool>* stop) {
  CURL* const curl = handle_->curl;
  Transfer transfer{sink, stop, curl, timing_.stall_timeout};
  if (transfer.is_stopped()) return fail(ErrorCode::kCancelled, "interrupted");
  curl_easy_reset(curl);  // keeps the connection
  handle_->message[0] = '\0';
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, handle_->message.data());
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "nibble/" NIBBLE_VERSION);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 512L * 1024);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, static_cast<long>(timing_.connect_timeout.count()));
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  if (!request.range.empty()) curl_easy_setopt(curl, CURLOPT_RANGE, request.range.c_str());
  const auto certificates = environment("SSL_CERT_FILE");
  if (certificates) curl_easy_setopt(curl, CURLOPT_CAINFO, certificates->c_str());
  // Sizes and hashes are those of the bytes as they are, so nothing may compress them on the way.
  curl_slist* headers = curl_slist_append(nullptr, "Accept-Encoding: identity");
  if (!request.token.empty()) {
    headers = curl_slist_append(headers, ("Authorization: Bearer " + request.token).c_str());
  }
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);

  const CURLcode code = curl_easy_perform(curl);
  curl_slist_free_all(headers);
  HttpResponse& response = transfer.response;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &response.status);
  response.retry_after = retry_after(curl, response);
  if (transfer.sink_error) return Failure(*std::move(transfer.sink_error));
  if (code == CURLE_OK) return std::move(response);
  if (code == CURLE_ABORTED_BY_CALLBACK && transfer.is_stalled) {
    response.trouble = fmt::format("nothing came for {} s", timing_.stall_timeout.count());
    return std::move(response);
  }
  if (code == CURLE_ABORTED_BY_CALLBACK) return fail(ErrorCode::kCancelled, "interrupted");
  const std::string_view said = trim(handle_->message.data());
  const std::string what(said.empty() ? curl_easy_strerror(code) : said);
  if (!is_transient(code)) {
    Failure failure =
        fail(ErrorCode::kUnavailable, "{}", what).at(request.url.substr(0, request.url.find('?')));
    if (code != CURLE_PEER_FAILED_VERIFICATION) return failure;
    return std::move(failure).with_fix(
        "Install the package ca-certificates, or name your certificates in SSL_CERT_FILE.");
  }
  response.trouble = what;
  return std::move(response);
}

}  // namespace nibble
