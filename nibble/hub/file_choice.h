#ifndef NIBBLE_HUB_FILE_CHOICE_H_
#define NIBBLE_HUB_FILE_CHOICE_H_

// Which of a repository's files are wanted.

#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/hub/remote_model.h"

namespace nibble {

struct FileChoice {
  std::vector<RemoteFile> files;
  std::vector<std::string> notes;  // what was left out although it looks like weights, and why
};

// Empty `include`: what a model needs. That is, of the files that are in no subfolder, the configuration,
// the tokenizer, chat templates and *.safetensors; a .gguf file where there are no safetensors and only one
// of it; never pickle files (*.bin, *.pt), which can run code when they are read. With `quant`, only the
// .gguf file that it names (gguf_files.h). Otherwise, files that match one of `include` and none of
// `exclude`: shell patterns against the whole path, as huggingface_hub reads them ("*" matches slashes, too;
// "dir/" is "dir/*"). A part of a split GGUF file (NAME-00001-of-00003.gguf) brings its other parts with it,
// but what `exclude` names. kNotFound if nothing is left or `quant` names nothing, kUnsupported if there are
// only pickle files, kInvalidArgument if there are several .gguf files to choose from.
Expected<FileChoice> choose_files(const std::vector<RemoteFile>& files,
                                  const std::vector<std::string>& include,
                                  const std::vector<std::string>& exclude, std::string_view quant = {});

bool matches(std::string_view path, const std::vector<std::string>& patterns);

}  // namespace nibble

#endif  // NIBBLE_HUB_FILE_CHOICE_H_
