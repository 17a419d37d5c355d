#ifndef NIBBLE_BASE_CANCEL_H_
#define NIBBLE_BASE_CANCEL_H_

// Ctrl-C. The first one asks the running work to stop at its next safe point; a second one ends
// the process at once (files are safe either way: atomic_file.h).

#include "nibble/base/error.h"

namespace nibble {

void install_cancel_handler();  // SIGINT and SIGTERM; called once, by main
bool cancel_requested();
// Whether what came is SIGTERM: Ctrl-C may mean a part of the program, this means all of it.
bool termination_requested();
void request_cancel();
void reset_cancel();  // where Ctrl-C stopped a part of the work and no more, and for tests

// kCancelled if the user has asked to stop: for loops that do long work.
Status check_cancelled();

}  // namespace nibble

#endif  // NIBBLE_BASE_CANCEL_H_
