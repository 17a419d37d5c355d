#include "nibble/calibration/dataset.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <span>
#include <utility>

#include "nibble/base/json.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/sha256.h"
#include "nibble/base/tensor.h"
#include "nibble/calibration/scripts.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

using Sequence = std::vector<int32_t>;
using Sequences = std::vector<Sequence>;

constexpr size_t kShortSample = 10;     // lines of at most so many tokens say nothing (GPTQModel)
constexpr size_t kFewTokens = 8192;     // of all sequences, where no width is known
constexpr size_t kTokensPerInput = 4;   // fewer leave a Hessian mostly to its damping
constexpr double kManyBytes = 0.25;     // of the tokens of a text that the tokenizer knows well: under 0.02
constexpr size_t kManyRepetitions = 4;  // of each part of a text, on average
constexpr std::string_view kNumKey = "num";

// SplitMix64: the same numbers on every machine, which std::uniform_int_distribution does not promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // 0 .. count - 1, evenly: what would favour low numbers is thrown away.
  size_t below(size_t count) {
    const uint64_t uneven = -uint64_t{count} % count;
    uint64_t number = next();
    while (number < uneven) number = next();
    return number % count;
  }

 private:
  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

constexpr std::string_view kNameAFile =
    "Name a text, .jsonl or .safetensors file that can be read, or \"default\" for the built-in text.";

// What all kinds of sources share.
struct Loading {
  const DatasetOptions& options;
  const Tokenizer* tokenizer;
  const ChatTemplate* chat_template;
  size_t vocab_size;
  Random random;
  std::vector<std::string> warnings;
  std::map<std::string, LetterCounts> letters = {};  // of the user's text files, by their names
};

// --- The list of sources -------------------------------------------------------------------------

Status set_option(std::string_view part, std::string_view option, DataSource& source) {
  const size_t equals = option.find('=');
  const std::string_view key = option.substr(0, equals);
  const std::string_view value = option.substr(equals + 1);
  if (key != kNumKey) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\": there is no option {}", part, key)
        .with_fix("A file may be followed by :num=N, the number of its sequences.");
  }
  size_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number == 0) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\": num must be a whole number from 1", part)
        .with_fix("Write FILE:num=64, for example.");
  }
  source.num_samples = number;
  return {};
}

// The option of "a.txt:num=64"; other colons belong to the name of the file.
std::optional<size_t> find_option(std::string_view part) {
  const size_t colon = part.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const std::string_view option = part.substr(colon + 1);
  const size_t key = option.find_first_not_of("abcdefghijklmnopqrstuvwxyz_");
  if (key == 0 || key == std::string_view::npos || option[key] != '=') return std::nullopt;
  return colon;
}

Expected<DataSource> parse_source(std::string_view part) {
  DataSource source;
  const std::optional<size_t> colon = find_option(part);
  if (colon) NIBBLE_RETURN_IF_ERROR(set_option(part, part.substr(*colon + 1), source));
  const std::string_view name = part.substr(0, colon.value_or(part.size()));
  if (name.empty()) {
    return fail(ErrorCode::kInvalidArgument, "\"{}\": the name of a file is missing", part)
        .with_fix("Write FILE, FILE:num=N or default, with commas between them.");
  }
  if (name != "default") source.path = name;
  return source;
}

std::string name_of(const DataSource& source) {
  return source.path.empty() ? "the built-in text" : source.path.string();
}

// How many sequences each source gives.
Expected<std::vector<size_t>> shares_of(const std::vector<DataSource>& sources, size_t total) {
  size_t given = 0;
  size_t without = 0;
  for (const DataSource& source : sources) {
    if (source.num_samples) given += *source.num_samples;
    if (!source.num_samples) ++without;
  }
  const size_t left = total - std::min(total, given);
  if (left < without) {
    return fail(ErrorCode::kInvalidArgument,
                "{} sequences in all, {} of them given away with num=, leave {} for {}", total, given,
                left == 0 ? "none" : fmt::to_string(left),
                without == 1 ? "the other file" : fmt::format("the {} other files", without))
        .with_fix("Ask for more sequences, or give every file its own num=.");
  }
  std::vector<size_t> shares;
  size_t place = 0;  // among those without a number: the first ones get what does not divide
  for (const DataSource& source : sources) {
    shares.push_back(source.num_samples ? *source.num_samples : left / without + (place < left % without));
    if (!source.num_samples) ++place;
  }
  return shares;
}

