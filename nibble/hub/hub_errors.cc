#include "nibble/hub/hub_errors.h"

#include <utility>

#include "nibble/base/printable.h"

namespace nibble {
namespace {

constexpr size_t kMaxServerText = 200;  // bytes

std::string_view reason(long status) {
  constexpr std::pair<long, std::string_view> kReasons[] = {
      {400, "Bad Request"},         {401, "Unauthorized"},          {403, "Forbidden"},
      {404, "Not Found"},           {408, "Request Timeout"},       {416, "Range Not Satisfiable"},
      {429, "Too Many Requests"},   {500, "Internal Server Error"}, {502, "Bad Gateway"},
      {503, "Service Unavailable"}, {504, "Gateway Timeout"}};
  for (const auto& [known, text] : kReasons) {
    if (known == status) return text;
  }
  return {};
}

}  // namespace

std::string status_text(const HttpResponse& response) {
  const std::string_view text = reason(response.status);
  return fmt::format("HTTP {}{}{}", response.status, text.empty() ? "" : " ", text);
}

Error explain_refusal(const HttpResponse& response, const RepoName& name, std::string_view file,
                      const HubSettings& settings) {
  const std::string code = response.header("x-error-code");
  // What the server says goes to a terminal.
  const std::string message = printable(response.header("x-error-message"), kMaxServerText);
  const bool has_token = !settings.token.empty();
  const std::string login =
      has_token
          ? "Check that the account of your token (HF_TOKEN) may read it."
          : "If it is private, set HF_TOKEN to a token of yours (https://huggingface.co/settings/tokens).";
  if (code == "GatedRepo") {
    return {ErrorCode::kUnavailable,
            "the model is gated: its authors ask you to agree to something first",
            {},
            fmt::format("Ask for access at {}/{}, {}.", settings.endpoint, name.repo,
                        has_token ? "with the account whose token HF_TOKEN is"
                                  : "then set HF_TOKEN to a token of that account")};
  }
  if (code == "RevisionNotFound") {
    return {ErrorCode::kNotFound,
            fmt::format("{} has no revision {}", name.repo, name.revision),
            {},
            fmt::format("Its branches and tags: {}/{}/tree/main", settings.endpoint, name.repo)};
  }
  if (code == "EntryNotFound" || (response.status == 404 && !file.empty() && code.empty())) {
    return {ErrorCode::kNotFound, "there is no such file", {}, {}};
  }
  if (response.status == 401 && message.find("Invalid") != std::string::npos && has_token) {
    return {
        ErrorCode::kUnavailable,
        "the hub does not accept the token",
        {},
        "Make a new one at https://huggingface.co/settings/tokens and put it into HF_TOKEN, or unset it."};
  }
  if (response.status == 401 || response.status == 404) {
    return {ErrorCode::kNotFound,
            "the hub has no such model, or you may not see it",
            {},
            "Check the spelling. " + login};
  }
  std::string what = status_text(response);
  if (!message.empty()) what += ": " + message;
  return {ErrorCode::kUnavailable, what, {}, response.status == 403 ? login : std::string()};
}

}  // namespace nibble
