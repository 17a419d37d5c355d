#include "nibble/calibration/block_walk.h"
#include "nibble/calibration/walk_state.h"
namespace nibble {
Status BlockWalk::walk_head(const WalkSteps&) {
  return fail(ErrorCode::kUnsupported, "the head cannot be calibrated yet");
}
Expected<WalkCheck> BlockWalk::check() { return fail(ErrorCode::kUnsupported, "no check yet"); }
}  // namespace nibble
