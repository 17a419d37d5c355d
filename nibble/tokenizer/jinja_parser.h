#ifndef NIBBLE_TOKENIZER_JINJA_PARSER_H_
#define NIBBLE_TOKENIZER_JINJA_PARSER_H_

#include <string_view>

#include "nibble/base/error.h"
#include "nibble/tokenizer/jinja_ast.h"

namespace nibble::jinja {

// Blocks, brackets and other recursive constructs may be nested max_depth deep.
Expected<Block> parse_template(std::string_view source, size_t max_depth);

}  // namespace nibble::jinja

#endif  // NIBBLE_TOKENIZER_JINJA_PARSER_H_
