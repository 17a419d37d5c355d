#ifndef NIBBLE_TOKENIZER_SENTENCEPIECE_MODEL_H_
#define NIBBLE_TOKENIZER_SENTENCEPIECE_MODEL_H_

// tokenizer.model: the protocol buffer that SentencePiece writes (sentencepiece_model.proto). Read here by
// hand: four message types, of which a dozen fields matter; a library would be a hundred times as much.

#include <string>
#include <string_view>
#include <vector>

#include "nibble/base/error.h"

namespace nibble {

struct SentencePieceModel {
  enum class PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  enum class ModelType { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };

  struct Piece {
    std::string text;  // valid UTF-8, not empty
    float score = 0;   // finite
    PieceType type = PieceType::kNormal;
  };

  std::vector<Piece> pieces;  // by id; not empty
  // trainer_spec
  ModelType model_type = ModelType::kUnigram;
  bool byte_fallback = false;
  int unk_id = 0;  // a piece
  int bos_id = 1;  // -1: none
  int eos_id = 2;
  int pad_id = -1;
  std::string unk_piece = "<unk>";
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  // normalizer_spec
  std::string precompiled_charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// bytes: the content of the file.
Expected<SentencePieceModel> parse_sentencepiece_model(std::string_view bytes);

}  // namespace nibble

#endif  // NIBBLE_TOKENIZER_SENTENCEPIECE_MODEL_H_
