#ifndef NIBBLE_TESTS_E2E_MODEL_COPY_H_
#define NIBBLE_TESTS_E2E_MODEL_COPY_H_

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include "nibble/base/atomic_file.h"
#include "nibble/base/mapped_file.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/safetensors.h"
#include "tests/e2e/run_program.h"
#include "tests/support/fixtures.h"

namespace nibble::test {

// A copy of a model that a test may damage.
class ModelCopy {
 public:
  explicit ModelCopy(const std::string& name) {
    for (const auto& entry : std::filesystem::directory_iterator(model(name))) {
      std::filesystem::copy_file(entry.path(), path() / entry.path().filename());
      std::filesystem::permissions(path() / entry.path().filename(), std::filesystem::perms::owner_write,
                                   std::filesystem::perm_options::add);
    }
  }
  std::filesystem::path path() const { return folder_.path(); }

  std::map<std::string, Tensor> tensors() const {
    const auto file = SafetensorsFile::open(path() / "model.safetensors");
    std::map<std::string, Tensor> out;
    for (const auto& [name, entry] : file->header().tensors) out[name] = file->tensor(name).value();
    return out;
  }
  void write(const std::map<std::string, Tensor>& tensors) const {
    ASSERT_TRUE(write_safetensors(path() / "model.safetensors", tensors).has_value());
  }
  void edit_config(const std::function<void(Json&)>& edit) const {
    Json config = parse_json(read_text_file(path() / "config.json").value()).value();
    edit(config);
    ASSERT_TRUE(write_file(path() / "config.json", config.dump(2)).has_value());
  }
  ProgramResult run() const { return run_program({"run", path().string(), "-p", "x", "-n", "1"}); }
  ProgramResult inspect() const { return run_program({"inspect", path().string()}); }

 private:
  TemporaryFolder folder_;
};

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_E2E_MODEL_COPY_H_
