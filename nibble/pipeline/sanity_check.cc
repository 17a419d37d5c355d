#include <algorithm>
#include <cmath>

#include "nibble/calibration/block_walk.h"
#include "nibble/pipeline/run.h"
#include "nibble/pipeline/walk_driver.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {
namespace {

constexpr size_t kWindows = 4;
constexpr size_t kWindowTokens = 256;
constexpr size_t kRowsAtOnce = 64;  // of logits: vocabularies are large

// Windows at even distances, so that every kind of text has its turn.
Expected<CalibrationData> held_out_data(const ModelSource& source) {
  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_files(source.files));
  NIBBLE_TRY(const Encoding encoding, tokenizer.encode(held_out_text()));
  const std::vector<int32_t>& tokens = encoding.ids;
  size_t length = std::min(kWindowTokens, tokens.size() / kWindows);
  if (source.config.max_position_embeddings > 0) {
    length = std::min(length, source.config.max_position_embeddings);
  }
  CalibrationData data;
  for (size_t window = 0; window < kWindows; ++window) {
    const auto first = tokens.begin() + static_cast<ptrdiff_t>(window * (tokens.size() / kWindows));
    data.sequences.emplace_back(first, first + static_cast<ptrdiff_t>(length));
  }
  return data;
}

// The whole model, block by block, on its own weights.
Status walk_through(BlockWalk& walk, size_t layers) {
  WalkSteps steps;
  steps.known = [](std::span<const std::string>) { return true; };
  steps.quantize = [](const InputStatistics&, std::span<LinearTask>) { return Status{}; };
  NIBBLE_RETURN_IF_ERROR(walk.start());
  for (size_t layer = 0; layer < layers; ++layer) {
    NIBBLE_TRY(const BlockReport ignored, walk.walk(layer, steps));
    static_cast<void>(ignored);
  }
  return {};
}

struct Sums {
  double kl = 0, nll_original = 0, nll_written = 0;
  size_t agreed = 0, positions = 0;
};

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

// Predictions of the same position; `next` is the token that the text has there.
void compare(std::span<const float> original, std::span<const float> written, size_t next, Sums& sums) {
  const double p_norm = log_sum_exp(original);
  const double q_norm = log_sum_exp(written);
  for (size_t i = 0; i < original.size(); ++i) {
    const double p = original[i] - p_norm;
    sums.kl += std::exp(p) * (p - (written[i] - q_norm));
  }
  sums.nll_original += p_norm - original[next];
  sums.nll_written += q_norm - written[next];
  const auto best = [](std::span<const float> row) {
    return std::max_element(row.begin(), row.end()) - row.begin();
  };
  sums.agreed += best(original) == best(written);
  ++sums.positions;
}

}  // namespace

Expected<std::optional<SanityCheck>> check_written_model(const Run& run) {
  NIBBLE_TRY(const std::optional<std::string> tokenizer, run.source.files.read("tokenizer.json"));
  if (!tokenizer) return std::optional<SanityCheck>();  // there is only text to check with
  ModelFiles files;
  files.name = run.folder.path().string();
  files.folder = run.folder.path();
  NIBBLE_TRY(const ModelSource written, ModelSource::open(files));
  NIBBLE_TRY(const CalibrationData data, held_out_data(run.source));
  WalkOptions options = walk_options(run);
  options.float_stream = false;
  options.spill.clear();
  BlockWalk original_walk(run.source, data, options, run.pool);
  NIBBLE_RETURN_IF_ERROR(walk_through(original_walk, run.source.config.num_hidden_layers));
  BlockWalk written_walk(written, data, options, run.pool);
  NIBBLE_RETURN_IF_ERROR(walk_through(written_walk, written.config.num_hidden_layers));

  const size_t vocab = run.source.config.vocab_size;
  std::vector<float> original(kRowsAtOnce * vocab);
  std::vector<float> ours(kRowsAtOnce * vocab);
  Sums sums;
  size_t first_row = 0;
  for (const std::vector<int32_t>& sequence : data.sequences) {
    for (size_t begin = 0; begin + 1 < sequence.size(); begin += kRowsAtOnce) {
      const size_t count = std::min(kRowsAtOnce, sequence.size() - 1 - begin);
      const MatrixView<float> a(original.data(), count, vocab);
      const MatrixView<float> b(ours.data(), count, vocab);
      NIBBLE_RETURN_IF_ERROR(original_walk.logits(first_row + begin, a));
      NIBBLE_RETURN_IF_ERROR(written_walk.logits(first_row + begin, b));
      for (size_t r = 0; r < count; ++r) {
        compare(a.row_span(r), b.row_span(r), static_cast<size_t>(sequence[begin + r + 1]), sums);
      }
    }
    first_row += sequence.size();
  }
  SanityCheck check;
  const auto n = static_cast<double>(std::max<size_t>(sums.positions, 1));
  check.kl = sums.kl / n;
  check.top1_agreement = static_cast<double>(sums.agreed) / n;
  check.perplexity = std::exp(sums.nll_original / n);
  check.perplexity_after = std::exp(sums.nll_written / n);
  check.tokens = sums.positions;
  return std::optional(check);
}

}  // namespace nibble
