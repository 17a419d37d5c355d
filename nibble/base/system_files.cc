#include "nibble/base/system_files.h"

#include <charconv>
#include <fstream>
#include <iterator>

namespace nibble {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr size_t kMaxCpus = 1 << 16;  // of a list that a damaged file could make endless

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::optional<size_t> take_number(std::string_view& text) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

}  // namespace

std::string read_system_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return std::string(trimmed(text));
}

std::optional<size_t> parse_system_size(std::string_view text) {
  text = trimmed(text);
  const std::optional<size_t> value = take_number(text);
  if (!value) return std::nullopt;
  text = trimmed(text);
  size_t unit = 1;
  if (text.starts_with('K') || text.starts_with('k')) unit = size_t{1} << 10;
  if (text.starts_with('M')) unit = size_t{1} << 20;
  if (text.starts_with('G')) unit = size_t{1} << 30;
  size_t bytes = 0;
  if (__builtin_mul_overflow(*value, unit, &bytes)) return std::nullopt;
  return bytes;
}

std::string find_system_value(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.starts_with(key)) return std::string(trimmed(line.substr(key.size())));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

std::vector<size_t> parse_cpu_list(std::string_view text) {
  std::vector<size_t> cpus;
  text = trimmed(text);
  while (const auto first = take_number(text)) {
    size_t last = *first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      last = take_number(text).value_or(*first);
    }
    for (size_t cpu = *first; cpu <= last && cpus.size() < kMaxCpus; ++cpu) cpus.push_back(cpu);
    if (!text.starts_with(',')) break;
    text.remove_prefix(1);
  }
  return cpus;
}

}  // namespace nibble
