#include "nibble/calibration/block_walk.h"
#include "nibble/calibration/walk_state.h"
namespace nibble {
Status BlockWalk::gather_block(size_t, const std::function<Status(std::span<const BlockInput>)>&) {
  return fail(ErrorCode::kUnsupported, "whole blocks cannot be gathered yet");
}
Expected<double> BlockWalk::block_difference(const BlockReplacement&) {
  return fail(ErrorCode::kUnsupported, "whole blocks cannot be gathered yet");
}
Status BlockWalk::use_in_check(BlockReplacement) {
  return fail(ErrorCode::kUnsupported, "whole blocks cannot be gathered yet");
}
}  // namespace nibble
