#ifndef NIBBLE_CHECKPOINT_SAFETENSORS_H_
#define NIBBLE_CHECKPOINT_SAFETENSORS_H_

// The safetensors format, by the rules of the reference reader (docs/formats/safetensors.md):
//   8 bytes   N, little-endian
//   N bytes   JSON: {"name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
//   the rest  the tensors' bytes, without holes or overlaps

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "nibble/base/mapped_file.h"
#include "nibble/base/tensor.h"

namespace nibble {

// The reference reader's limit: a header of 100 MB names about a million tensors.
inline constexpr size_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  TensorInfo info;
  size_t begin = 0;  // offsets into the data part
  size_t end = 0;

  bool operator==(const SafetensorsEntry&) const = default;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry, std::less<>> tensors;
  std::map<std::string, std::string> metadata;
  size_t data_start = 0;  // 8 + N

  bool operator==(const SafetensorsHeader&) const = default;
};

// Checks everything that can be known from the header and the size of the file. front: the bytes of the file
// up to safetensors_data_start() at least.
Expected<SafetensorsHeader> parse_safetensors(std::span<const std::byte> front, size_t file_bytes);
inline Expected<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file) {
  return parse_safetensors(file, file.size());
}
// Where the header ends, from the first 8 bytes.
Expected<size_t> safetensors_data_start(std::span<const std::byte> front, size_t file_bytes);

// A mapped file: tensors are views into it. Immutable.
class SafetensorsFile {
 public:
  static Expected<SafetensorsFile> open(const std::filesystem::path& path);

  const SafetensorsHeader& header() const { return header_; }
  Expected<Tensor> tensor(std::string_view name) const;
  size_t file_bytes() const { return file_->bytes().size(); }

 private:
  SafetensorsFile(std::shared_ptr<const MappedFile> file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}

  std::shared_ptr<const MappedFile> file_;
  SafetensorsHeader header_;
};

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_SAFETENSORS_H_
