#include "nibble/generation/generate.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "nibble/base/cancel.h"
#include "nibble/config/quantization_config.h"
#include "nibble/generation/prompt_lookup.h"
#include "nibble/generation/sampler.h"
#include "nibble/generation/stop_strings.h"

namespace nibble {
namespace {

// Room for longer completions is made when they come.
constexpr size_t kMaxReservedTokens = 1 << 20;

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// The settings as they are used: the end tokens of the model where the request names none.
GenerationConfig with_end_tokens(GenerationConfig config, const CausalLM& model, const Tokenizer& tokenizer) {
  if (config.eos_token_id.empty()) config.eos_token_id = model.config().eos_token_id;
  if (config.eos_token_id.empty()) {
    if (const auto eos = tokenizer.eos_token_id()) config.eos_token_id = {*eos};
  }
  return config;
}

// How many tokens the sequence may have in all.
size_t context_limit(const CausalLM& model, const GenerateOptions& options, const KvCache& cache) {
  size_t limit = options.max_context;
  if (limit == 0) limit = model.config().max_position_embeddings;
  if (limit == 0) limit = std::numeric_limits<size_t>::max();
  return std::min(limit, cache.max_tokens());
}

// LLM.int8 looks for outliers in all tokens of a call where it computes as the original does.
bool tokens_see_each_other(const CausalLM& model) {
  const auto& quantization = model.quantization_config();
  if (!quantization) return false;
  const auto* const bnb = std::get_if<BitsAndBytesConfig>(&*quantization);
  if (bnb == nullptr || !bnb->load_in_8bit) return false;
  return model.compute() == ComputeMode::kF32 || model.kernels().find("reference") != std::string::npos;
}

Status check_request(std::span<const int32_t> prompt, const GenerationConfig& config,
                     const GenerateOptions& options, const KvCache& cache, const CausalLM& model) {
  const size_t vocab_size = model.config().vocab_size;
  NIBBLE_RETURN_IF_ERROR(config.validate());
  if (prompt.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the prompt is empty")
        .with_fix("Give at least one token; a tokenizer with a BOS token adds it by itself.");
  }
  if (options.prefill_chunk == 0)
    return fail(ErrorCode::kInvalidArgument, "prefill_chunk is 0, but must be positive");
  if (!options.cached_tokens.empty() && options.cached_tokens.size() != cache.size()) {
    return fail(ErrorCode::kInvalidArgument, "cached_tokens has {} tokens, but the cache holds {}",
                options.cached_tokens.size(), cache.size());
  }
  if (options.lookup_tokens > 0 && tokens_see_each_other(model)) {
    return fail(ErrorCode::kInvalidArgument,
                "prompt lookup would change the result: here LLM.int8 looks for outliers in all tokens of a "
                "pass")
        .with_fix("Use --compute auto, or --lookup 0.");
  }
  for (const auto& [id, bias] : config.logit_bias) {
    if (static_cast<size_t>(id) >= vocab_size) {
      return fail(ErrorCode::kInvalidArgument, "logit_bias names token {}, but the vocabulary has {}", id,
                  vocab_size);
    }
  }
  return {};
}

Expected<size_t> new_token_limit(const GenerationConfig& config, size_t tokens_before) {
  if (config.max_new_tokens) return *config.max_new_tokens;
  if (!config.max_length) return std::numeric_limits<size_t>::max();
  if (*config.max_length <= tokens_before) {
    return fail(ErrorCode::kInvalidArgument, "max_length is {}, but the prompt has {} tokens already",
                *config.max_length, tokens_before)
        .with_fix("Set max_new_tokens, which does not count the prompt.");
  }
  return *config.max_length - tokens_before;
}

// One call of generate().
class Run {
 public:
  Run(const CausalLM& model, const Tokenizer& tokenizer, GenerationConfig config,
      const GenerateOptions& options, KvCache& cache, ExecutionContext& context)
      : model_(model),
        config_(std::move(config)),
        options_(options),
        cache_(cache),
        context_(context),
        filter_(config_.stop_strings),
        decoder_(tokenizer, /*skip_special_tokens=*/true),
        vocab_size_(model.config().vocab_size),
        logits_((options.lookup_tokens + 1) * vocab_size_) {
    draft_.reserve(options.lookup_tokens);
  }

  Expected<GenerateResult> generate(std::span<const int32_t> prompt);

