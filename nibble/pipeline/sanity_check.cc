#include <algorithm>
#include <cmath>

#include "nibble/base/cancel.h"
#include "nibble/calibration/block_walk.h"
#include "nibble/calibration/row_loops.h"
#include "nibble/kernels/elementwise.h"
#include "nibble/linalg/gemm.h"
#include "nibble/models/load_weights.h"
#include "nibble/pipeline/compare_logits.h"
#include "nibble/pipeline/run.h"
#include "nibble/pipeline/walk_driver.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {
namespace {

constexpr size_t kWindows = 4;
constexpr size_t kWindowTokens = 256;

// Windows at even distances, so that every kind of text has its turn. Nothing where the tokenizer has tokens
// that the model has not.
Expected<CalibrationData> held_out_data(const ModelSource& source) {
  NIBBLE_TRY(const Tokenizer tokenizer, AutoTokenizer::from_files(source.files));
  NIBBLE_TRY(const Encoding encoding, tokenizer.encode(held_out_text()));
  const std::vector<int32_t>& tokens = encoding.ids;
  for (const int32_t token : tokens) {
    if (static_cast<size_t>(token) >= source.config.vocab_size) return CalibrationData{};
  }
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

// What the head reads at every position that has a next token: [positions, embedding_size]. The walk's
// memory is given back.
Expected<std::vector<float>> head_inputs(const ModelSource& source, const CalibrationData& text,
                                         const WalkOptions& options, ThreadPool& pool) {
  BlockWalk walk(source, text, options, pool);
  NIBBLE_RETURN_IF_ERROR(walk_through(walk, source.config.num_hidden_layers));
  const size_t width = source.spec.embedding_size;
  std::vector<float> inputs((text.num_tokens() - text.sequences.size()) * width);
  float* position = inputs.data();
  size_t first_row = 0;
  for (const std::vector<int32_t>& sequence : text.sequences) {
    const size_t count = sequence.size() - 1;
    NIBBLE_RETURN_IF_ERROR(walk.head_input(first_row, {position, count, width}));
    position += count * width;
    first_row += sequence.size();
  }
  return inputs;
}

// One model behind its last block. The head's weight stays in the file but for the rows in use: it may be
// the largest tensor of the model.
struct Head {
  const ModelSource& source;
  std::string module = {};
  Tensor weight = {};  // [vocab_size, embedding_size]
  std::vector<float> bias = {};
  std::vector<float> inputs = {};  // [positions, embedding_size]
  std::vector<float> logits = {};  // of a slice
};

Expected<Head> open_head(const ModelSource& source, std::vector<float> inputs) {
  Head head = {source};
  const bool tied = source.config.tie_word_embeddings;
  head.module = name_in_file(source.spec, tied ? source.spec.names.embed : source.spec.names.head,
                             source.prefix_missing);
  head.inputs = std::move(inputs);
  if (source.quantized.contains(head.module)) {
    NIBBLE_TRY(std::vector<float> values, source.weight(head.module));
    head.weight = Tensor::of(DType::kF32, source.slot(head.module).shape, std::move(values));
  } else {
    NIBBLE_TRY(head.weight, source.checkpoint->tensor(head.module + ".weight"));
  }
  if (!tied) {
    NIBBLE_TRY(head.bias, source.bias(head.module));
  }
  return head;
}

// Tokens [first, first + count) at all positions: [positions, count], in head.logits.
Expected<MatrixView<const float>> slice_logits(Head& head, size_t first, size_t count, ThreadPool& pool) {
  const size_t width = head.source.spec.embedding_size;
  const size_t positions = head.inputs.size() / width;
  const size_t row_bytes = width * (dtype_bits(head.weight.dtype) / 8);
  Tensor rows = head.weight;
  rows.shape = {count, width};
  rows.bytes = rows.bytes.subspan(first * row_bytes, count * row_bytes);
  NIBBLE_TRY(const std::vector<float> weight, at(head.module, to_floats(rows)));
  head.source.checkpoint->drop(head.module + ".weight");
  head.logits.resize(std::max(head.logits.size(), positions * count));
  const MatrixView<float> logits(head.logits.data(), positions, count);
  linalg::gemm({MatrixView<const float>(head.inputs.data(), positions, width)},
               {MatrixView<const float>(weight.data(), count, width), true}, logits, {}, pool);
  if (!head.bias.empty()) add_bias(head.bias.data() + first, logits, pool);
  if (const float scale = head.source.spec.logit_scale; scale != 1.f) {
    for (size_t r = 0; r < positions; ++r) {
      for (float& logit : logits.row_span(r)) logit *= scale;
    }
  }
  if (const float cap = head.source.spec.final_soft_cap; cap > 0.f) {
    pool.parallel_for(positions, 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) kernels::soft_cap(logits.row(r), cap, count, logits.row(r));
    });
  }
  return logits;
}

