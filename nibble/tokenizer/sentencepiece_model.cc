#include "nibble/tokenizer/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <unordered_set>
#include <utility>

#include "nibble/tokenizer/unicode.h"
#include "nibble/tokenizer/vocabulary.h"

namespace nibble {
namespace {

// The trainer writes up to 16 characters unless it is told otherwise; finding the ways to join a piece
// takes the square of its length.
constexpr size_t kMaxPieceBytes = 512;

Failure damaged(std::string_view what) {
  return fail(ErrorCode::kDataLoss, "not a SentencePiece model: {}", what)
      .with_fix("Get the file again; a file of Git LFS that was not fetched looks like this, too.");
}

// One field of a message: its number, and its value as the wire type gives it.
struct Field {
  uint32_t number = 0;
  uint32_t wire_type = 0;  // 0: varint, 1: 8 bytes, 2: bytes, 5: 4 bytes
  uint64_t value = 0;      // of wire types 0, 1 and 5
  std::string_view bytes;  // of wire type 2
};

// The fields of a message, one after another.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  bool done() const { return rest_.empty(); }

  Expected<Field> next() {
    NIBBLE_TRY(const uint64_t tag, varint());
    Field field;
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire_type = static_cast<uint32_t>(tag & 7);
    if (tag >> 32 != 0 || field.number == 0) return damaged("a field without a number");
    switch (field.wire_type) {
      case 0: {
        NIBBLE_TRY(field.value, varint());
        return field;
      }
      case 1: {
        NIBBLE_TRY(field.value, fixed(8));
        return field;
      }
      case 2: {
        NIBBLE_TRY(const uint64_t size, varint());
        if (size > rest_.size()) return damaged("it ends inside a field");
        field.bytes = rest_.substr(0, static_cast<size_t>(size));
        rest_.remove_prefix(static_cast<size_t>(size));
        return field;
      }
      case 5: {
        NIBBLE_TRY(field.value, fixed(4));
        return field;
      }
      default:
        return damaged("a field of an unknown kind");
    }
  }

 private:
  Expected<uint64_t> varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return damaged("it ends inside a field");
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    return damaged("a number that has no end");
  }

  Expected<uint64_t> fixed(size_t size) {
    if (rest_.size() < size) return damaged("it ends inside a field");
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= uint64_t{static_cast<unsigned char>(rest_[i])} << (8 * i);
    rest_.remove_prefix(size);
    return value;
  }

  std::string_view rest_;
};

// Calls read(field) for every field of a message.
template <class Read>
Status read_message(std::string_view bytes, const Read& read) {
  Message message(bytes);
  while (!message.done()) {
    NIBBLE_TRY(const Field field, message.next());
    read(field);
  }
  return {};
}

int to_int(uint64_t value) { return static_cast<int>(static_cast<int32_t>(static_cast<uint32_t>(value))); }

Expected<SentencePieceModel::Piece> read_piece(std::string_view bytes) {
  SentencePieceModel::Piece piece;
  uint64_t type = 1;
  NIBBLE_RETURN_IF_ERROR(read_message(bytes, [&](const Field& field) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    if (field.number == 3) type = field.value;
  }));
  if (type < 1 || type > 6) return damaged(fmt::format("a piece of type {}", type));
  piece.type = static_cast<SentencePieceModel::PieceType>(type);
  if (piece.text.empty() || !is_valid_utf8(piece.text)) return damaged("a piece that is no text");
  if (piece.text.size() > kMaxPieceBytes) {
    return damaged(
        fmt::format("a piece of {} bytes; at most {} are supported", piece.text.size(), kMaxPieceBytes));
  }
  if (!std::isfinite(piece.score)) return damaged("a piece whose score is not finite");
  return piece;
}

Status read_trainer(std::string_view bytes, SentencePieceModel& model) {
  uint64_t type = 1;
  NIBBLE_RETURN_IF_ERROR(read_message(bytes, [&](const Field& field) {
    switch (field.number) {
      case 3:
        type = field.value;
        break;
      case 35:
        model.byte_fallback = field.value != 0;
        break;
      case 40:
        model.unk_id = to_int(field.value);
        break;
      case 41:
        model.bos_id = to_int(field.value);
        break;
      case 42:
        model.eos_id = to_int(field.value);
        break;
      case 43:
        model.pad_id = to_int(field.value);
        break;
      case 45:
        model.unk_piece = field.bytes;
        break;
      case 46:
        model.bos_piece = field.bytes;
        break;
      case 47:
        model.eos_piece = field.bytes;
        break;
      default:
        break;
    }
  }));
  if (type < 1 || type > 4) return damaged(fmt::format("a model of type {}", type));
  model.model_type = static_cast<SentencePieceModel::ModelType>(type);
  return {};
}

Status read_normalizer(std::string_view bytes, SentencePieceModel& model) {
  return read_message(bytes, [&](const Field& field) {
    if (field.number == 2) model.precompiled_charsmap = field.bytes;
    if (field.number == 3) model.add_dummy_prefix = field.value != 0;
    if (field.number == 4) model.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) model.escape_whitespaces = field.value != 0;
  });
}

}  // namespace

Expected<SentencePieceModel> parse_sentencepiece_model(std::string_view bytes) {
  SentencePieceModel model;
  Message message(bytes);
  while (!message.done()) {
    NIBBLE_TRY(const Field field, message.next());
    if (field.wire_type != 2) continue;
    if (field.number == 1) {
      NIBBLE_TRY(SentencePieceModel::Piece piece,
                 at(fmt::format("piece {}", model.pieces.size()), read_piece(field.bytes)));
      model.pieces.push_back(std::move(piece));
      if (model.pieces.size() > static_cast<size_t>(kMaxTokenId)) return damaged("too many pieces");
    } else if (field.number == 2) {
      NIBBLE_RETURN_IF_ERROR(at("trainer_spec", read_trainer(field.bytes, model)));
    } else if (field.number == 3) {
      NIBBLE_RETURN_IF_ERROR(at("normalizer_spec", read_normalizer(field.bytes, model)));
    }
  }
  if (model.pieces.empty()) return damaged("it has no pieces");
  std::unordered_set<std::string_view> seen;
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (!seen.insert(piece.text).second) return damaged(fmt::format("the piece \"{}\" twice", piece.text));
  }
  const auto count = static_cast<int64_t>(model.pieces.size());
  if (model.unk_id < 0 || model.unk_id >= count || model.bos_id >= count || model.eos_id >= count ||
      model.pad_id >= count) {
    return damaged("a special piece that is not there");
  }
  return model;
}

}  // namespace nibble