 private:
  // Runs the tokens that the cache does not hold yet; false if the user has asked to stop.
  Expected<bool> read_tokens();
  // Guesses what comes behind the one token that the cache does not hold yet.
  void make_draft();
  // Tokens chosen so far that the cache can hold: all but the last, with those before sequence_.
  size_t read_length() const { return num_untold_ + sequence_.size() - 1; }
  std::span<float> next_logits() { return std::span(logits_).subspan(next_row_ * vocab_size_, vocab_size_); }
  // Forgets the cache where its keys do not fit the length that the sequence now has.
  Status reset_cache_if_needed();
  // Takes out of the cache what was guessed and not chosen.
  void forget_draft() { cache_.truncate(std::min(cache_.size(), read_length())); }
  // Chooses tokens until one of the reasons to finish arises.
  Status decode(Clock::time_point start);
  // The text that a new token lets us show, and the reason to finish if it is the last one.
  std::optional<FinishReason> reason_to_finish(int32_t token, std::string& text);
  bool report(int32_t token, const std::string& text);

  const CausalLM& model_;
  const GenerationConfig config_;
  const GenerateOptions& options_;
  KvCache& cache_;
  ExecutionContext& context_;
  StopStringFilter filter_;
  StreamDecoder decoder_;
  const size_t vocab_size_;
  std::vector<float> logits_;      // [lookup_tokens + 1, vocab_size]
  std::vector<int32_t> draft_;     // logits_ has a row behind the last token and one behind each of these
  size_t next_row_ = 0;            // of logits_, to choose the next token from
  std::vector<int32_t> sequence_;  // cached tokens as far as they were told, prompt and completion
  size_t num_untold_ = 0;          // tokens in the cache that stand before sequence_
  size_t max_context_ = 0;
  size_t max_new_tokens_ = 0;
  GenerateResult result_;
};

Expected<GenerateResult> Run::generate(std::span<const int32_t> prompt) {
  const auto start = Clock::now();
  max_context_ = context_limit(model_, options_, cache_);
  const size_t tokens_before = cache_.size() + prompt.size();
  if (tokens_before > max_context_) {
    return fail(ErrorCode::kOutOfMemory, "{} tokens do not fit the context of {}", tokens_before,
                max_context_)
        .with_fix(
            fmt::format("Shorten the prompt, or ask for --ctx-size {} or more (the model was made for {}).",
                        tokens_before + 1, model_.config().max_position_embeddings));
  }
  NIBBLE_TRY(max_new_tokens_, new_token_limit(config_, tokens_before));
  // The token that no longer fits is still told.
  const size_t room = std::min({max_new_tokens_, max_context_ - tokens_before + 1, kMaxReservedTokens});
  result_.prompt_tokens = prompt.size();
  result_.tokens.reserve(room);
  const auto cached = options_.cached_tokens;
  num_untold_ = cache_.size() - cached.size();
  sequence_.reserve(cached.size() + prompt.size() + room + options_.lookup_tokens);
  sequence_.assign(cached.begin(), cached.end());
  sequence_.insert(sequence_.end(), prompt.begin(), prompt.end());

  NIBBLE_TRY(const bool done, read_tokens());
  if (done) {
    NIBBLE_RETURN_IF_ERROR(decode(start));
  } else {
    result_.finish_reason = FinishReason::kCancelled;
    result_.prompt_seconds = seconds_between(start, Clock::now());
  }
  return std::move(result_);
}

Expected<bool> Run::read_tokens() {
  NIBBLE_RETURN_IF_ERROR(reset_cache_if_needed());
  const size_t length = num_untold_ + sequence_.size();
  next_row_ = 0;
  draft_.clear();
  while (cache_.size() < length) {
    if (cancel_requested()) return false;
    if (cache_.size() + 1 == length && !result_.tokens.empty()) make_draft();
    const size_t count = std::min(options_.prefill_chunk, length - cache_.size());
    const bool is_last = cache_.size() + count == length;
    // The draft stands behind the sequence for this one pass.
    sequence_.insert(sequence_.end(), draft_.begin(), draft_.end());
    const SequenceChunk chunk = {
        .tokens = std::span(sequence_).subspan(cache_.size() - num_untold_, count + draft_.size()),
        .cache = &cache_,
        .num_logits = is_last ? draft_.size() + 1 : 0,
        .known_length = length,
        .one_by_one = !draft_.empty()};
    const MatrixView<float> logits(logits_.data(), chunk.num_logits, vocab_size_);
    const Status done = model_.forward({&chunk, 1}, logits, context_);
    sequence_.resize(sequence_.size() - draft_.size());
    NIBBLE_RETURN_IF_ERROR(done);
  }
  return true;
}

void Run::make_draft() {
  const size_t length = cache_.size() + 1;
  size_t count = std::min({options_.lookup_tokens, max_context_ - length,
                           max_new_tokens_ - std::min(max_new_tokens_, result_.tokens.size() + 1)});
  // Beyond these lengths the model computes in another way, or not at all: plain decoding goes there.
  for (const size_t limit : {model_.cache_reset_length(), model_.config().max_position_embeddings}) {
    if (limit >= length) count = std::min(count, limit - length);
  }
  if (count == 0) return;
  look_up_draft(sequence_, count, draft_);
  result_.drafted_tokens += draft_.size();
}

Status Run::reset_cache_if_needed() {
  const size_t switch_length = model_.cache_reset_length();
  const size_t length = num_untold_ + sequence_.size();
  if (switch_length == 0 || cache_.size() == 0 || cache_.size() > switch_length || length <= switch_length)
    return {};
  if (num_untold_ > 0) {
    return fail(ErrorCode::kInvalidArgument,
                "the sequence grows past {} tokens, where this model must read it again from its start, but "
                "the "
                "first {} tokens are not known",
                switch_length, num_untold_)
        .with_fix("Pass the tokens of the cache in cached_tokens, or begin with an empty cache.");
  }
  cache_.truncate(0);
  return {};
}

Status Run::decode(Clock::time_point start) {
  Sampler sampler(config_, sequence_, vocab_size_);
  auto first_token_at = start;
  while (true) {
    NIBBLE_TRY(const int32_t token, sampler.sample(next_logits()));
    if (result_.tokens.empty()) {
      first_token_at = Clock::now();
      result_.prompt_seconds = seconds_between(start, first_token_at);
    }
    result_.tokens.push_back(token);
    sequence_.push_back(token);
    std::string text;
    auto reason = reason_to_finish(token, text);
    if (!report(token, text) && !reason) reason = FinishReason::kCancelled;
    const bool was_drafted = next_row_ < draft_.size() && draft_[next_row_] == token;
    if (was_drafted) ++result_.accepted_tokens;
    if (!reason && was_drafted) {
      ++next_row_;  // what the model says behind it is known already
      if (cancel_requested()) reason = FinishReason::kCancelled;
    } else if (!reason) {
      forget_draft();
      NIBBLE_TRY(const bool done, read_tokens());
      if (!done) reason = FinishReason::kCancelled;
    }
    result_.generation_seconds = seconds_between(first_token_at, Clock::now());
    if (reason) {
      forget_draft();
      result_.finish_reason = *reason;
      return {};
    }
  }
}

std::optional<FinishReason> Run::reason_to_finish(int32_t token, std::string& text) {
  const auto& eos = config_.eos_token_id;
  std::optional<FinishReason> reason;
  if (!options_.ignore_eos && std::find(eos.begin(), eos.end(), token) != eos.end()) {
    reason = FinishReason::kStop;  // not decoded: an end token is no text, whatever it spells
  } else {
    text = filter_.push(decoder_.push(token));
    if (filter_.stopped()) return FinishReason::kStopString;
    if (result_.tokens.size() >= max_new_tokens_) {
      reason = FinishReason::kLength;
    } else if (read_length() >= max_context_) {
      reason = FinishReason::kContextFull;
    }
  }
  if (!reason) return reason;
  text += filter_.push(decoder_.finish());
  if (filter_.stopped()) return FinishReason::kStopString;
  text += filter_.finish();
  return reason;
}

bool Run::report(int32_t token, const std::string& text) {
  result_.text += text;
  return !options_.on_token || options_.on_token(token, text);
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kStopString:
      return "stop_string";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContextFull:
      return "context_full";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "stop";
}

Expected<GenerateResult> generate(const CausalLM& model, const Tokenizer& tokenizer,
                                  std::span<const int32_t> prompt, const GenerationConfig& config,
                                  const GenerateOptions& options, KvCache& cache, ExecutionContext& context) {
  NIBBLE_RETURN_IF_ERROR(check_request(prompt, config, options, cache, model));
  Run run(model, tokenizer, with_end_tokens(config, model, tokenizer), options, cache, context);
  return run.generate(prompt);
}

}  // namespace nibble
