#ifndef NIBBLE_TESTS_SUPPORT_FIXTURES_H_
#define NIBBLE_TESTS_SUPPORT_FIXTURES_H_

// The models of tests/data (its README says what they are) as folders that from_pretrained and the
// nibble program can open.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"

namespace nibble::test {

std::filesystem::path data_folder();  // tests/data

// The folders of tests/data/models, architectures and other_quantizers, sorted.
std::vector<std::string> model_names();
std::vector<std::string> architecture_names();
std::vector<std::string> other_quantizer_names();

struct ModelFolderOptions {
  // Copy tokenizer and chat template of tiny-llama into a folder that has none, so that it can
  // turn text into tokens. All models of tests/data/models share the vocabulary.
  bool with_tokenizer = false;
};

// A folder with model.safetensors, config.json and the other small files of tests/data/models/NAME.
// Put together on first use in the build folder, checked against the SHA-256 of the original file,
// and renamed into place, so that tests in parallel processes may ask for the same one. Read only:
// a test that changes files makes its own copy.
Expected<std::filesystem::path> model_folder(std::string_view name, const ModelFolderOptions& options = {});

// A folder of its own that is gone when the object is.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_SUPPORT_FIXTURES_H_
