#include "nibble/tokenizer/regex.h"

#include <array>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "nibble/tokenizer/regex_syntax.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {

template <auto Free>
struct Pcre2Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};

namespace {

// Backtracking steps for one starting place: what runs into this would run for minutes.
constexpr uint32_t kMaxSteps = 10'000'000;
constexpr uint32_t kMaxHeapKiB = 256 * 1024;
// Patterns of tokenizers need a few hundred bytes of JIT stack; one that needs more than PCRE2's
// own 32 KiB is run again with up to this.
constexpr size_t kMaxJitStackBytes = size_t{128} << 20;

using MatchData = std::unique_ptr<pcre2_match_data, Pcre2Deleter<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Pcre2Deleter<pcre2_match_context_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Pcre2Deleter<pcre2_compile_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Pcre2Deleter<pcre2_jit_stack_free>>;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

std::string shortened(std::string_view pattern) {
  constexpr size_t kShown = 80;
  if (pattern.size() <= kShown) return std::string(pattern);
  size_t end = kShown;
  while (end > 0 && is_utf8_continuation(pattern[end])) --end;
  return std::string(pattern.substr(0, end)) + "...";
}

// The stretch before a match, and the match.
void add_match(std::vector<Span>& spans, size_t& covered, size_t begin, size_t end) {
  if (covered != begin) spans.push_back({covered, begin, false});
  spans.push_back({begin, end, true});
  covered = end;
}

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, Pcre2Deleter<pcre2_code_free>> code;
  MatchContext limits;
};

Expected<Regex> Regex::compile(std::string_view pattern) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorCode::kDataLoss, "the regular expression \"{}\" is not valid: {}", shortened(pattern),
                why);
  };
  const Expected<std::string> translated = pcre2_from_oniguruma(pattern);
  if (!translated) return refuse(translated.error().what);

  const CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  // In Ruby ^ and $ match at every line.
  code->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                                 &offset, context.get()));
  if (!code->code) return refuse(pcre2_message(error));
  // Without JIT (not built in, or no executable memory) matching is slower, not different.
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);
  code->limits.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(code->limits.get(), kMaxSteps);
  pcre2_set_depth_limit(code->limits.get(), kMaxSteps);
  pcre2_set_heap_limit(code->limits.get(), kMaxHeapKiB);
  return Regex(std::string(pattern), std::move(code));
}

Status Regex::find_all(std::string_view text, std::vector<Span>& spans) const {
  spans.clear();
  if (text.empty()) return {};
  const MatchData data(pcre2_match_data_create(1, nullptr));
  JitStack big_stack;
  MatchContext big_limits;
  size_t covered = 0;
  size_t last_end = text.npos;  // of the last match
  for (size_t start = 0; start <= text.size();) {
    const auto match = [&](pcre2_match_context* limits) {
      return pcre2_match(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                         PCRE2_NO_UTF_CHECK, data.get(), limits);
    };
    int rc = match(big_limits ? big_limits.get() : code_->limits.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !big_limits) {
      big_stack.reset(pcre2_jit_stack_create(32 * 1024, kMaxJitStackBytes, nullptr));
      big_limits.reset(pcre2_match_context_copy(code_->limits.get()));
      pcre2_jit_stack_assign(big_limits.get(), nullptr, big_stack.get());
      rc = match(big_limits.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return fail(ErrorCode::kInvalidArgument,
                  "the regular expression \"{}\" was stopped at byte {} of {} bytes of text: {}",
                  shortened(pattern_), start, text.size(), pcre2_message(rc))
          .with_fix(
              "The pattern backtracks too much on this text: change the pattern in tokenizer.json or the "
              "text.");
    }
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
    const size_t begin = found[0];
    const size_t end = found[1];
    // \K and lookbehinds can report places that were passed already.
    if (begin < covered || end < begin) {
      return fail(ErrorCode::kUnsupported, "the regular expression \"{}\" moves the start of a match",
                  shortened(pattern_))
          .with_fix("Remove \\K from the pattern in tokenizer.json.");
    }
    if (begin == end && end == last_end) {  // nothing, directly behind a match: not a match
      if (start >= text.size()) break;
      start += decode_utf8(text, start).size;
      continue;
    }
    add_match(spans, covered, begin, end);
    start = last_end = end;
  }
  if (covered != text.size()) spans.push_back({covered, text.size(), false});
  return {};
}

Expected<Pattern> Pattern::parse(const Json& json) {
  if (json.is_object() && json.size() == 1 && json.begin().value().is_string()) {
    const auto& text = json.begin().value().get_ref<const std::string&>();
    if (json.begin().key() == "String") return of_string(text);
    if (json.begin().key() == "Regex") {
      NIBBLE_TRY(Regex regex, Regex::compile(text));
      return of_regex(std::move(regex));
    }
  }
  return fail(ErrorCode::kDataLoss,
              "pattern must be {{\"String\": \"...\"}} or {{\"Regex\": \"...\"}}, not {}",
              json_type_name(json));
}

Status Pattern::find_all(std::string_view text, std::vector<Span>& spans) const {
  if (regex_) return regex_->find_all(text, spans);
  spans.clear();
  size_t covered = 0;
  if (!text_.empty()) {
    for (size_t begin = text.find(text_); begin != text.npos; begin = text.find(text_, covered)) {
      add_match(spans, covered, begin, begin + text_.size());
    }
  }
  if (covered != text.size()) spans.push_back({covered, text.size(), false});
  return {};
}

}  // namespace nibble