// Sums in the order of the text, whatever the number of threads.
SanityCheck summarize(std::span<const LogitComparison> positions) {
  SanityCheck check;
  double nll_original = 0;
  double nll_written = 0;
  size_t agreed = 0;
  for (const LogitComparison& position : positions) {
    check.kl += position.kl();
    nll_original += position.nll_p();
    nll_written += position.nll_q();
    agreed += position.same_top() ? 1 : 0;
  }
  const auto n = static_cast<double>(std::max<size_t>(positions.size(), 1));
  check.kl /= n;
  check.top1_agreement = static_cast<double>(agreed) / n;
  check.perplexity = std::exp(nll_original / n);
  check.perplexity_after = std::exp(nll_written / n);
  check.tokens = positions.size();
  return check;
}

}  // namespace

Expected<SanityCheck> compare_models(const ModelSource& original, const ModelSource& written,
                                     const CalibrationData& text, const WalkOptions& options,
                                     ThreadPool& pool, size_t vocabulary_slice) {
  const size_t vocab = original.config.vocab_size;
  if (written.config.vocab_size != vocab) {
    return fail(ErrorCode::kInvalidArgument, "a vocabulary of {} tokens beside one of {}",
                written.config.vocab_size, vocab)
        .at(written.files.name)
        .with_fix("Only models with the same tokenizer can be compared.");
  }
  WalkOptions one_stream = options;
  one_stream.float_stream = false;
  one_stream.spill.clear();  // the text is short
  NIBBLE_TRY(std::vector<float> original_inputs, head_inputs(original, text, one_stream, pool));
  NIBBLE_TRY(std::vector<float> written_inputs, head_inputs(written, text, one_stream, pool));
  NIBBLE_TRY(Head original_head, open_head(original, std::move(original_inputs)));
  NIBBLE_TRY(Head written_head, open_head(written, std::move(written_inputs)));

  std::vector<LogitComparison> positions;
  for (const std::vector<int32_t>& sequence : text.sequences) {
    for (size_t i = 1; i < sequence.size(); ++i) positions.emplace_back(static_cast<size_t>(sequence[i]));
  }
  for (size_t first = 0; first < vocab; first += vocabulary_slice) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const size_t count = std::min(vocabulary_slice, vocab - first);
    NIBBLE_TRY(const MatrixView<const float> p, slice_logits(original_head, first, count, pool));
    NIBBLE_TRY(const MatrixView<const float> q, slice_logits(written_head, first, count, pool));
    pool.parallel_for(positions.size(), 1, [&](size_t begin, size_t end, size_t) {
      for (size_t r = begin; r < end; ++r) positions[r].add(p.row_span(r), q.row_span(r), first);
    });
  }
  return summarize(positions);
}

Expected<std::optional<SanityCheck>> check_model_folder(const ModelSource& original,
                                                        const std::filesystem::path& folder,
                                                        const WalkOptions& options, ThreadPool& pool) {
  NIBBLE_TRY(const std::optional<std::string> tokenizer, original.files.read("tokenizer.json"));
  if (!tokenizer) return std::optional<SanityCheck>();  // there is only text to check with
  ModelFiles files;
  files.name = folder.string();
  files.folder = folder;
  NIBBLE_TRY(const ModelSource written, ModelSource::open(files));
  NIBBLE_TRY(const CalibrationData text, held_out_data(original));
  if (text.sequences.empty()) return std::optional<SanityCheck>();
  NIBBLE_TRY(const SanityCheck check, compare_models(original, written, text, options, pool));
  return std::optional(check);
}

Expected<std::optional<SanityCheck>> check_written_model(const Run& run) {
  return check_model_folder(run.source, run.folder.path(), walk_options(run), run.pool);
}

}  // namespace nibble