// --- Tokens --------------------------------------------------------------------------------------

Expected<const Tokenizer*> tokenizer_of(const Loading& loading) {
  if (loading.tokenizer != nullptr) return loading.tokenizer;
  return fail(ErrorCode::kInvalidArgument, "text needs a tokenizer, and the model has none")
      .with_fix("Put tokenizer.json beside the model, or give tokens: input_ids in a .safetensors file.");
}

Status check_vocabulary(const Loading& loading, std::span<const int32_t> tokens, bool from_text) {
  for (const int32_t token : tokens) {
    if (token >= 0 && static_cast<size_t>(token) < loading.vocab_size) continue;
    return fail(ErrorCode::kInvalidArgument, "token {} is outside the model's vocabulary of {}", token,
                loading.vocab_size)
        .with_fix(from_text ? "The tokenizer belongs to another model: check the files beside the weights."
                            : "The tokens were made by the tokenizer of another model: make them again.");
  }
  return {};
}

// What no tokenizer should see, found before it is tokenized.
Status check_text(std::string_view text) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "{}",
                text.empty() ? "the file is empty" : "the file holds only white space")
        .with_fix("Give a file with text, or leave it out.");
  }
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "byte {} is 0: this is no text", zero)
        .with_fix("Give plain text in UTF-8, .jsonl, or tokens in .safetensors.");
  }
  if (!is_valid_utf8(text)) {
    return fail(ErrorCode::kInvalidArgument, "the text is not UTF-8")
        .with_fix("Convert it first, for example: iconv -f latin1 -t utf-8 FILE");
  }
  return {};
}

// A token that is less than a character, or unknown: what a tokenizer has left for text it was not made for.
bool is_leftover(const Tokenizer& tokenizer, int32_t id) {
  const std::optional<std::string> token = tokenizer.id_to_token(id);
  if (!token) return true;
  const bool is_byte = token->size() == 6 && token->starts_with("<0x") && token->ends_with('>');
  return is_byte || *token == "<unk>" || *token == "[UNK]" || tokenizer.decode({&id, 1}).find("\uFFFD") == 0;
}

void warn_of_leftovers(Loading& loading, const Sequences& sequences, const std::string& name) {
  if (loading.tokenizer == nullptr) return;
  std::map<int32_t, bool> leftover;
  size_t tokens = 0, leftovers = 0;
  for (const Sequence& sequence : sequences) {
    for (const int32_t id : sequence) {
      auto found = leftover.find(id);
      if (found == leftover.end()) found = leftover.emplace(id, is_leftover(*loading.tokenizer, id)).first;
      leftovers += found->second;
      ++tokens;
    }
  }
  const double share = tokens == 0 ? 0.0 : static_cast<double>(leftovers) / static_cast<double>(tokens);
  if (share < kManyBytes) return;
  loading.warnings.push_back(
      fmt::format("{}: {:.0f} % of the tokens are single bytes or unknown: the data may belong to another "
                  "language or tokenizer than the model",
                  name, 100.0 * share));
}

// --- Plain text ----------------------------------------------------------------------------------

Expected<Sequences> load_text(Loading& loading, std::string_view text, const std::string& name,
                              size_t count) {
  NIBBLE_TRY(const Tokenizer* tokenizer, tokenizer_of(loading));
  NIBBLE_TRY(const Encoding encoding, tokenizer->encode(text));
  const Sequence& tokens = encoding.ids;
  NIBBLE_RETURN_IF_ERROR(check_vocabulary(loading, tokens, /*from_text=*/true));
  if (tokens.size() < 2) {
    return fail(ErrorCode::kInvalidArgument, "the text has {} token, but a sequence needs 2", tokens.size())
        .with_fix("Give more text: some thousand tokens at least.");
  }
  const size_t length = loading.options.sequence_length;
  if (tokens.size() <= length) return Sequences{tokens};
  if (tokens.size() < count * length / kManyRepetitions) {
    loading.warnings.push_back(fmt::format("{}: {} sequences of {} tokens repeat parts of a text of only {}",
                                           name, count, length, tokens.size()));
  }
  Sequences sequences;
  for (size_t k = 0; k < count; ++k) {
    const auto begin =
        tokens.begin() + static_cast<ptrdiff_t>(loading.random.below(tokens.size() - length + 1));
    sequences.emplace_back(begin, begin + static_cast<ptrdiff_t>(length));
  }
  return sequences;
}

