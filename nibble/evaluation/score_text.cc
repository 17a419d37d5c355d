#include "nibble/evaluation/score_text.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "nibble/base/arena.h"
#include "nibble/base/atomic_file.h"
#include "nibble/base/cancel.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/progress.h"
#include "nibble/nn/kv_cache.h"

namespace nibble {
namespace {

constexpr size_t kChunk = 512;                    // tokens per forward pass
constexpr size_t kLogitBytes = size_t{32} << 20;  // of one model, at a time

// What the head reads where `window` is scored: [num_scored, head_size]. The last token predicts nothing.
Status run_window(const CausalLM& model, const TextWindow& window, MatrixView<float> hidden,
                  ExecutionContext& context) {
  const size_t count = window.tokens.size() - 1;
  const size_t first = window.first_scored - 1;  // the position that predicts the first scored token
  const std::unique_ptr<KvCache> cache = model.make_cache(count);
  size_t done = 0;
  for (size_t begin = 0; begin < count; begin += kChunk) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const size_t end = std::min(begin + kChunk, count);
    const size_t wanted = end - std::clamp(first, begin, end);
    const SequenceChunk chunk = {std::span(window.tokens).subspan(begin, end - begin), cache.get(), wanted,
                                 /*known_length=*/count};
    NIBBLE_RETURN_IF_ERROR(model.forward_hidden({&chunk, 1}, hidden.rows(done, wanted), context));
    done += wanted;
  }
  return {};
}

std::filesystem::path window_file(const ReferenceModel& reference, size_t window) {
  return reference.folder / fmt::format("window-{:05}.f32", window);
}

Status load_window(const std::filesystem::path& file, MatrixView<float> hidden) {
  NIBBLE_TRY(const auto mapped, MappedFile::open(file));
  const size_t bytes = hidden.rows() * hidden.cols() * sizeof(float);
  if (mapped->bytes().size() != bytes) {
    return fail(ErrorCode::kDataLoss, "{} bytes, but {} are expected", mapped->bytes().size(), bytes)
        .at(file.string())
        .with_fix("Remove the file: it is made again.");
  }
  std::copy_n(reinterpret_cast<const float*>(mapped->bytes().data()), hidden.rows() * hidden.cols(),
              hidden.data());
  return {};
}

Status run_reference(const ReferenceModel& reference, const TextWindow& window, size_t number,
                     MatrixView<float> hidden, ExecutionContext& context) {
  if (reference.folder.empty()) return run_window(reference.model, window, hidden, context);
  const std::filesystem::path file = window_file(reference, number);
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) return load_window(file, hidden);
  NIBBLE_RETURN_IF_ERROR(run_window(reference.model, window, hidden, context));
  NIBBLE_RETURN_IF_ERROR(create_folder(reference.folder));
  NIBBLE_TRY(AtomicFile out, AtomicFile::create(file));
  NIBBLE_RETURN_IF_ERROR(out.write(std::as_bytes(std::span(hidden.data(), hidden.rows() * hidden.cols()))));
  return out.commit();
}

// Scores of one window, from `first` on. Both hidden: [num_scored, head_size]; the reference's is empty
// without one.
void score_window(const CausalLM& model, MatrixView<const float> hidden, const CausalLM* reference,
                  MatrixView<const float> reference_hidden, const TextWindow& window, size_t first,
                  TokenScores& scores, ExecutionContext& context) {
  const size_t vocab = model.config().vocab_size;
  const size_t at_once = std::clamp<size_t>(kLogitBytes / (vocab * sizeof(float)), 1, kChunk);
  for (size_t begin = 0; begin < hidden.rows(); begin += at_once) {
    const size_t count = std::min(at_once, hidden.rows() - begin);
    const Arena::Scope scope(context.arena);
    const MatrixView<float> logits = context.arena.take_matrix(count, vocab);
    model.head_logits(hidden.rows(begin, count), logits, context);
    MatrixView<float> expected;
    if (reference != nullptr) {
      expected = context.arena.take_matrix(count, vocab);
      reference->head_logits(reference_hidden.rows(begin, count), expected, context);
    }
    context.pool.parallel_for(count, 1, [&](size_t row, size_t end, size_t) {
      for (; row < end; ++row) {
        const int32_t next = window.tokens[window.first_scored + begin + row];
        score_token(logits.row_span(row),
                    reference != nullptr ? expected.row_span(row) : std::span<const float>(), next,
                    first + begin + row, scores);
      }
    });
  }
}

Status check_finite(const TokenScores& scores, size_t begin, size_t end, size_t window) {
  const auto broken = [](float v) { return !std::isfinite(v); };
  const auto in = [&](const std::vector<float>& values) {
    return std::any_of(values.begin() + static_cast<ptrdiff_t>(begin),
                       values.begin() + static_cast<ptrdiff_t>(end), broken);
  };
  if (!in(scores.nll) && (!scores.has_reference() || !in(scores.kl))) return {};
  return fail(ErrorCode::kDataLoss, "NaN or infinity among the logits of window {}", window)
      .with_fix("The model is damaged: nibble compare --layers, or nibble inspect, show where.");
}

}  // namespace

Expected<TokenScores> score_text(const CausalLM& model, const ReferenceModel* reference,
                                 const TextWindows& text, const std::string& what, ThreadPool& pool) {
  if (reference != nullptr && reference->model.config().vocab_size != model.config().vocab_size) {
    return fail(ErrorCode::kInvalidArgument, "a vocabulary of {} tokens beside the reference's {}",
                model.config().vocab_size, reference->model.config().vocab_size)
        .with_fix("Only models with the same tokenizer can be compared.");
  }
  TokenScores scores;
  scores.resize(text.positions, reference != nullptr);
  Arena arena;
  ExecutionContext context{pool, arena};
  Progress progress(what, text.positions, "tokens");
  size_t done = 0;
  for (size_t w = 0; w < text.windows.size(); ++w) {
    const TextWindow& window = text.windows[w];
    const Arena::Scope scope(arena);
    const MatrixView<float> hidden = arena.take_matrix(window.num_scored(), model.head_size());
    NIBBLE_RETURN_IF_ERROR(run_window(model, window, hidden, context));
    MatrixView<float> expected;
    if (reference != nullptr) {
      expected = arena.take_matrix(window.num_scored(), reference->model.head_size());
      NIBBLE_RETURN_IF_ERROR(run_reference(*reference, window, w, expected, context));
    }
    score_window(model, hidden, reference != nullptr ? &reference->model : nullptr, expected, window, done,
                 scores, context);
    NIBBLE_RETURN_IF_ERROR(check_finite(scores, done, done + window.num_scored(), w));
    done += window.num_scored();
    progress.advance(window.num_scored());
  }
  return scores;
}

}  // namespace nibble
