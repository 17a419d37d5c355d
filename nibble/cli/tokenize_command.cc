// `nibble tokenize` and `nibble detokenize`: text to token ids and back.

#include <memory>

#include "nibble/base/cancel.h"
#include "nibble/cli/command.h"
#include "nibble/cli/input.h"
#include "nibble/cli/options.h"
#include "nibble/cli/output.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble::cli {
namespace {

struct TokenizeArguments {
  CommonOptions common;
  ModelOption model;
  std::optional<std::string> text;
  std::string file;
  bool jsonl = false;
  bool no_special_tokens = false;
  bool offsets = false;
};

Expected<Json> tokenize_text(const Tokenizer& tokenizer, std::string_view text,
                             const TokenizeArguments& options) {
  const EncodeOptions encode = {.add_special_tokens = !options.no_special_tokens,
                                .with_offsets = options.offsets};
  NIBBLE_TRY(const Encoding encoding, tokenizer.encode(text, encode));
  Json out = {{"ids", encoding.ids}};
  if (options.offsets) out["offsets"] = encoding.offsets;
  return out;
}

// One answer per line, flushed as it is made: another program may be talking to us.
template <class Fn>
Status answer_lines(const std::string& file, Fn&& answer) {
  NIBBLE_TRY(LineReader reader, LineReader::open(file));
  size_t number = 0;
  std::string line;
  while (true) {
    NIBBLE_TRY(const bool more, reader.next(line));
    if (!more) return {};
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    const std::string where = fmt::format("{}: line {}", reader.name(), ++number);
    NIBBLE_TRY(const Json json, at(where, parse_json(line)));
    NIBBLE_TRY(const Json result, at(where, answer(json)));
    NIBBLE_RETURN_IF_ERROR(write_json(result, -1));
  }
}

Status tokenize(const TokenizeArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  if (options.text && (options.jsonl || !options.file.empty())) {
    return fail(ErrorCode::kInvalidArgument,
                "--text is the input already: --file and --jsonl do not go with it")
        .with_fix("Use one of them.");
  }
  NIBBLE_TRY(const Tokenizer tokenizer,
             AutoTokenizer::from_pretrained(options.model.model, options.model.revision));
  if (options.jsonl) {
    return answer_lines(options.file, [&](const Json& json) -> Expected<Json> {
      if (!json.is_string()) {
        return fail(ErrorCode::kInvalidArgument, "{}, but each line holds one JSON string",
                    json_type_name(json));
      }
      return tokenize_text(tokenizer, json.get_ref<const std::string&>(), options);
    });
  }
  std::string text;
  if (options.text) {
    text = *options.text;
  } else {
    NIBBLE_TRY(text, read_input(options.file));
  }
  NIBBLE_TRY(const Json json, tokenize_text(tokenizer, text, options));
  return write_json(json, -1);
}

Action define_tokenize(CLI::App& app) {
  const auto options = std::make_shared<TokenizeArguments>();
  add_model_option(app, options->model);
  app.add_option("--text", options->text, "The text")->type_name("TEXT");
  app.add_option("--file", options->file, "A file with the text (default: stdin)")->type_name("FILE");
  app.add_flag("--jsonl", options->jsonl, "One JSON string per line of the input, one object per line out");
  app.add_flag("--no-special-tokens", options->no_special_tokens, "Do not add BOS, EOS and the like");
  app.add_flag("--offsets", options->offsets, "Also print where each token lies, in code points");
  add_common_options(app, options->common, "The output is JSON always");
  return [options] { return tokenize(*options); };
}

struct DetokenizeArguments {
  CommonOptions common;
  ModelOption model;
  std::vector<std::string> ids;
  std::string file;
  bool jsonl = false;
  bool skip_special_tokens = false;
};

Expected<std::vector<int32_t>> read_ids(const Json& json) {
  if (!json.is_array()) {
    return fail(ErrorCode::kInvalidArgument, "{}, but token ids are a list", json_type_name(json));
  }
  std::vector<int32_t> ids;
  for (const Json& item : json) {
    if (!item.is_number_integer() || item < 0 || item > std::numeric_limits<int32_t>::max()) {
      return fail(ErrorCode::kInvalidArgument, "{} is not a token id", dump_json(item, -1));
    }
    ids.push_back(item.get<int32_t>());
  }
  return ids;
}

Status detokenize(const DetokenizeArguments& options) {
  NIBBLE_RETURN_IF_ERROR(options.model.check());
  if (options.jsonl ? !options.ids.empty() : options.ids.empty()) {
    return fail(ErrorCode::kInvalidArgument, "token ids are given {}",
                options.jsonl ? "twice: as arguments and with --jsonl" : "nowhere")
        .with_fix("Write them behind MODEL, or as lists, one per line of the input, with --jsonl.");
  }
  Json ids = Json::array();
  for (const std::string& text : options.ids) {
    // Also "[1, 2, 3]" and "1,2,3", as ids are copied from other programs.
    std::string list = text;
    if (list.empty() || list.front() != '[') list = "[" + list + "]";
    const auto parsed = parse_json(list);
    if (!parsed) return fail(ErrorCode::kInvalidArgument, "\"{}\" is not a token id", text);
    for (const Json& id : *parsed) ids.push_back(id);
  }
  if (!options.jsonl) NIBBLE_RETURN_IF_ERROR(read_ids(ids));
  NIBBLE_TRY(const Tokenizer tokenizer,
             AutoTokenizer::from_pretrained(options.model.model, options.model.revision));
  const auto answer = [&](const Json& json) -> Expected<Json> {
    NIBBLE_TRY(const std::vector<int32_t> numbers, read_ids(json));
    return Json{{"text", tokenizer.decode(numbers, options.skip_special_tokens)}};
  };
  if (options.jsonl) return answer_lines(options.file, answer);
  NIBBLE_TRY(const Json json, answer(ids));
  return write_json(json, -1);
}

Action define_detokenize(CLI::App& app) {
  const auto options = std::make_shared<DetokenizeArguments>();
  add_model_option(app, options->model);
  app.add_option("ID", options->ids, "Token ids")->type_name("");
  app.add_option("--file", options->file, "Where --jsonl reads (default: stdin)")->type_name("FILE");
  app.add_flag("--jsonl", options->jsonl,
               "One JSON list of ids per line of the input, one object per line out");
  app.add_flag("--skip-special-tokens", options->skip_special_tokens, "Leave out BOS, EOS and the like");
  add_common_options(app, options->common, "The output is JSON always");
  return [options] { return detokenize(*options); };
}

}  // namespace

const Command kTokenizeCommand = {
    .name = "tokenize",
    .summary = "Turn text into token ids",
    .examples =
        "  nibble tokenize ./model --text \"Hello\" --offsets\n"
        "  nibble tokenize ./model --jsonl < strings.jsonl > ids.jsonl",
    .define = define_tokenize,
};

const Command kDetokenizeCommand = {
    .name = "detokenize",
    .summary = "Turn token ids into text",
    .examples =
        "  nibble detokenize ./model 9906 1917\n"
        "  nibble detokenize ./model --jsonl --skip-special-tokens < ids.jsonl",
    .define = define_detokenize,
};

}  // namespace nibble::cli
