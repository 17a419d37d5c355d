#ifndef NIBBLE_CHECKPOINT_GGUF_FILES_H_
#define NIBBLE_CHECKPOINT_GGUF_FILES_H_

// A GGUF model on disk: one file, or the parts NAME-00001-of-00003.gguf and so on that llama.cpp's gguf-split
// makes of one.

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/gguf.h"

namespace nibble {

struct GgufFiles {
  std::vector<std::shared_ptr<const MappedFile>> parts;  // at least one
  // The metadata of the first part, the tensors of all of them.
  GgufHeader header;

  const MappedFile& file_of(const GgufTensor& tensor) const { return *parts[tensor.part]; }
  std::span<const std::byte> bytes_of(const GgufTensor& tensor) const {
    return file_of(tensor).bytes().subspan(tensor.begin, tensor.bytes);
  }
};

// What the name of a part says: "m-00001-of-00003.gguf".
struct GgufPartName {
  std::string_view stem;  // "m"
  uint64_t number = 0;    // from 1
  uint64_t count = 0;
};

// Nothing for the name of a whole file. `name` may be a path.
std::optional<GgufPartName> parse_gguf_part_name(std::string_view name);

// Of the names of a folder's files ("SUBFOLDER/NAME", too), those of the language models: of parts the first;
// no "mmproj-...", which holds the eyes of one.
std::vector<std::string> gguf_models(const std::vector<std::string>& names);

// What tells the first of `models` (not empty) from the others: the last word of its name, which usually is
// its type, or all of its name.
std::string_view gguf_word(const std::vector<std::string>& models);

// Which of `models` (of gguf_models()) is meant. `quant`: a word of its name, such as "q4_k_m" of
// "model-Q4_K_M.gguf", in small letters or capitals; empty: the only one there is. What lies in no
// subfolder comes first. kNotFound where no name has the word, kInvalidArgument where several could be meant.
Expected<std::string> choose_gguf(const std::vector<std::string>& models, std::string_view quant);

// `path`: the file, or any of its parts; the others lie in the same folder. Errors name the part
// they are about, but not `path`. kNotFound for a missing part, kDataLoss for parts that do not
// belong together.
Expected<GgufFiles> open_gguf_files(const std::filesystem::path& path);

}  // namespace nibble

#endif  // NIBBLE_CHECKPOINT_GGUF_FILES_H_
