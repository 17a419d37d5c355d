#include "nibble/calibration/activation_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "nibble/base/atomic_file.h"
#include "nibble/base/check.h"
#include "nibble/calibration/row_loops.h"
#include "nibble/kernels/bfloat16.h"

namespace nibble {
namespace {

constexpr size_t kBytesAtOnce = size_t{1} << 22;  // through the buffer between file and floats

Failure file_failure(std::string_view doing, int error) {
  return fail(ErrorCode::kUnavailable, "cannot {} the activations: {}", doing, std::strerror(error))
      .with_fix("Free some space there and run the same command again: it goes on where it stopped.");
}

void decode(const std::byte* from, DType dtype, size_t count, float* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  kernels::bf16_to_floats(reinterpret_cast<const uint16_t*>(from), count, to);
}

void encode(const float* from, DType dtype, size_t count, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  kernels::floats_to_bf16(from, count, reinterpret_cast<uint16_t*>(to));
}

}  // namespace

ActivationStore ActivationStore::in_memory(const ActivationShape& shape) {
  ActivationStore store;
  store.shape_ = shape;
  store.capacity_ = shape.bytes();
  store.memory_ = AlignedBuffer(shape.bytes());
  return store;
}

Expected<ActivationStore> ActivationStore::in_file(const ActivationShape& shape,
                                                   const std::filesystem::path& folder) {
  std::string name = (folder / "activations-XXXXXX").string();
  ActivationStore store;
  store.shape_ = shape;
  store.capacity_ = shape.bytes();
  store.file_ = ::mkstemp(name.data());
  if (store.file_ < 0) return file_failure("make a file for", errno).at(folder.string());
  ::unlink(name.c_str());
  if (shape.bytes() == 0) return store;
  // Space is taken now, so that a full disk is found before the work and not in its middle.
  if (const int error = ::posix_fallocate(store.file_, 0, static_cast<off_t>(shape.bytes())); error != 0) {
    return file_failure("reserve space for", error).at(folder.string());
  }
  return store;
}

ActivationStore::ActivationStore(ActivationStore&& other) noexcept
    : shape_(std::exchange(other.shape_, {})),
      capacity_(std::exchange(other.capacity_, 0)),
      memory_(std::move(other.memory_)),
      file_(std::exchange(other.file_, -1)) {}

ActivationStore& ActivationStore::operator=(ActivationStore&& other) noexcept {
  std::swap(shape_, other.shape_);
  std::swap(capacity_, other.capacity_);
  std::swap(memory_, other.memory_);
  std::swap(file_, other.file_);
  return *this;
}

ActivationStore::~ActivationStore() {
  if (file_ >= 0) ::close(file_);
}

Status ActivationStore::transfer(size_t offset, void* bytes, size_t count, bool writing) const {
  auto* at = static_cast<std::byte*>(bytes);
  while (count > 0) {
    const auto position = static_cast<off_t>(offset);
    const ssize_t done = writing ? ::pwrite(file_, at, count, position) : ::pread(file_, at, count, position);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return file_failure(writing ? "write" : "read", done < 0 ? errno : EIO);
    at += done;
    offset += static_cast<size_t>(done);
    count -= static_cast<size_t>(done);
  }
  return {};
}

void ActivationStore::reshape(const ActivationShape& shape) {
  NIBBLE_CHECK(shape.bytes() <= capacity_);
  shape_ = shape;
}

Status ActivationStore::read(size_t first, MatrixView<float> values, ThreadPool& pool) const {
  NIBBLE_CHECK(first + values.rows() <= shape_.tokens && values.cols() == shape_.width);
  const size_t step = file_ >= 0 ? std::max<size_t>(1, kBytesAtOnce / row_bytes()) : values.rows();
  AlignedBuffer buffer(file_ >= 0 ? std::min(step, values.rows()) * row_bytes() : 0);
  for (size_t top = 0; top < values.rows(); top += step) {
    const size_t rows = std::min(step, values.rows() - top);
    const size_t offset = (first + top) * row_bytes();
    if (file_ >= 0) NIBBLE_RETURN_IF_ERROR(transfer(offset, buffer.data(), rows * row_bytes(), false));
    const std::byte* const from = file_ >= 0 ? buffer.data() : memory_.data() + offset;
    pool.parallel_for(rows, kRowsPerChunk, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        decode(from + r * row_bytes(), shape_.dtype, shape_.width, values.row(top + r));
      }
    });
  }
  return {};
}

Status ActivationStore::write(size_t first, MatrixView<const float> values, ThreadPool& pool) {
  NIBBLE_CHECK(first + values.rows() <= shape_.tokens && values.cols() == shape_.width);
  const size_t step = file_ >= 0 ? std::max<size_t>(1, kBytesAtOnce / row_bytes()) : values.rows();
  AlignedBuffer buffer(file_ >= 0 ? std::min(step, values.rows()) * row_bytes() : 0);
  for (size_t top = 0; top < values.rows(); top += step) {
    const size_t rows = std::min(step, values.rows() - top);
    const size_t offset = (first + top) * row_bytes();
    std::byte* const to = file_ >= 0 ? buffer.data() : memory_.data() + offset;
    pool.parallel_for(rows, kRowsPerChunk, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) {
        encode(values.row(top + r), shape_.dtype, shape_.width, to + r * row_bytes());
      }
    });
    if (file_ >= 0) NIBBLE_RETURN_IF_ERROR(transfer(offset, buffer.data(), rows * row_bytes(), true));
  }
  return {};
}

Status ActivationStore::save(const std::filesystem::path& path) const {
  NIBBLE_TRY(AtomicFile file, AtomicFile::create(path));
  std::vector<std::byte> buffer(file_ >= 0 ? kBytesAtOnce : 0);
  for (size_t offset = 0; offset < shape_.bytes(); offset += kBytesAtOnce) {
    const size_t count = std::min(kBytesAtOnce, shape_.bytes() - offset);
    const std::byte* from = memory_.data() + offset;
    if (file_ >= 0) {
      NIBBLE_RETURN_IF_ERROR(transfer(offset, buffer.data(), count, false));
      from = buffer.data();
    }
    NIBBLE_RETURN_IF_ERROR(file.write(std::span(from, count)));
  }
  return file.commit();
}

Status ActivationStore::load(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return file_failure("open", errno).at(path.string());
  struct stat info {};
  if (::fstat(fd, &info) != 0 || static_cast<size_t>(info.st_size) != shape_.bytes()) {
    ::close(fd);
    return fail(ErrorCode::kDataLoss, "{} bytes of activations, but the run has {}", info.st_size,
                shape_.bytes())
        .at(path.string())
        .with_fix("It belongs to another run: remove the folder and start again.");
  }
  std::vector<std::byte> buffer(file_ >= 0 ? kBytesAtOnce : 0);
  Status status;
  for (size_t offset = 0; status && offset < shape_.bytes();) {
    const size_t wanted = std::min(kBytesAtOnce, shape_.bytes() - offset);
    std::byte* const to = file_ >= 0 ? buffer.data() : memory_.data() + offset;
    const ssize_t done = ::pread(fd, to, wanted, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      status = file_failure("read", done < 0 ? errno : EIO).at(path.string());
      break;
    }
    if (file_ >= 0) status = transfer(offset, buffer.data(), static_cast<size_t>(done), true);
    offset += static_cast<size_t>(done);
  }
  ::close(fd);
  return status;
}

}  // namespace nibble
