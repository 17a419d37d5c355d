#ifndef NIBBLE_CHECKPOINT_HUB_CACHE_H_
#define NIBBLE_CHECKPOINT_HUB_CACHE_H_

// The cache of huggingface_hub on disk, which nibble/hub fills and find_model() reads:
//
//   HUB_CACHE/models--org--name/blobs/ETAG             a file's bytes; SHA-256, or git's SHA-1 if it is small
//                              /snapshots/COMMIT/PATH  -> ../../blobs/ETAG
//                              /refs/REVISION          the commit that a branch or tag stood for
//            /.locks/models--org--name/ETAG.lock       held while the blob is written

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"

namespace nibble {

// "org/name@revision:QUANT", taken apart.
struct RepoName {
  std::string repo;        // "org/name", or "gpt2" for the oldest models
  std::string revision;    // a branch, a tag or a commit hash
  std::string quant = {};  // which of its GGUF files, as choose_gguf() reads it; empty: none was named
};

// "org/name", "org/name@revision", either with ":QUANT"; before it, there may be "hf://", "hf.co/" (as for
// Ollama) or the address of the hub. Nothing if it cannot be a name in the hub.
// `revision` is used for a name that has none itself; "main" where that is empty, too.
std::optional<RepoName> parse_repo_name(std::string_view model, std::string_view revision = {});
std::string to_string(const RepoName& name);  // "org/name", "org/name@v2:Q4_K_M"

// Nothing where the variable is empty, too.
std::optional<std::string> environment(const char* name);

// HF_HOME, or "huggingface" under XDG_CACHE_HOME or ~/.cache.
std::filesystem::path hub_home();
// HF_HUB_CACHE, or "hub" under hub_home().
std::filesystem::path hub_cache();
bool is_hub_offline();  // HF_HUB_OFFLINE

// "~/x" as the shell reads it.
std::filesystem::path expand_home(const std::string& path);

// "models--org--name".
std::string repo_folder_name(std::string_view repo);

// The folder of the revision under CACHE/models--org--name. kNotFound where the cache has not got it,
// kDataLoss where one of its links leads out of that folder.
Expected<std::filesystem::path> find_snapshot(const std::filesystem::path& repo_folder, const RepoName& name);

// A word of letters, digits and "._-+": as a part of a path it cannot lead out of its folder.
bool is_safe_part(std::string_view part);
std::vector<std::string_view> split_at_slashes(std::string_view text);

// Names of what is in a folder, sorted; none if it is not there.
std::vector<std::string> names_in(const std::filesystem::path& folder);
bool is_folder(const std::filesystem::path& path);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_HUB_CACHE_H_
