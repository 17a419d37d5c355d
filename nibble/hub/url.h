#ifndef NIBBLE_HUB_URL_H_
#define NIBBLE_HUB_URL_H_

#include <string>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble {

// What decides whom we talk to. Two URLs with equal parts may see the same token.
struct Origin {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case
  std::string port;    // "443", also where the URL leaves it out

  bool operator==(const Origin&) const = default;
};
std::string to_string(const Origin& origin);  // "https://huggingface.co", the port only where unusual

// kInvalidArgument for what is no http(s) URL, and for one with a name or password in it.
Expected<Origin> parse_origin(const std::string& url);

// What `reference` ("/a/b", "https://...") means in an answer from `base`.
Expected<std::string> resolve_url(const std::string& base, const std::string& reference);

// This machine itself: localhost, 127.0.0.0/8, [::1].
bool is_loopback(const Origin& origin);

// For one part of a path; slashes too, unless keep_slashes.
std::string percent_encode(std::string_view text, bool keep_slashes = false);

}  // namespace nibble

#endif  // NIBBLE_HUB_URL_H_
