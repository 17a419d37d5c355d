// A GGUF file: header, the configuration and tokenizer that are made of its metadata, and every tensor.

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "nibble/checkpoint/gguf.h"
#include "nibble/checkpoint/gguf_model.h"
#include "nibble/config/pretrained_config.h"
#include "nibble/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokenizer_checks.h"

using namespace nibble;

namespace {

// The bytes as a file that has a path, but is on no disk.
std::filesystem::path as_file(std::span<const std::byte> bytes) {
  static const int fd = ::memfd_create("model.gguf", MFD_CLOEXEC);
  NIBBLE_CHECK(fd >= 0 && ::ftruncate(fd, 0) == 0);
  NIBBLE_CHECK(::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  return fmt::format("/proc/self/fd/{}", fd);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes = std::as_bytes(std::span(data, size));
  const auto header = parse_gguf(bytes);
  if (!fuzz::accepted(header)) return 0;
  for (const auto& [name, tensor] : header->tensors) {
    NIBBLE_CHECK(tensor.begin <= size && tensor.bytes <= size - tensor.begin);
  }

  const std::filesystem::path path = as_file(bytes);
  const auto texts = read_gguf_texts(path);
  if (!fuzz::accepted(texts)) return 0;
  const ModelFiles files{"model.gguf", {}, path, *texts};
  const auto config = parse_json(texts->at("config.json"));
  NIBBLE_CHECK(config.has_value());
  fuzz::accepted(PretrainedConfig::from_json(*config));
  if (const auto tokenizer = AutoTokenizer::from_files(files); fuzz::accepted(tokenizer)) {
    fuzz::check_text(*tokenizer, fuzz::kSampleText);
  }
  const auto checkpoint = open_gguf_checkpoint(path);
  if (!fuzz::accepted(checkpoint)) return 0;
  for (const auto& [name, info] : (*checkpoint)->tensors()) {
    const auto tensor = (*checkpoint)->tensor(name);
    if (fuzz::accepted(tensor)) NIBBLE_CHECK(tensor->bytes.size() == num_bytes(info));
  }
  return 0;
}
