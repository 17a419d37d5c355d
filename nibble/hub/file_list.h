#ifndef NIBBLE_HUB_FILE_LIST_H_
#define NIBBLE_HUB_FILE_LIST_H_

#include <string_view>
#include <vector>

#include "nibble/hub/hub_client.h"
#include "nibble/hub/remote_model.h"

namespace nibble {

// The commit that a branch, a tag or a commit stands for.
Expected<std::string> resolve_commit(HubClient& client);

// All files of a commit, sorted by path. kDataLoss for a list that cannot be, or whose names would lead
// out of a folder.
Expected<std::vector<RemoteFile>> list_files(HubClient& client, std::string_view commit);

// Relative, with plain parts: nothing in it may lead out of the snapshot's folder or look like
// something else on a terminal.
bool is_safe_path(std::string_view path);

}  // namespace nibble

#endif  // NIBBLE_HUB_FILE_LIST_H_
