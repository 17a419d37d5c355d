#include "nibble/hub/file_list.h"

#include <algorithm>

#include "nibble/base/json.h"
#include "nibble/base/printable.h"
#include "nibble/hub/blob_digest.h"

namespace nibble {
namespace {

constexpr uint64_t kMaxAnswerBytes = uint64_t{64} << 20;
constexpr size_t kMaxFiles = 200'000;
constexpr uint64_t kMaxFileSize = uint64_t{1} << 50;

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// For messages: a hostile name must not reach the terminal as it is.
std::string as_literal(const std::string& name) {
  return Json(name.substr(0, 200)).dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

// {"type": "file", "path", "size", "oid": git's SHA-1, "lfs": {"oid": SHA-256, "size"}}
Expected<RemoteFile> parse_entry(const Json& entry) {
  RemoteFile file{.path = text_of(entry, "path"), .etag = text_of(entry, "oid")};
  if (!is_safe_path(file.path)) {
    return fail(ErrorCode::kDataLoss, "the hub lists a file called {}, which is no plain name",
                as_literal(file.path))
        .with_fix("Nothing was fetched. Do not use this model.");
  }
  const auto lfs = entry.find("lfs");
  const bool is_large = lfs != entry.end() && lfs->is_object();
  if (is_large) file.etag = text_of(*lfs, "oid");
  const Json& sized = is_large && lfs->contains("size") ? *lfs : entry;
  const auto size = sized.find("size");
  if (size == sized.end() || !size->is_number_unsigned() || size->get<uint64_t>() > kMaxFileSize) {
    return fail(ErrorCode::kDataLoss, "the hub gives no size for {}", as_literal(file.path));
  }
  file.size = size->get<uint64_t>();
  if (is_large ? !is_sha256(file.etag) : !is_sha1(file.etag)) {
    return fail(ErrorCode::kDataLoss, "the hub gives no hash for {}", as_literal(file.path));
  }
  return file;
}

// The address in '<https://...>; rel="next"'; empty on the last page.
std::string next_page(const HttpResponse& response) {
  const std::string link = response.header("link");
  const size_t rel = link.find("rel=\"next\"");
  if (rel == link.npos) return {};
  const size_t begin = link.rfind('<', rel);
  const size_t end = link.find('>', begin == link.npos ? 0 : begin);
  if (begin == link.npos || end == link.npos || end > rel) return {};
  return link.substr(begin + 1, end - begin - 1);
}

// "a" as a file and "a/b" as another cannot both be written.
Status check_tree(const std::vector<RemoteFile>& files) {
  std::vector<std::string_view> paths;
  for (const RemoteFile& file : files) paths.push_back(file.path);  // sorted, as the files are
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string& path = files[i].path;
    bool clashes = i > 0 && files[i - 1].path == path;
    for (size_t slash = path.find('/'); slash != path.npos; slash = path.find('/', slash + 1)) {
      clashes =
          clashes || std::binary_search(paths.begin(), paths.end(), std::string_view(path).substr(0, slash));
    }
    if (clashes) return fail(ErrorCode::kDataLoss, "the hub lists {} twice", as_literal(path));
  }
  return {};
}

}  // namespace

bool is_safe_path(std::string_view path) {
  if (path.size() > 1000) return false;
  const bool is_plain = printable(path) == path && path.find('\\') == path.npos;
  const auto parts = split_at_slashes(path);
  return is_plain && std::none_of(parts.begin(), parts.end(), [](std::string_view part) {
           return part.empty() || part == "." || part == ".." || part.size() > 255;
         });
}

Expected<std::string> resolve_commit(HubClient& client) {
  const std::string& revision = client.name().revision;
  if (is_sha1(revision)) return revision;
  NIBBLE_TRY(const auto answer,
             client.get_text(client.api_url("/revision/" + percent_encode(revision)), kMaxAnswerBytes));
  const std::string where = to_string(client.name());
  NIBBLE_TRY(const Json json, at(where, parse_json(answer.body)));
  const std::string commit = json.is_object() ? text_of(json, "sha") : std::string();
  if (is_sha1(commit)) return commit;
  return fail(ErrorCode::kDataLoss, "the answer names no commit")
      .at(where)
      .with_fix("Check that HF_ENDPOINT is a hub: " + client.settings().endpoint);
}

Expected<std::vector<RemoteFile>> list_files(HubClient& client, std::string_view commit) {
  const std::string where = to_string(client.name());
  std::vector<RemoteFile> files;
  std::string url = client.api_url(fmt::format("/tree/{}?recursive=true&expand=false", commit));
  while (!url.empty()) {
    NIBBLE_TRY(const auto answer, client.get_text(url, kMaxAnswerBytes));
    NIBBLE_TRY(const Json page, at(where, parse_json(answer.body)));
    if (!page.is_array()) return fail(ErrorCode::kDataLoss, "the answer is no list of files").at(where);
    for (const Json& entry : page) {
      if (!entry.is_object()) return fail(ErrorCode::kDataLoss, "the answer is no list of files").at(where);
      if (text_of(entry, "type") != "file") continue;
      NIBBLE_TRY(RemoteFile file, at(where, parse_entry(entry)));
      files.push_back(std::move(file));
    }
    const std::string next = next_page(answer.head);
    if (files.size() > kMaxFiles || (page.empty() && !next.empty())) {
      return fail(ErrorCode::kDataLoss, "the list of files does not end").at(where);
    }
    if (next.empty()) break;
    NIBBLE_TRY(url, resolve_url(url, next));
  }
  std::sort(files.begin(), files.end(),
            [](const RemoteFile& a, const RemoteFile& b) { return a.path < b.path; });
  NIBBLE_RETURN_IF_ERROR(at(where, check_tree(files)));
  return files;
}

}  // namespace nibble
