#ifndef NIBBLE_CLI_CHAT_LOOP_H_
#define NIBBLE_CLI_CHAT_LOOP_H_

#include "nibble/cli/loaded_model.h"

namespace nibble::cli {

// Reads messages and commands (/help lists them) until /bye or the end of the input, and answers them.
// From a terminal a fault is shown and the chat goes on; from a pipe it ends the program.
Status run_chat(const AnswerOptions& options, LoadedModel& loaded, ThreadPool& pool);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_CHAT_LOOP_H_
