#ifndef NIBBLE_HUB_FETCH_BLOB_H_
#define NIBBLE_HUB_FETCH_BLOB_H_

#include <cstdint>
#include <functional>
#include <string_view>

#include "nibble/base/error.h"
#include "nibble/hub/hub_client.h"
#include "nibble/hub/remote_model.h"
#include "nibble/hub/repo_cache.h"

namespace nibble {

// What somebody who watches is told. Called by the thread that fetches.
struct FetchEvents {
  std::function<void(uint64_t bytes_there)> on_bytes;
  OnWait on_wait;
};

// Brings one file into the cache's blobs: waits for its lock, goes on where an earlier download stopped,
// checks size and hash, and renames it into place. Returns how many bytes came over the network: 0 if
// somebody else was faster. kDataLoss if the bytes are not those that the hub lists, even from the
// beginning; what an error or Ctrl-C leaves goes on with the next call.
Expected<uint64_t> fetch_blob(HubClient& client, std::string_view commit, const RemoteFile& file,
                              const RepoCache& cache, const FetchEvents& events);

}  // namespace nibble

#endif  // NIBBLE_HUB_FETCH_BLOB_H_
