// Whole blocks for methods that look at all inputs before they change a weight.

#include <cmath>

#include "nibble/calibration/block_values.h"
#include "nibble/calibration/gathered_input.h"

namespace nibble {
namespace {

const TokenGroup& first_group(const WalkState& state) { return state.groups.front(); }

// The block's output for the first group, in float32 arithmetic.
Expected<std::vector<float>> block_output(WalkState& state, const BlockReplacement* replacement) {
  const GatheredBlock& gathered = *state.gathered;
  NIBBLE_TRY(const BlockValues block, load_block(state, gathered.layer, replacement));
  std::vector<float> values = gathered.before;
  forward_block(state, block, first_group(state), {values.data(), first_group(state).rows, state.hidden()},
                linalg::Arithmetic::kF32, {});
  return values;
}

// The float pass of all rows; `seen` may be empty.
Status gather(WalkState& state, const BlockValues& block, std::vector<GatheredInput>& seen) {
  return for_groups(state, [&](const TokenGroup& group) -> Status {
    const MatrixView<float> hidden = state.arena.take_matrix(group.rows, state.hidden());
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(group.first_row, hidden, state.pool));
    const auto see = [&](size_t input, MatrixView<const float> x) {
      add_magnitudes(x, seen[input].magnitudes, state.pool);
      add_gram(seen[input], x, state.options.arithmetic, state.pool);
      seen[input].tokens += x.rows();
    };
    forward_block(state, block, group, hidden, state.options.arithmetic,
                  seen.empty() ? SeeInput() : SeeInput(see));
    NIBBLE_RETURN_IF_ERROR(state.streams.quantized.write(group.first_row, hidden, state.pool));
    if (!state.options.float_stream) return {};
    return state.streams.floating.write(group.first_row, hidden, state.pool);
  });
}

Failure outside_gather() {
  return fail(ErrorCode::kInvalidArgument,
              "there is no block: this belongs into the function that gather_block() calls");
}

}  // namespace

Status BlockWalk::gather_block(size_t layer, const std::function<Status(std::span<const BlockInput>)>& fn) {
  WalkState& state = *state_;
  if (!fn) {
    NIBBLE_TRY(const BlockValues block, load_block(state, layer, nullptr));
    std::vector<GatheredInput> nothing;
    return gather(state, block, nothing);
  }
  GatheredBlock gathered = {layer, {}, {}};
  gathered.before.resize(first_group(state).rows * state.hidden());
  NIBBLE_RETURN_IF_ERROR(state.streams.quantized.read(
      first_group(state).first_row, {gathered.before.data(), first_group(state).rows, state.hidden()},
      state.pool));
  std::vector<InputPoint> points;
  std::vector<GatheredInput> seen;
  {
    NIBBLE_TRY(const BlockValues block, load_block(state, layer, nullptr));
    points = block.inputs;
    for (const InputPoint& point : points) seen.emplace_back(point.width, 0);
    NIBBLE_RETURN_IF_ERROR(gather(state, block, seen));
  }
  std::vector<BlockInput> inputs;
  for (size_t i = 0; i < points.size(); ++i) {
    NIBBLE_TRY(const InputStatistics statistics, finish(seen[i], points[i].modules.front(), state.pool));
    inputs.push_back({points[i].modules, statistics});
  }
  state.gathered = std::move(gathered);
  const Status done = fn(inputs);
  state.gathered.reset();
  return done;
}

Expected<double> BlockWalk::block_difference(const BlockReplacement& replacement) {
  WalkState& state = *state_;
  if (!state.gathered) return outside_gather();
  GatheredBlock& gathered = *state.gathered;
  if (gathered.after.empty()) {
    NIBBLE_TRY(gathered.after, block_output(state, nullptr));
  }
  NIBBLE_TRY(const std::vector<float> values, block_output(state, &replacement));
  Distance distance;
  const size_t rows = first_group(state).rows;
  add_distance({values.data(), rows, state.hidden()}, {gathered.after.data(), rows, state.hidden()}, distance,
               state.pool);
  return std::sqrt(distance.relative());
}

}  // namespace nibble
