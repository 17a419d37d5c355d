#ifndef NIBBLE_GENERATION_STOP_STRINGS_H_
#define NIBBLE_GENERATION_STOP_STRINGS_H_

#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Finds stop strings in text that comes piece by piece, and holds back what may turn out to be the
// beginning of one. Pieces are whole UTF-8 characters, and so is what is given out.
class StopStringFilter {
 public:
  explicit StopStringFilter(std::vector<std::string> stop_strings);

  // Adds a piece and returns what can be shown now. After a stop string has been found (the one that
  // was complete first) that is the text before it, and nothing from then on.
  std::string push(std::string_view piece);
  // No more pieces will come: what was held back.
  std::string finish();

  bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string> stop_strings_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace nibble

#endif  // NIBBLE_GENERATION_STOP_STRINGS_H_
