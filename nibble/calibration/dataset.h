#ifndef NIBBLE_CALIBRATION_DATASET_H_
#define NIBBLE_CALIBRATION_DATASET_H_

// Calibration data: from files of text or tokens to sequences of token ids of the model.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"
#include "nibble/tokenizer/chat_template.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {

// One FILE of --dataset, with its share.
struct DataSource {
  // .jsonl, .safetensors; anything else is plain text; empty: the built-in text
  std::filesystem::path path;
  std::optional<size_t> num_samples;  // FILE:num=64; otherwise the sources share what is left equally
};

// "a.jsonl,b.txt:num=64", "default"; kInvalidArgument says what is wrong with which part.
Expected<std::vector<DataSource>> parse_dataset(std::string_view text);

struct DatasetOptions {
  size_t num_samples = 128;
  size_t sequence_length = 2048;  // tokens; never more than the model's max_position_embeddings
  uint64_t seed = 0;
  // The widest input of the linears that are calibrated; a warning says when there are fewer than 4 tokens
  // for each of its elements. 0: not known.
  size_t widest_in_features = 0;
};

struct CalibrationData {
  std::vector<std::vector<int32_t>> sequences;  // each 2 .. sequence_length tokens
  std::string sha256;                           // of all tokens and lengths: what a run was calibrated with
  // Fewer sequences or tokens than wanted, samples that were dropped, scripts of a file that the samples
  // lack, text that the tokenizer does not know.
  std::vector<std::string> warnings;
  size_t num_tokens() const;
};

// Plain text is tokenized as a whole and cut at random places (by `seed`) into sequences of
// sequence_length, as IST's loaders do. JSONL lines hold {"text": ...} or {"messages": [...], "tools":
// [...]} (through `chat_template`, or the tokenizer's own where that is null); each line is a sample, taken
// in a random order (by `seed`): those of at most 10 tokens are dropped, long ones are cut, short ones are
// packed together up to sequence_length. Token files hold input_ids [samples, length] (I32 or I64; an
// attention_mask there removes padding) and are taken as they are, in their order, but for rows that are too
// long. num_samples counts sequences, packed ones too.
// vocab_size: tokens outside are kInvalidArgument with the hint that the data belongs to another
// tokenizer. Empty files, text of one token, and what is no UTF-8 are errors, too. tokenizer may be null
// where every source holds tokens. An empty result is an error.
Expected<CalibrationData> load_calibration_data(const std::vector<DataSource>& sources,
                                                const DatasetOptions& options, const Tokenizer* tokenizer,
                                                const ChatTemplate* chat_template, size_t vocab_size);

// The text inside the program (calibration/default_data.md says where it comes from).
std::string_view default_calibration_text();

// 15 kB of the same kinds of text that are never calibrated with, to look at the result with.
std::string_view held_out_text();

}  // namespace nibble

#endif  // NIBBLE_CALIBRATION_DATASET_H_
