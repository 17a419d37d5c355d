#include "nibble/hub/url.h"

#include <algorithm>
#include <memory>

#include <curl/curl.h>

#include "nibble/base/text.h"

namespace nibble {
namespace {

struct UrlCleanup {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using UrlHandle = std::unique_ptr<CURLU, UrlCleanup>;

// Empty where the URL has no such part.
std::string part(const UrlHandle& url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), which, &text, flags) != CURLUE_OK) return {};
  std::string copy = text;
  curl_free(text);
  return copy;
}

}  // namespace

std::string to_string(const Origin& origin) {
  const bool usual = origin.port == (origin.scheme == "https" ? "443" : "80");
  return origin.scheme + "://" + origin.host + (usual ? "" : ":" + origin.port);
}

Expected<Origin> parse_origin(const std::string& url) {
  const UrlHandle handle(curl_url());
  if (curl_url_set(handle.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\" is not a URL", url);
  }
  Origin origin{lower_case(part(handle, CURLUPART_SCHEME)), lower_case(part(handle, CURLUPART_HOST)),
                part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT)};
  if (origin.scheme != "https" && origin.scheme != "http") {
    return fail(ErrorCode::kInvalidArgument, "\"{}\" does not begin with https://", url);
  }
  if (!part(handle, CURLUPART_USER).empty() || !part(handle, CURLUPART_PASSWORD).empty()) {
    return fail(ErrorCode::kInvalidArgument, "a URL with a name or a password in it")
        .with_fix("Put the token into HF_TOKEN.");
  }
  return origin;
}

Expected<std::string> resolve_url(const std::string& base, const std::string& reference) {
  const UrlHandle handle(curl_url());
  if (curl_url_set(handle.get(), CURLUPART_URL, base.c_str(), 0) != CURLUE_OK ||
      curl_url_set(handle.get(), CURLUPART_URL, reference.c_str(), 0) != CURLUE_OK) {
    return fail(ErrorCode::kDataLoss, "the server redirects to \"{}\", which is not a URL", reference);
  }
  return part(handle, CURLUPART_URL);
}

bool is_loopback(const Origin& origin) {
  return origin.host == "localhost" || origin.host == "[::1]" || origin.host.starts_with("127.");
}

std::string percent_encode(std::string_view text, bool keep_slashes) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace nibble
