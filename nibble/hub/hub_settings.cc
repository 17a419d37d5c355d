#include "nibble/hub/hub_settings.h"

#include <algorithm>
#include <charconv>

#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/hub_cache.h"
#include "nibble/hub/url.h"

namespace nibble {
namespace {

// A token is one line of printable ASCII; anything else would break the header that carries it.
Expected<std::string> clean_token(std::string token, std::string_view where) {
  token.erase(token.find_last_not_of(" \r\n\t") + 1);
  token.erase(0, std::min(token.find_first_not_of(" \r\n\t"), token.size()));
  for (const char c : token) {
    if (c > ' ' && c <= '~') continue;
    return fail(ErrorCode::kInvalidArgument, "this is not a token of the hub")
        .at(where)
        .with_fix("Make one at https://huggingface.co/settings/tokens");
  }
  return token;
}

Expected<std::string> find_token() {
  if (auto token = environment("HF_TOKEN")) return clean_token(std::move(*token), "HF_TOKEN");
  const auto named = environment("HF_TOKEN_PATH");
  const std::filesystem::path file = named ? expand_home(*named) : hub_home() / "token";
  auto text = read_text_file(file, /*max_bytes=*/4096);
  if (text) return clean_token(std::move(*text), file.string());
  if (text.error().code == ErrorCode::kNotFound) return std::string();
  return Failure(std::move(text).error());
}

}  // namespace

Expected<HubSettings> hub_settings_from_environment() {
  HubSettings settings;
  settings.endpoint = environment("HF_ENDPOINT").value_or(settings.endpoint);
  while (settings.endpoint.ends_with('/')) settings.endpoint.pop_back();
  NIBBLE_TRY(const Origin origin, at("HF_ENDPOINT", parse_origin(settings.endpoint)));
  NIBBLE_TRY(settings.token, find_token());
  settings.cache = hub_cache();
  settings.offline = is_hub_offline();
  if (const auto text = environment("HF_HUB_DOWNLOAD_TIMEOUT")) {
    int seconds = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
    if (error != std::errc() || end != text->data() + text->size() || seconds < 1 || seconds > 86400) {
      return fail(ErrorCode::kInvalidArgument, "\"{}\" is not a number of seconds", *text)
          .at("HF_HUB_DOWNLOAD_TIMEOUT");
    }
    settings.timing.stall_timeout = std::chrono::seconds(seconds);
  }
  if (origin.scheme == "http" && !is_loopback(origin) && !settings.offline) {
    warn("HF_ENDPOINT {} is not encrypted: anybody on the way can read and change what you fetch{}",
         settings.endpoint, settings.token.empty() ? "" : ", and read your token");
  }
  return settings;
}

}  // namespace nibble
