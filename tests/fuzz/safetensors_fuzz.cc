// The header of a .safetensors file. Input: the size that the file is said to have (8 bytes), then its
// beginning.

#include <cstring>
#include <span>

#include "nibble/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

using namespace nibble;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint64_t file_bytes = 0;
  if (size < sizeof(file_bytes)) return 0;
  std::memcpy(&file_bytes, data, sizeof(file_bytes));
  const std::span front = std::as_bytes(std::span(data, size).subspan(sizeof(file_bytes)));

  const auto header = parse_safetensors(front, file_bytes);
  if (!fuzz::accepted(header)) return 0;
  NIBBLE_CHECK(safetensors_data_start(front, file_bytes) == header->data_start);
  NIBBLE_CHECK(header->data_start <= file_bytes);
  size_t bytes = 0;
  for (const auto& [name, entry] : header->tensors) {
    NIBBLE_CHECK(entry.begin <= entry.end && entry.end <= file_bytes - header->data_start);
    NIBBLE_CHECK(num_bytes(entry.info) == entry.end - entry.begin);
    bytes += entry.end - entry.begin;
  }
  NIBBLE_CHECK(bytes == file_bytes - header->data_start);
  return 0;
}