// --- JSONL ---------------------------------------------------------------------------------------

struct Line {
  std::string_view text;
  size_t number = 0;  // from 1
};

std::vector<Line> split_lines(std::string_view text) {
  std::vector<Line> lines;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back({line, number});
  }
  return lines;
}

Expected<Json> parse_line(const Line& line) {
  auto parsed = parse_json(line.text);
  if (!parsed) return fail(ErrorCode::kInvalidArgument, "{}", parsed.error().what);
  Json json = std::move(*parsed);
  if (!json.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "the line is {}, but must be an object", json_type_name(json));
  }
  const auto messages = json.find("messages");
  const auto text = json.find("text");
  if (messages != json.end() && !messages->is_array()) {
    return fail(ErrorCode::kInvalidArgument, "messages is {}, but must be a list", json_type_name(*messages));
  }
  if (messages == json.end() && (text == json.end() || !text->is_string())) {
    return fail(ErrorCode::kInvalidArgument,
                "the line has neither a \"text\" (a string) nor \"messages\" (a list)");
  }
  return json;
}

constexpr std::string_view kLineGrammar =
    R"(Each line is an object: {"text": "..."} or {"messages": [{"role": "user", "content": "..."}]}.)";

void count_letters(const Json& line, LetterCounts& letters) {
  const auto add = [&](const Json& object, const char* key) {
    if (!object.is_object()) return;
    if (const auto found = object.find(key); found != object.end() && found->is_string()) {
      letters.add(found->get_ref<const std::string&>());
    }
  };
  if (const auto messages = line.find("messages"); messages != line.end()) {
    for (const Json& message : *messages) add(message, "content");
  } else {
    add(line, "text");
  }
}

Expected<RenderedChat> render_chat(const Loading& loading, const Json& messages, const Json& tools) {
  if (loading.chat_template == nullptr) {
    return loading.tokenizer->apply_chat_template(messages, tools, /*add_generation_prompt=*/false);
  }
  Json context = {{"messages", messages}, {"tools", tools}, {"add_generation_prompt", false}};
  const auto set_token = [&](const char* name, std::optional<int32_t> id) {
    if (!id) return;
    if (const auto token = loading.tokenizer->id_to_token(*id)) context[name] = *token;
  };
  set_token("bos_token", loading.tokenizer->bos_token_id());
  set_token("eos_token", loading.tokenizer->eos_token_id());
  return loading.chat_template->render(context);
}

Expected<Sequence> encode_line(const Loading& loading, const Line& line) {
  NIBBLE_TRY(const Json json, parse_line(line));
  NIBBLE_TRY(const Tokenizer* tokenizer, tokenizer_of(loading));
  Encoding encoding;
  if (json.contains("messages")) {
    NIBBLE_TRY(const RenderedChat chat, render_chat(loading, json["messages"], json.value("tools", Json())));
    // The template writes BOS and the like itself.
    NIBBLE_TRY(encoding,
               tokenizer->encode(chat.text, {.add_special_tokens = false, .literal = chat.literal}));
  } else {
    NIBBLE_TRY(encoding, tokenizer->encode(json["text"].get_ref<const std::string&>()));
  }
  NIBBLE_RETURN_IF_ERROR(check_vocabulary(loading, encoding.ids, /*from_text=*/true));
  return std::move(encoding.ids);
}

Expected<Sequences> load_jsonl(Loading& loading, std::string_view text, const std::string& name,
                               size_t count) {
  std::vector<Line> lines = split_lines(text);
  const auto place = [&](const Line& line) { return fmt::format("{}: line {}", name, line.number); };
  // A broken line is an error even where chance would pass over it.
  for (const Line& line : lines) {
    const auto json = at(place(line), parse_line(line));
    if (!json) return Failure(json.error()).with_fix(kLineGrammar);
    count_letters(*json, loading.letters[name]);
  }
  for (size_t k = lines.size(); k > 1; --k) std::swap(lines[k - 1], lines[loading.random.below(k)]);

  const size_t length = loading.options.sequence_length;
  Sequences sequences;
  size_t dropped = 0;
  for (const Line& line : lines) {
    NIBBLE_TRY(Sequence sample, at(place(line), encode_line(loading, line)));
    if (sample.size() <= kShortSample) {
      ++dropped;
      continue;
    }
    if (sample.size() > length) sample.resize(length);
    if (!sequences.empty() && sequences.back().size() + sample.size() <= length) {
      sequences.back().insert(sequences.back().end(), sample.begin(), sample.end());
      continue;
    }
    if (sequences.size() == count) break;
    sequences.push_back(std::move(sample));
  }
  if (dropped > 0) {
    loading.warnings.push_back(
        fmt::format("{}: {} samples of at most {} tokens were left out", name, dropped, kShortSample));
  }
  return sequences;
}

