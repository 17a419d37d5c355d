#include "nibble/cli/conversation.h"

#include <algorithm>
#include <utility>

namespace nibble::cli {
namespace {

constexpr size_t kDefaultContext = 4096;  // where config.json gives no limit

size_t find_context_size(const CausalLM& model, const ConversationOptions& options) {
  if (options.max_context > 0) return options.max_context;
  const size_t allowed = model.config().max_position_embeddings;
  return allowed > 0 ? allowed : kDefaultContext;
}

}  // namespace

Conversation::Conversation(const CausalLM& model, const Tokenizer& tokenizer, GenerationConfig config,
                           const ConversationOptions& options, ThreadPool& pool)
    : model_(model),
      tokenizer_(tokenizer),
      config_(std::move(config)),
      options_(options),
      pool_(pool),
      context_size_(find_context_size(model, options)),
      cache_(model.make_cache(context_size_)) {}

Expected<GenerateResult> Conversation::answer(const std::vector<int32_t>& tokens,
                                              std::function<bool(std::string_view)> on_text) {
  const auto [same, ignored] = std::mismatch(tokens.begin(), tokens.end(), cached_.begin(), cached_.end());
  size_t keep = static_cast<size_t>(same - tokens.begin());
  // At least one token is read, since the answer begins with its logits.
  if (keep == tokens.size() && keep > 0) --keep;
  // Keys beyond the reset length are of another kind: they do not serve a shorter conversation.
  const size_t reset = model_.cache_reset_length();
  if (reset > 0 && cached_.size() > reset && tokens.size() <= reset) keep = 0;
  cache_->truncate(keep);
  cached_.resize(keep);

  const GenerateOptions options = {
      .max_context = options_.max_context,
      .prefill_chunk = options_.prefill_chunk,
      .ignore_eos = options_.ignore_eos,
      .lookup_tokens = options_.lookup_tokens,
      .cached_tokens = cached_,
      .on_token = [&on_text](int32_t, std::string_view text) { return on_text(text); },
  };
  ExecutionContext context{pool_, arena_};
  auto result =
      generate(model_, tokenizer_, std::span(tokens).subspan(keep), config_, options, *cache_, context);
  if (!result) {
    // The cache may have been emptied on the way (reset length).
    keep = std::min(keep, cache_->size());
    cache_->truncate(keep);
    cached_.resize(keep);
    return result;
  }
  cached_ = tokens;
  cached_.insert(cached_.end(), result->tokens.begin(), result->tokens.end());
  // The last token was chosen, but most often not read yet.
  cached_.resize(std::min(cached_.size(), cache_->size()));
  return result;
}

}  // namespace nibble::cli
