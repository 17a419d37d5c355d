#include "nibble/hub/remote_model.h"

#include <algorithm>
#include <utility>

#include "nibble/hub/blob_digest.h"
#include "nibble/hub/file_list.h"
#include "nibble/hub/hub_client.h"

namespace nibble {
namespace {

// A file that the server sends whole although a part was asked for is taken from up to this size.
constexpr uint64_t kMaxWholeFile = uint64_t{64} << 20;

}  // namespace

RemoteModel::RemoteModel(std::string repo, std::string revision, std::unique_ptr<HubClient> client)
    : repo_(std::move(repo)), revision_(std::move(revision)), client_(std::move(client)) {}
RemoteModel::RemoteModel(RemoteModel&&) noexcept = default;
RemoteModel& RemoteModel::operator=(RemoteModel&&) noexcept = default;
RemoteModel::~RemoteModel() = default;

Expected<RemoteModel> open_remote(std::string_view repo_and_revision, const HubSettings& settings) {
  const auto name = parse_repo_name(repo_and_revision);
  // Two hyphens in a row stand for the slash in the cache's folders; the hub has no such names.
  if (!name || name->repo.find("--") != std::string::npos || name->repo.find("..") != std::string::npos) {
    return fail(ErrorCode::kInvalidArgument, "not of the form org/name, org/name@revision or org/name:QUANT")
        .at(repo_and_revision)
        .with_fix("Copy the name from the model's page: https://huggingface.co/models");
  }
  NIBBLE_TRY(HubClient client, HubClient::create(settings, *name));
  RemoteModel model(name->repo, name->revision, std::make_unique<HubClient>(std::move(client)));
  NIBBLE_TRY(model.commit_, resolve_commit(*model.client_));
  NIBBLE_TRY(model.files_, list_files(*model.client_, model.commit_));
  return model;
}

Expected<RemoteModel> open_remote(std::string_view repo_and_revision) {
  NIBBLE_TRY(const HubSettings settings, hub_settings_from_environment());
  return open_remote(repo_and_revision, settings);
}

const RemoteFile* RemoteModel::find(std::string_view path) const {
  const auto found =
      std::lower_bound(files_.begin(), files_.end(), path,
                       [](const RemoteFile& file, std::string_view p) { return file.path < p; });
  return found != files_.end() && found->path == path ? &*found : nullptr;
}

Expected<const RemoteFile*> RemoteModel::require(std::string_view path) const {
  if (const RemoteFile* const file = find(path)) return file;
  return fail(ErrorCode::kNotFound, "the model has no file {}", path).at(to_string(client_->name()));
}

Expected<std::string> RemoteModel::read(std::string_view path, uint64_t max_bytes) const {
  NIBBLE_TRY(const RemoteFile* const file, require(path));
  const std::string where = fmt::format("{}: {}", to_string(client_->name()), path);
  if (file->size > max_bytes) {
    return fail(ErrorCode::kInvalidArgument, "{} bytes, but at most {} are read", file->size, max_bytes)
        .at(where);
  }
  NIBBLE_TRY(auto answer, client_->get_text(client_->file_url(commit_, path), file->size, path));
  BlobDigest digest(file->etag, file->size);
  digest.update(std::as_bytes(std::span(answer.body)));
  if (answer.body.size() != file->size || digest.finish() != file->etag) {
    return fail(ErrorCode::kDataLoss, "the bytes are not those that the hub lists: hash or size differ")
        .at(where);
  }
  return std::move(answer.body);
}

Expected<std::vector<std::byte>> RemoteModel::read_range(std::string_view path, uint64_t offset,
                                                         uint64_t length) const {
  NIBBLE_TRY(const RemoteFile* const file, require(path));
  const std::string where = fmt::format("{}: {}", to_string(client_->name()), path);
  if (offset > file->size || length > file->size - offset) {
    return fail(ErrorCode::kInvalidArgument, "{} bytes from {} on, but the file has {}", length, offset,
                file->size)
        .at(where);
  }
  std::vector<std::byte> bytes;
  if (length == 0) return bytes;
  const std::string url = client_->file_url(commit_, path);
  const std::string range = fmt::format("{}-{}", offset, offset + length - 1);
  const auto attempt = [&]() -> Expected<Attempt> {
    bytes.clear();
    uint64_t to_skip = 0;
    bool is_first = true;
    const BodySink sink = [&](const HttpResponse& head, std::span<const std::byte> piece) -> Status {
      if (std::exchange(is_first, false) && head.status == 200) {
        if (file->size > kMaxWholeFile)
          return fail(ErrorCode::kUnavailable, "the server sends no parts of files");
        to_skip = offset;
      }
      const uint64_t skipped = std::min<uint64_t>(to_skip, piece.size());
      to_skip -= skipped;
      piece = piece.subspan(skipped);
      piece = piece.first(std::min<uint64_t>(piece.size(), length - bytes.size()));
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      return {};
    };
    NIBBLE_TRY(const HttpResponse response, client_->get(url, range, sink));
    NIBBLE_TRY(Attempt result, client_->judge(response, path));
    if (result.trouble.empty() && bytes.size() != length) {
      result.trouble = fmt::format("the server sent {} of {} bytes", bytes.size(), length);
    }
    return result;
  };
  NIBBLE_RETURN_IF_ERROR(
      at(where, with_retries(client_->settings().timing, log_wait, client_->stop(), attempt)));
  return bytes;
}

}  // namespace nibble