// --- Token files ---------------------------------------------------------------------------------

constexpr std::string_view kTokenFile = "A token file holds input_ids [samples, length], I32 or I64.";

Expected<std::vector<int64_t>> load_integers(const SafetensorsFile& file, std::string_view tensor_name) {
  NIBBLE_TRY(const Tensor tensor, file.tensor(tensor_name));
  if (tensor.shape.size() != 2) {
    return fail(ErrorCode::kInvalidArgument, "shape {}, but must be [samples, length]",
                shape_name(tensor.shape))
        .at(tensor_name)
        .with_fix(kTokenFile);
  }
  const auto widen = [&]<class T>(T) {
    const std::vector<T> values = copy_elements<T>(tensor);
    return std::vector<int64_t>(values.begin(), values.end());
  };
  if (tensor.dtype == DType::kI64) return copy_elements<int64_t>(tensor);
  if (tensor.dtype == DType::kI32) return widen(int32_t{});
  if (tensor_name != "input_ids" && (tensor.dtype == DType::kBool || tensor.dtype == DType::kU8)) {
    return widen(uint8_t{});
  }
  return fail(ErrorCode::kInvalidArgument, "elements are {}, but must be I32 or I64",
              dtype_name(tensor.dtype))
      .at(tensor_name)
      .with_fix(kTokenFile);
}

Expected<Sequences> read_token_rows(const Loading& loading, const SafetensorsFile& file, size_t count) {
  const auto& tensors = file.header().tensors;
  const auto found = tensors.find("input_ids");
  if (found == tensors.end()) {
    return fail(ErrorCode::kInvalidArgument, "there is no input_ids").with_fix(kTokenFile);
  }
  NIBBLE_TRY(const std::vector<int64_t> ids, load_integers(file, "input_ids"));
  const Shape& shape = found->second.info.shape;
  std::vector<int64_t> mask;
  if (const auto with = tensors.find("attention_mask"); with != tensors.end()) {
    NIBBLE_TRY(mask, load_integers(file, "attention_mask"));
    if (with->second.info.shape != shape) {
      return fail(ErrorCode::kInvalidArgument, "shape {} beside input_ids {}",
                  shape_name(with->second.info.shape), shape_name(shape))
          .at("attention_mask")
          .with_fix("The mask has one element for each of input_ids.");
    }
  }
  Sequences rows(std::min(count, shape[0]));
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t k = r * shape[1]; k < (r + 1) * shape[1]; ++k) {
      if (!mask.empty() && mask[k] == 0) continue;
      // -1 stands for all that is no int32.
      rows[r].push_back(std::in_range<int32_t>(ids[k]) ? static_cast<int32_t>(ids[k]) : -1);
    }
    NIBBLE_RETURN_IF_ERROR(
        at(fmt::format("input_ids row {}", r), check_vocabulary(loading, rows[r], /*from_text=*/false)));
  }
  return rows;
}

Expected<Sequences> load_tokens(Loading& loading, const std::filesystem::path& path, size_t count) {
  const auto file = SafetensorsFile::open(path);
  if (!file) return Failure(file.error()).with_fix(kNameAFile);
  NIBBLE_TRY(Sequences rows, at(path.string(), read_token_rows(loading, *file, count)));
  const size_t length = loading.options.sequence_length;
  const size_t all = rows.size();
  std::erase_if(rows, [](const Sequence& row) { return row.size() < 2; });
  size_t cut = 0;
  for (Sequence& row : rows) {
    if (row.size() <= length) continue;
    row.resize(length);
    ++cut;
  }
  if (rows.size() < all) {
    loading.warnings.push_back(
        fmt::format("{}: {} samples of less than 2 tokens were left out", path.string(), all - rows.size()));
  }
  if (cut > 0) {
    loading.warnings.push_back(
        fmt::format("{}: {} samples were cut to {} tokens", path.string(), cut, length));
  }
  return rows;
}

// --- All together --------------------------------------------------------------------------------

