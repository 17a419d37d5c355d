#ifndef NIBBLE_HUB_RETRY_H_
#define NIBBLE_HUB_RETRY_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "nibble/base/error.h"
#include "nibble/hub/hub_settings.h"

namespace nibble {

// How one try of something ended. What no other try can mend is an error instead.
struct Attempt {
  std::string trouble = {};    // empty: it is done
  bool made_progress = false;  // something new came: the count of tries begins anew
  std::chrono::milliseconds wait_at_least{0};
};

// Said before each wait: "HTTP 503", and how long it will be.
using OnWait = std::function<void(std::string_view why, std::chrono::milliseconds wait)>;

// Tries until it is done; waits longer from try to try. kUnavailable with the last trouble once the
// tries are used up, or where the server asks for more patience than we have; kCancelled as http.h.
Status with_retries(const HubTiming& timing, const OnWait& on_wait, const std::atomic<bool>* stop,
                    const std::function<Expected<Attempt>()>& attempt);

}  // namespace nibble

#endif  // NIBBLE_HUB_RETRY_H_
