#include "nibble/hub/hub_client.h"

#include <algorithm>
#include <array>
#include <utility>

#include "nibble/base/log.h"
#include "nibble/hub/hub_errors.h"

namespace nibble {
namespace {

constexpr int kMaxRedirects = 8;

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool is_worth_another_try(long status) {
  constexpr std::array<long, 6> kTransient = {408, 429, 500, 502, 503, 504};
  return std::find(kTransient.begin(), kTransient.end(), status) != kTransient.end();
}

}  // namespace

Expected<HubClient> HubClient::create(HubSettings settings, RepoName name) {
  if (settings.offline) {
    return fail(ErrorCode::kUnavailable, "HF_HUB_OFFLINE is set, so the hub was not asked")
        .at(to_string(name))
        .with_fix("Unset HF_HUB_OFFLINE.");
  }
  NIBBLE_TRY(Origin endpoint, parse_origin(settings.endpoint));
  return HubClient(std::move(settings), std::move(name), std::move(endpoint));
}

HubClient::HubClient(HubSettings settings, RepoName name, Origin endpoint)
    : settings_(std::move(settings)),
      name_(std::move(name)),
      endpoint_(std::move(endpoint)),
      session_(std::make_unique<HttpSession>(settings_.timing)) {}

std::string HubClient::api_url(std::string_view rest) const {
  return fmt::format("{}/api/models/{}{}", settings_.endpoint, percent_encode(name_.repo, true), rest);
}

std::string HubClient::file_url(std::string_view commit, std::string_view path) const {
  return fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, percent_encode(name_.repo, true),
                     percent_encode(commit), percent_encode(path, true));
}

Expected<HttpResponse> HubClient::get(const std::string& url, const std::string& range,
                                      const BodySink& sink) {
  std::string current = url;
  NIBBLE_TRY(Origin origin, parse_origin(current));
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    HttpRequest request{.url = current, .range = range};
    if (origin == endpoint_) request.token = settings_.token;
    NIBBLE_TRY(HttpResponse response, session_->get(request, sink, stop_));
    log_verbose("GET {}: {}", current.substr(0, current.find('?')),  // a signed URL's secret is behind it
                response.trouble.empty() ? std::to_string(response.status) : response.trouble);
    if (!response.trouble.empty() || !is_redirect(response.status)) return response;
    const std::string location = response.header("location");
    if (location.empty()) {
      return fail(ErrorCode::kDataLoss, "HTTP {} without a Location", response.status).at(to_string(origin));
    }
    NIBBLE_TRY(current, resolve_url(current, location));
    NIBBLE_TRY(Origin next, parse_origin(current));
    if (origin.scheme == "https" && next.scheme != "https") {
      return fail(ErrorCode::kUnavailable, "redirects to {}, which is not encrypted", to_string(next))
          .at(to_string(origin))
          .with_fix("Something between you and the hub may be interfering: nothing was fetched from there.");
    }
    origin = std::move(next);
  }
  return fail(ErrorCode::kUnavailable, "more than {} redirects", kMaxRedirects).at(url);
}

Expected<Attempt> HubClient::judge(const HttpResponse& response, std::string_view file) const {
  if (!response.trouble.empty()) {
    return Attempt{.trouble = response.trouble, .wait_at_least = response.retry_after};
  }
  if (response.is_ok()) return Attempt{};
  if (is_worth_another_try(response.status)) {
    return Attempt{.trouble = status_text(response), .wait_at_least = response.retry_after};
  }
  return Failure(explain_refusal(response, name_, file, settings_));
}

Expected<HubClient::Answer> HubClient::get_text(const std::string& url, uint64_t max_bytes,
                                                std::string_view file) {
  Answer answer;
  const auto attempt = [&]() -> Expected<Attempt> {
    answer.body.clear();
    const BodySink sink = [&](const HttpResponse&, std::span<const std::byte> piece) -> Status {
      if (piece.size() > max_bytes - answer.body.size()) {
        return fail(ErrorCode::kDataLoss, "the server sends more than {} bytes", max_bytes);
      }
      answer.body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      return {};
    };
    NIBBLE_TRY(answer.head, get(url, {}, sink));
    return judge(answer.head, file);
  };
  const std::string where = file.empty() ? to_string(name_) : fmt::format("{}: {}", to_string(name_), file);
  NIBBLE_RETURN_IF_ERROR(at(where, with_retries(settings_.timing, log_wait, stop_, attempt)));
  return answer;
}

void log_wait(std::string_view why, std::chrono::milliseconds wait) {
  log_verbose("{}; trying again in {:.1f} s", why, std::chrono::duration<double>(wait).count());
}

}  // namespace nibble
