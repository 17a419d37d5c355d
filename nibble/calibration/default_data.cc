// default_data.txt, as it stands inside the program.

#include <string>

#include "nibble/base/embed.h"
#include "nibble/calibration/dataset.h"

NIBBLE_EMBED(nibble_default_data, NIBBLE_DEFAULT_DATA);

namespace nibble {
namespace {

// One paragraph in so many is held out: from every part, and enough for a look at a model.
constexpr size_t kHeldOutEvery = 32;

struct DefaultText {
  std::string calibration, held_out;
};

DefaultText split_default_text() {
  constexpr std::string_view kBreak = "\n\n";
  std::string_view left = NIBBLE_EMBEDDED(nibble_default_data);
  DefaultText text;
  for (size_t paragraph = 1; !left.empty(); ++paragraph) {
    const size_t end = left.find(kBreak);
    const size_t size = end == std::string_view::npos ? left.size() : end + kBreak.size();
    (paragraph % kHeldOutEvery == 0 ? text.held_out : text.calibration) += left.substr(0, size);
    left.remove_prefix(size);
  }
  return text;
}

const DefaultText& default_text() {
  static const DefaultText text = split_default_text();
  return text;
}

}  // namespace

std::string_view default_calibration_text() { return default_text().calibration; }

std::string_view held_out_text() { return default_text().held_out; }

}  // namespace nibble
