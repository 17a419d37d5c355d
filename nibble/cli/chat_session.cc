#include "nibble/cli/chat_session.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "nibble/base/atomic_file.h"
#include "nibble/base/cancel.h"
#include "nibble/base/log.h"
#include "nibble/base/mapped_file.h"
#include "nibble/base/memory.h"
#include "nibble/cli/input.h"
#include "nibble/cli/output.h"

namespace nibble::cli {
namespace {

// Room that is kept for an answer of unknown length before old messages are dropped.
constexpr size_t kAnswerRoom = 256;

Json message(std::string_view role, std::string_view content) {
  return {{"role", role}, {"content", content}};
}

bool has_role(const Json& one, std::string_view role) { return one["role"] == role; }

// What /save wrote, or a list of messages as other programs write it.
Expected<Json> messages_of(const Json& json) {
  const Json* list = json.is_object() && json.contains("messages") ? &json["messages"] : &json;
  if (!list->is_array()) return fail(ErrorCode::kDataLoss, "holds no list of messages");
  for (const Json& one : *list) {
    if (!one.is_object() || !one.contains("role") || !one["role"].is_string() || !one.contains("content") ||
        !one["content"].is_string()) {
      return fail(ErrorCode::kDataLoss, "has a message without \"role\" and \"content\"");
    }
  }
  return *list;
}

}  // namespace

ChatSession::ChatSession(const AnswerOptions& options, LoadedModel& loaded, ThreadPool& pool)
    : options_(options),
      loaded_(loaded),
      sampling_(options.sampling),
      conversation_(*loaded.model, loaded.tokenizer, loaded.generation, options.conversation(), pool) {
  if (options.system) set_system(*options.system);
}

bool ChatSession::has_system() const { return !messages_.empty() && has_role(messages_[0], "system"); }

Json ChatSession::view() const {
  Json seen = Json::array();
  const size_t first = has_system() ? 1 : 0;
  if (first == 1) seen.push_back(messages_[0]);
  for (size_t i = first + hidden_; i < messages_.size(); ++i) seen.push_back(messages_[i]);
  return seen;
}

// The tokens of what the model sees; the oldest turns are hidden from it where they no longer fit.
Expected<std::vector<int32_t>> ChatSession::encode_fitting() {
  const size_t context = conversation_.context_size();
  const size_t room = std::min(loaded_.generation.max_new_tokens.value_or(kAnswerRoom), context / 4);
  const size_t first = has_system() ? 1 : 0;
  NIBBLE_TRY(std::vector<int32_t> tokens, loaded_.tokenizer.encode_chat(view()));
  const size_t before = tokens.size();
  const size_t hidden_before = hidden_;
  while (tokens.size() + room > context) {
    size_t next = first + hidden_ + 1;  // where the turn behind the oldest one begins
    while (next < messages_.size() && !has_role(messages_[next], "user")) ++next;
    if (next >= messages_.size()) break;
    hidden_ = next - first;
    NIBBLE_TRY(tokens, loaded_.tokenizer.encode_chat(view()));
  }
  if (hidden_ > hidden_before) {
    log_line(LogLevel::kQuiet,
             fmt::format(
                 "note: the conversation has {} tokens, which leaves no room for an answer in a context "
                 "of {}. The model no longer sees the {} oldest messages ({} tokens).\n"
                 "  /save still writes all of them. --ctx-size N makes more room, up to the model's limit.",
                 before, context, hidden_ - hidden_before, before - tokens.size()));
  }
  return tokens;
}

Status ChatSession::answer() {
  std::vector<int32_t> tokens;
  if (loaded_.chat) {
    NIBBLE_TRY(tokens, encode_fitting());
  } else {
    NIBBLE_TRY(Encoding encoding, loaded_.tokenizer.encode(messages_.back()["content"].get<std::string>()));
    tokens = std::move(encoding.ids);
  }
  conversation_.set_config(loaded_.generation);
  NIBBLE_TRY(const GenerateResult result, stream_answer(conversation_, tokens, !options_.common.json));
  if (cancel_requested()) {
    // To a person, Ctrl-C stops the answer and no more.
    if (!stdin_is_terminal() || termination_requested()) return check_cancelled();
    reset_cancel();
  }
  ++stats_.answers;
  stats_.read_tokens += result.prompt_tokens;
  stats_.read_seconds += result.prompt_seconds;
  stats_.generated_tokens += result.tokens.size();
  stats_.generation_seconds += result.generation_seconds;
  messages_.push_back(message("assistant", result.text));
  if (log_level() >= LogLevel::kVerbose) log_speed(result);
  if (result.finish_reason == FinishReason::kContextFull) {
    log_line(LogLevel::kQuiet, fmt::format("note: the answer stops here: the context of {} tokens is full.",
                                           conversation_.context_size()));
  }
  if (!options_.common.json) return {};
  return write_json({{"text", result.text},
                     {"finish_reason", finish_reason_name(result.finish_reason)},
                     {"prompt_tokens", tokens.size()},
                     {"read_tokens", result.prompt_tokens},
                     {"completion_tokens", result.tokens.size()},
                     {"hidden_messages", hidden_}},
                    -1);
}

Status ChatSession::say(const std::string& text) {
  if (!loaded_.chat) messages_ = Json::array();
  const size_t hidden = hidden_;
  messages_.push_back(message("user", text));
  Status status = answer();
  if (!status) {
    messages_.erase(messages_.size() - 1);
    hidden_ = hidden;
  }
  return status;
}

Status ChatSession::retry() {
  const size_t size = messages_.size();
  if (size < 2 || !has_role(messages_[size - 1], "assistant") || !has_role(messages_[size - 2], "user")) {
    return fail(ErrorCode::kInvalidArgument, "there is no answer yet that could be tried again");
  }
  const Json last = messages_[size - 1];
  messages_.erase(size - 1);
  Status status = answer();
  if (!status) messages_.push_back(last);
  return status;
}

void ChatSession::reset() {
  while (messages_.size() > (has_system() ? 1 : 0)) messages_.erase(messages_.size() - 1);
  hidden_ = 0;
}

void ChatSession::set_system(const std::string& text) {
  if (has_system()) messages_.erase(0);
  if (!text.empty()) messages_.insert(messages_.begin(), message("system", text));
}

Status ChatSession::set(const std::string& name, const std::string& value) {
  SamplingOptions changed = sampling_;
  CLI::App app;
  add_sampling_options(app, changed);
  std::string flag = "--" + name;
  std::replace(flag.begin(), flag.end(), '_', '-');
  const CLI::Option* option = app.get_option_no_throw(flag);
  if (option == nullptr || option->get_items_expected_max() == 0) {
    std::string names;
    for (const CLI::Option* one : app.get_options()) {
      if (one->get_items_expected_max() == 0 || one->get_lnames().empty()) continue;
      names += (names.empty() ? "" : ", ") + one->get_lnames().back();
    }
    return fail(ErrorCode::kInvalidArgument, "there is no setting \"{}\"", name)
        .with_fix("Settings: " + names);
  }
  try {
    app.parse(std::vector<std::string>{value, flag});  // from the back, as CLI11 wants them
  } catch (const CLI::ParseError& error) {
    return fail(ErrorCode::kInvalidArgument, "{}", error.what());
  }
  GenerationConfig generation = loaded_.defaults;
  NIBBLE_RETURN_IF_ERROR(changed.apply(generation));
  sampling_ = std::move(changed);
  loaded_.generation = std::move(generation);
  return {};
}

std::vector<std::string> ChatSession::settings() const {
  return describe_sampling(loaded_.generation, sampling_);
}

Status ChatSession::save(const std::string& file) const {
  // An old conversation may be written over, anything else may not.
  std::error_code error;
  if (std::filesystem::exists(file, error)) {
    const auto text = read_text_file(file);
    const auto old = text ? parse_json(*text) : Expected<Json>(Json());
    if (!old || !messages_of(*old)) {
      return fail(ErrorCode::kInvalidArgument, "exists and is no saved conversation")
          .at(file)
          .with_fix("Choose another name.");
    }
  }
  return write_file(file, dump_json({{"messages", messages_}}) + "\n");
}

Status ChatSession::load(const std::string& file) {
  NIBBLE_TRY(const std::string text, read_text_file(file));
  NIBBLE_TRY(const Json json, at(file, parse_json(text)));
  NIBBLE_TRY(messages_, at(file, messages_of(json)));
  hidden_ = 0;
  return {};
}

std::vector<std::string> ChatSession::stats() const {
  const auto rate = [](size_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  const size_t after_first = stats_.generated_tokens - std::min(stats_.answers, stats_.generated_tokens);
  return {
      fmt::format("{} answers; {} messages, {} of them no longer seen", stats_.answers, messages_.size(),
                  hidden_),
      fmt::format("context: {} of {} tokens", conversation_.cached_tokens(), conversation_.context_size()),
      fmt::format("read {} tokens, {:.1f} tok/s; generated {} tokens, {:.1f} tok/s", stats_.read_tokens,
                  rate(stats_.read_tokens, stats_.read_seconds), stats_.generated_tokens,
                  rate(after_first, stats_.generation_seconds)),
      fmt::format("peak memory {}", human_bytes(peak_memory_bytes()))};
}

}  // namespace nibble::cli
