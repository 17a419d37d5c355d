#ifndef NIBBLE_CLI_PULL_MODEL_H_
#define NIBBLE_CLI_PULL_MODEL_H_

#include "nibble/cli/options.h"

namespace nibble::cli {

// Where MODEL is a name that the cache has not got, and a person sits at the terminal: asks "Pull it now?"
// and pulls it on "y". Otherwise does nothing, and the command's own error says how to get the model.
Status offer_pull(const ModelOption& option, const CommonOptions& common);

}  // namespace nibble::cli

#endif  // NIBBLE_CLI_PULL_MODEL_H_
