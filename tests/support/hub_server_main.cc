// hub_server PORT org/name FOLDER [org/name FOLDER...]: serves folders as a hub would, until stdin ends.
// For trying `nibble pull` by hand and for comparing it with huggingface_hub:
//   HF_ENDPOINT=http://127.0.0.1:PORT nibble pull org/name

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "nibble/base/mapped_file.h"
#include "tests/support/hub_server.h"

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  if (argc < 4 || argc % 2 != 0) {
    std::fprintf(stderr, "usage: hub_server PORT org/name FOLDER [org/name FOLDER...]\n");
    return 2;
  }
  nibble::test::HubServer server(std::atoi(argv[1]));
  for (int i = 2; i < argc; i += 2) {
    nibble::test::HubRepo repo;
    repo.lfs_from = 1 << 20;
    repo.branches.emplace_back("refs/pr/1");
    const fs::path folder = argv[i + 1];
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file()) continue;
      const auto text = nibble::read_text_file(entry.path());
      if (!text) {
        std::fprintf(stderr, "%s\n", nibble::to_string(text.error()).c_str());
        return 1;
      }
      repo.files[fs::relative(entry.path(), folder).string()] = *text;
    }
    server.add_repo(argv[i], std::move(repo));
  }
  std::printf("%s\n", server.endpoint().c_str());
  std::fflush(stdout);
  while (std::getchar() != EOF) continue;
  return 0;
}
