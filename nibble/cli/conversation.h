#ifndef NIBBLE_CLI_CONVERSATION_H_
#define NIBBLE_CLI_CONVERSATION_H_

// One sequence that grows: a prompt and its answer, or the turns of a chat. The KV cache is kept
// between turns, and only what changed since is read again.

#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "nibble/base/arena.h"
#include "nibble/generation/generate.h"
#include "nibble/nn/kv_cache.h"

namespace nibble::cli {

struct ConversationOptions {
  size_t max_context = 0;  // --ctx-size; 0: what the model allows
  size_t prefill_chunk = 512;
  bool ignore_eos = false;
  size_t lookup_tokens = 0;
};

// One thread at a time. Borrows model, tokenizer and pool.
class Conversation {
 public:
  Conversation(const CausalLM& model, const Tokenizer& tokenizer, GenerationConfig config,
               const ConversationOptions& options, ThreadPool& pool);

  // tokens: the whole sequence so far. on_text gets the answer piece by piece; false stops it.
  Expected<GenerateResult> answer(const std::vector<int32_t>& tokens,
                                  std::function<bool(std::string_view)> on_text);

  size_t context_size() const { return context_size_; }  // most tokens of prompt and answer together
  size_t cached_tokens() const { return cached_.size(); }
  void set_config(GenerationConfig config) { config_ = std::move(config); }

 private:
  const CausalLM& model_;
  const Tokenizer& tokenizer_;
  GenerationConfig config_;
  const ConversationOptions options_;
  ThreadPool& pool_;
  const size_t context_size_;
  Arena arena_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> cached_;  // the tokens whose keys and values cache_ holds
};

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_CONVERSATION_H_
