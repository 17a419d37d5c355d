#ifndef NIBBLE_HUB_HUB_ERRORS_H_
#define NIBBLE_HUB_HUB_ERRORS_H_

#include <string>
#include <string_view>

#include "nibble/base/error.h"
#include "nibble/checkpoint/hub_cache.h"
#include "nibble/hub/http.h"
#include "nibble/hub/hub_settings.h"

namespace nibble {

// "HTTP 503 Service Unavailable".
std::string status_text(const HttpResponse& response);

// What 401, 403, 404 and the like say about the repository or one of its files, and what to do. The hub
// says more in X-Error-Code and X-Error-Message. Its `where` is empty: callers know.
Error explain_refusal(const HttpResponse& response, const RepoName& name, std::string_view file,
                      const HubSettings& settings);

}  // namespace nibble

#endif  // NIBBLE_HUB_HUB_ERRORS_H_