Expected<Sequences> load_source(Loading& loading, const DataSource& source, size_t count) {
  const std::string name = name_of(source);
  if (source.path.empty()) return at(name, load_text(loading, default_calibration_text(), name, count));
  if (source.path.extension() == ".safetensors") return load_tokens(loading, source.path, count);
  const auto text = read_text_file(source.path);
  if (!text) return Failure(text.error()).with_fix(kNameAFile);
  NIBBLE_RETURN_IF_ERROR(at(name, check_text(*text)));
  if (source.path.extension() == ".jsonl") return load_jsonl(loading, *text, name, count);
  loading.letters[name].add(*text);
  return at(name, load_text(loading, *text, name, count));
}

void warn_of_scripts(Loading& loading, const Sequences& sequences) {
  if (loading.letters.empty()) return;
  LetterCounts drawn;
  for (const Sequence& sequence : sequences) drawn.add(loading.tokenizer->decode(sequence, true));
  for (const auto& [name, letters] : loading.letters) {
    if (const auto warning = script_warning(drawn, letters, name)) loading.warnings.push_back(*warning);
  }
}

template <class T>
void update_little_endian(Sha256& digest, T value) {
  std::byte bytes[sizeof(T)];
  for (size_t b = 0; b < sizeof(T); ++b) bytes[b] = static_cast<std::byte>(value >> (8 * b));
  digest.update(bytes);
}

std::string digest_of(const Sequences& sequences) {
  Sha256 digest;
  for (const Sequence& sequence : sequences) {
    update_little_endian(digest, uint64_t{sequence.size()});
    for (const int32_t token : sequence) update_little_endian(digest, static_cast<uint32_t>(token));
  }
  return digest.finish();
}

}  // namespace

size_t CalibrationData::num_tokens() const {
  size_t count = 0;
  for (const Sequence& sequence : sequences) count += sequence.size();
  return count;
}

Expected<std::vector<DataSource>> parse_dataset(std::string_view text) {
  std::vector<DataSource> sources;
  while (true) {
    const size_t comma = text.find(',');
    NIBBLE_TRY(DataSource source, parse_source(text.substr(0, comma)));
    sources.push_back(std::move(source));
    if (comma == std::string_view::npos) return sources;
    text.remove_prefix(comma + 1);
  }
}

Expected<CalibrationData> load_calibration_data(const std::vector<DataSource>& sources,
                                                const DatasetOptions& options, const Tokenizer* tokenizer,
                                                const ChatTemplate* chat_template, size_t vocab_size) {
  if (options.sequence_length < 2) {
    return fail(ErrorCode::kInvalidArgument, "sequences of {} tokens: 2 are the least",
                options.sequence_length);
  }
  NIBBLE_TRY(const std::vector<size_t> shares, shares_of(sources, options.num_samples));
  Loading loading{options, tokenizer, chat_template, vocab_size, Random(options.seed), {}};
  CalibrationData data;
  for (size_t k = 0; k < sources.size(); ++k) {
    NIBBLE_TRY(Sequences sequences, load_source(loading, sources[k], shares[k]));
    if (sequences.size() < shares[k]) {
      loading.warnings.push_back(fmt::format("{}: only {} of {} sequences, since there is no more data",
                                             name_of(sources[k]), sequences.size(), shares[k]));
    }
    warn_of_leftovers(loading, sequences, name_of(sources[k]));
    std::move(sequences.begin(), sequences.end(), std::back_inserter(data.sequences));
  }
  if (data.sequences.empty()) {
    return fail(ErrorCode::kInvalidArgument, "no calibration data: {}",
                sources.empty()            ? std::string("no file is given")
                : loading.warnings.empty() ? std::string("no sequences are asked for")
                                           : fmt::format("{}", fmt::join(loading.warnings, "; ")))
        .with_fix("Give a file with more than a few words, or several: --dataset FILE,FILE");
  }
  warn_of_scripts(loading, data.sequences);
  const size_t wanted =
      options.widest_in_features == 0 ? kFewTokens : kTokensPerInput * options.widest_in_features;
  if (data.num_tokens() < wanted) {
    loading.warnings.push_back(fmt::format(
        "{} tokens of calibration data are few: {} and more make better weights{}", data.num_tokens(), wanted,
        options.widest_in_features == 0
            ? ""
            : fmt::format(" ({} for each of {} inputs)", kTokensPerInput, options.widest_in_features)));
  }
  data.sha256 = digest_of(data.sequences);
  data.warnings = std::move(loading.warnings);
  return data;
}

}  // namespace nibble
