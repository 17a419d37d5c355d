#ifndef NIBBLE_CLI_CHAT_SESSION_H_
#define NIBBLE_CLI_CHAT_SESSION_H_

// A conversation with a model: its messages, its settings, and what it has cost so far.

#include <functional>
#include <string>
#include <vector>

#include "nibble/base/json.h"
#include "nibble/cli/loaded_model.h"

namespace nibble::cli {

struct ChatStats {
  size_t answers = 0;
  size_t read_tokens = 0;  // prompt tokens that were computed: not those found in the cache
  size_t generated_tokens = 0;
  double read_seconds = 0;
  double generation_seconds = 0;
};

class ChatSession {
 public:
  // Borrows all three. `loaded.chat` false: every message is continued by itself.
  ChatSession(const AnswerOptions& options, LoadedModel& loaded, ThreadPool& pool);

  // Answers on stdout. What came of it is remembered; after an error the message is forgotten.
  Status say(const std::string& text);
  // Another answer to the last message.
  Status retry();
  void reset();                              // forgets all but the system message
  void set_system(const std::string& text);  // empty: none

  // A setting by the name of its option ("top-k", "top_k"), for the answers to come.
  Status set(const std::string& name, const std::string& value);
  std::vector<std::string> settings() const;

  // {"messages": [...]}: all of them, those that no longer fit the context, too.
  Status save(const std::string& file) const;
  Status load(const std::string& file);

  std::vector<std::string> stats() const;
  const Json& messages() const { return messages_; }

 private:
  Status answer();
  Expected<std::vector<int32_t>> encode_fitting();
  Json view() const;  // the messages that the model sees
  bool has_system() const;

  const AnswerOptions& options_;
  LoadedModel& loaded_;
  SamplingOptions sampling_;
  Conversation conversation_;
  Json messages_ = Json::array();
  size_t hidden_ = 0;  // messages behind the system message that no longer fit
  ChatStats stats_;
};

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_CHAT_SESSION_H_
