// render_report html|markdown|table FILE: checks a report and prints it as one of its pages.

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "nibble/report/report.h"

namespace {

int failed(const nibble::Error& error) {
  std::fprintf(stderr, "error: %s\n", nibble::to_string(error).c_str());
  return nibble::exit_status(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view page = argc == 3 ? argv[1] : "";
  if (page != "html" && page != "markdown" && page != "table") {
    std::fprintf(stderr, "usage: render_report html|markdown|table FILE\n");
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto report = nibble::at(argv[2], nibble::parse_json(text));
  if (!report) return failed(report.error());
  if (const nibble::Status status = nibble::at(argv[2], nibble::check_report(*report)); !status) {
    return failed(status.error());
  }
  const std::string out = page == "html"       ? nibble::render_html(*report)
                          : page == "markdown" ? nibble::render_markdown(*report)
                                               : nibble::render_table(*report, 80, false);
  std::fwrite(out.data(), 1, out.size(), stdout);
  return 0;
}
