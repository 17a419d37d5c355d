#include "nibble/base/suggest.h"

#include <algorithm>
#include <utility>

namespace nibble {

namespace {

constexpr size_t kLongest = 64;  // nobody mistypes a name of this length, and the table is quadratic

}  // namespace

size_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the usual table: distances of a's first i-2, i-1 and i letters to each prefix of b.
  std::vector<size_t> before_previous(b.size() + 1);
  std::vector<size_t> previous(b.size() + 1);
  std::vector<size_t> current(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before_previous[j - 2] + 1);
      }
    }
    std::swap(before_previous, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > kLongest) return std::nullopt;
  std::optional<std::string> best;
  // A third of the letters may be wrong: more than that is another word.
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  if (best) return best;
  // "--temp" for "--temperature": the beginning of exactly one name.
  for (const std::string& candidate : candidates) {
    if (word.size() < 3 || candidate.compare(0, word.size(), word) != 0) continue;
    if (best) return std::nullopt;
    best = candidate;
  }
  return best;
}

std::vector<std::string> most_similar(std::string_view word, const std::vector<std::string>& candidates,
                                      size_t count) {
  if (word.size() > kLongest) return {};
  std::vector<std::pair<size_t, std::string>> found;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance <= word.size() / 2) found.emplace_back(distance, candidate);
  }
  // Candidates as far as each other stay in their order.
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(count, found.size()); ++i) names.push_back(found[i].second);
  return names;
}

}  // namespace nibble
