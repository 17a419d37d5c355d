#include "nibble/tokenizer/chat_template.h"

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Expected<RenderedChat> render_chat(std::string_view source, const Json& context,
                                   const ChatTemplateLimits& limits = {}) {
  NIBBLE_TRY(const ChatTemplate parsed, ChatTemplate::parse(source, limits));
  return parsed.render(context);
}

Json one_message(const std::string& content) {
  return {{"messages", Json::array({{{"role", "user"}, {"content", content}}})}, {"bos_token", "<s>"}};
}

// What a template prints for one message, or "error: " and what went wrong.
std::string render_text(std::string_view source, const std::string& content = "Hi") {
  const auto chat = render_chat(source, one_message(content));
  return chat ? chat->text : "error: " + to_string(chat.error());
}

// The parts of the output that are the user's, with | between them.
std::string user_parts(std::string_view source, const std::string& content) {
  const auto chat = render_chat(source, one_message(content));
  if (!chat) return "error: " + to_string(chat.error());
  std::string parts;
  size_t end = 0;
  for (const TextRange& range : chat->literal) {
    EXPECT_LT(range.begin, range.end);
    EXPECT_LE(range.end, chat->text.size());
    if (!parts.empty()) {
      EXPECT_GT(range.begin, end) << "ranges touch";
      parts += '|';
    }
    parts += chat->text.substr(range.begin, range.end - range.begin);
    end = range.end;
  }
  return parts;
}

TEST(ChatTemplateTest, EqualsTransformersInEveryGolden) {
  const std::filesystem::path folder = std::filesystem::path(NIBBLE_TEST_DATA) / "chat-templates";
  const auto goldens = parse_json(read_file(folder / "goldens.json"));
  ASSERT_TRUE(goldens.has_value()) << to_string(goldens.error());

  ChatTemplateLimits limits;
  std::tm now = {};
  ASSERT_NE(strptime((*goldens)["now"].get<std::string>().c_str(), "%Y-%m-%d %H:%M:%S", &now), nullptr);
  now.tm_isdst = -1;
  limits.now = std::mktime(&now);

  size_t renderings = 0;
  size_t errors = 0;
  for (const Json& golden : (*goldens)["cases"]) {
    SCOPED_TRACE(golden["template"].get<std::string>() + ": " + golden["case"].get<std::string>());
    Json context = {{"messages", golden["messages"]},
                    {"tools", golden["tools"]},
                    {"add_generation_prompt", golden["add_generation_prompt"]}};
    for (const auto& [key, value] : (*goldens)["special"].items()) context[key] = value;
    for (const auto& [key, value] : golden["kwargs"].items()) context[key] = value;
    const auto chat =
        render_chat(read_file(folder / (golden["template"].get<std::string>() + ".jinja")), context, limits);
    if (golden.contains("output")) {
      ASSERT_TRUE(chat.has_value()) << to_string(chat.error());
      EXPECT_EQ(chat->text, golden["output"].get<std::string>());
      ++renderings;
    } else {
      ASSERT_FALSE(chat.has_value()) << chat->text;
      EXPECT_EQ(chat.error().what, golden["error"]["message"].get<std::string>());
      ++errors;
    }
  }
  EXPECT_EQ(renderings, 711u);
  EXPECT_EQ(errors, 139u);
}

TEST(ChatTemplateTest, MaliciousTemplatesEndAtOnce) {
  size_t count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(NIBBLE_TEST_DATA) / "malformed")) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("chat-")) continue;
    SCOPED_TRACE(name + ": " + read_file(entry.path() / "why.txt"));
    ++count;
    const auto messages = parse_json(read_file(entry.path() / "messages.json"));
    ASSERT_TRUE(messages.has_value());
    const auto start = std::chrono::steady_clock::now();
    const auto chat = render_chat(read_file(entry.path() / "chat_template.jinja"), {{"messages", *messages}});
    // A tenth of this in an optimized build.
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
    if (name == "chat-attr-filter" || name == "chat-format-attack") {
      ASSERT_TRUE(chat.has_value()) << to_string(chat.error());
      EXPECT_EQ(chat->text, "");  // a private attribute is undefined, which prints as nothing
      continue;
    }
    ASSERT_FALSE(chat.has_value()) << chat->text.substr(0, 100);
    EXPECT_THAT(chat.error().where, HasSubstr("chat template line"));
    EXPECT_THAT(chat.error().fix, HasSubstr("--chat-template"));
  }
  EXPECT_EQ(count, 21u);
}

TEST(ChatTemplateTest, ErrorsNameTheLineOfTheTemplate) {
  EXPECT_EQ(
      render_text("a\nb\n{{ nothing.at_all }}"),
      "error: chat template line 3: 'nothing' is undefined\n  Use another template: --chat-template FILE.");
  EXPECT_THAT(render_text("\n{% if %}{% endif %}"),
              HasSubstr("chat template line 2: expected an expression"));
  EXPECT_THAT(render_text("{% if true %}\n"), HasSubstr("inside the if of line 1: endif is missing"));
}

TEST(ChatTemplateTest, RaiseExceptionIsTheMessageVerbatim) {
  const auto chat = render_chat("\n\n{{ raise_exception('Roles must {alternate}') }}", one_message("x"));
  ASSERT_FALSE(chat.has_value());
  EXPECT_EQ(chat.error().code, ErrorCode::kInvalidArgument) << "the request is wrong";
  EXPECT_EQ(chat.error().what, "Roles must {alternate}");
  EXPECT_EQ(chat.error().where, "chat template line 3");
  EXPECT_THAT(chat.error().fix, HasSubstr("change the messages"));
}

TEST(ChatTemplateTest, ATemplateThatFailsIsWrongData) {
  for (const char* source :
       {"{{ nothing }}x{{ nothing.more }}", "{{ 1 / 0 }}", "{{ 'x' | shoutify }}", "{{ fetch() }}",
        "{% if x is frobnicated %}{% endif %}", "{{ 'x' + 1 }}", "{{ 'x' * 10 ** 13 }}",
        "{{ messages.append(1) }}", "{% for i in range(10 ** 12) %}{% endfor %}"}) {
    const auto chat = render_chat(source, one_message("x"));
    ASSERT_FALSE(chat.has_value()) << source;
    EXPECT_EQ(chat.error().code, ErrorCode::kDataLoss) << source << ": " << to_string(chat.error());
  }
}

TEST(ChatTemplateTest, TheContextMustBeAnObject) {
  EXPECT_FALSE(render_chat("x", Json::array()).has_value());
}

TEST(ChatTemplateTest, MissingToolsAreNoneAndNotUndefined) {
  EXPECT_EQ(render_text("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}"),
            "True True False");
}

TEST(ChatTemplateTest, WhatTheUserWroteIsLiteral) {
  EXPECT_EQ(user_parts("{{ bos_token }}[{{ messages[0].content }}]{{ eos_token }}", "<s>"), "<s>");
  EXPECT_EQ(user_parts("<|{{ messages[0]['role'] }}|>", ""), "user");
  EXPECT_EQ(user_parts("{{ 'a' + messages[0].content + 'b' }}", "X"), "X");
  EXPECT_EQ(user_parts("{{ 'a' ~ messages[0].content ~ messages[0].content }}", "X"), "XX");
  EXPECT_EQ(user_parts("{% set c = 'a' ~ messages[0].content %}{{ c[0] }}{{ c[1:3] }}", "XYZ"), "XY");
  EXPECT_EQ(user_parts("{{ ('a' ~ messages[0].content)[::-1] }}", "XYZ"), "ZYX");
  EXPECT_EQ(user_parts("{{ messages[0].content | upper }}", "straße"), "STRASSE");
  EXPECT_EQ(user_parts("{{ (' ' ~ messages[0].content) | trim }}", " x "), "x");
  EXPECT_EQ(user_parts("{{ messages[0].content | replace('b', '<s>') }}", "abc"), "a|c");
  EXPECT_EQ(user_parts("{{ 'a-b' | replace('-', messages[0].content) }}", "<s>"), "<s>");
  EXPECT_EQ(user_parts("{{ [messages[0].content, 'x'] | join('+') }}", "A"), "A");
  EXPECT_EQ(user_parts("{{ 'x'.join(messages[0].content.split(' ')) }}", "a b"), "a|b");
  EXPECT_EQ(user_parts("{{ messages[0].content | tojson }}", "a\"<s>"), "a\\\"<s>");
  EXPECT_EQ(user_parts("{{ messages[0] | tojson }}", "X"), "role|user|content|X");
  EXPECT_EQ(user_parts("{{ [messages[0].content] }}", "it's"), "it's");
  EXPECT_EQ(user_parts("{{ '[%s]' % messages[0].content }}{{ '({:>3})'.format(messages[0].content) }}", "X"),
            "X|X");
  EXPECT_EQ(user_parts("{% set x %}a{{ messages[0].content }}{% endset %}{{ x | title }}", "bc"), "bc");
  EXPECT_EQ(user_parts("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(messages[0].content) }}", "X"), "X");
  EXPECT_EQ(user_parts("{% filter indent(1) %}a\n{{ messages[0].content }}{% endfilter %}", "b\nc"), "b|c");
  EXPECT_EQ(user_parts("{{ messages[0].content.partition('-') | join('=') }}", "a-b"), "a|-|b");
  EXPECT_EQ(user_parts("{% for c in messages[0].content %}{{ c }}.{% endfor %}", "é!"), "é|!");
  EXPECT_EQ(user_parts("{% for k in messages[0] %}{{ k }} {% endfor %}", ""), "role|content");
}

TEST(ChatTemplateTest, OtherKeysOfTheContextAreLiteralButTokensAreNot) {
  const auto chat = render_chat("{{ bos_token }}{{ system }}{{ extra_special_tokens[0] }}",
                                {{"bos_token", "<s>"}, {"system", "S"}, {"extra_special_tokens", {"<t>"}}});
  ASSERT_TRUE(chat.has_value()) << to_string(chat.error());
  EXPECT_EQ(chat->text, "<s>S<t>");
  EXPECT_THAT(chat->literal, ElementsAre(TextRange{3, 4}));
}

// Whatever the user writes is inside the literal ranges, and nothing else is.
RC_GTEST_PROP(ChatTemplateProperty, LiteralRangesAreExactlyTheContent, (const std::string& words)) {
  std::string content;
  for (const char c : words) content += static_cast<char>('A' + static_cast<unsigned char>(c) % 26);
  const std::string source =
      "{% for part in [messages[0].content, 'lower', messages[0].content[1:]] %}<{{ loop.index }}>"
      "{{ part ~ 'x' }}{{ (part + 'y') | replace('A', 'aa') | trim }}{{ part | tojson }}{% endfor %}";
  const auto chat = render_chat(source, one_message(content));
  RC_ASSERT(chat.has_value());
  std::string is_user(chat->text.size(), '\0');
  for (const TextRange& range : chat->literal) {
    for (size_t i = range.begin; i < range.end; ++i) is_user[i] = 1;
  }
  for (size_t i = 0; i < chat->text.size(); ++i) {
    const bool capital = chat->text[i] >= 'A' && chat->text[i] <= 'Z';
    RC_ASSERT(capital == (is_user[i] == 1));
  }
}

RC_GTEST_PROP(ChatTemplateProperty, AnySourceEndsInTextOrAnError, ()) {
  static const std::vector<std::string> kPieces = {
      "{{",   "}}",       "{%",        "%}",       "{#",      "#}",        "-",          "+",        "if ",
      "else", "endif",    "for x in ", "endfor",   "set ",    "endset",    "macro f(x)", "endmacro", "f(1)",
      "x",    "messages", "[0]",       ".content", "|",       "upper",     "'",          "\"",       "(",
      ")",    "[",        "]",         "{",        "}",       ":",         ",",          " ",        "\n",
      "1",    "2.5",      "*",         "**",       "//",      "%",         "~",          "==",       "<",
      "is ",  "not ",     "in ",       "defined",  "and ",    "raw",       "endraw",     "\\",       "é",
      "\xff", "range(9)", "loop",      "break",    "filter ", "endfilter", "call ",      "=",
  };
  std::string source;
  for (const size_t i :
       *rc::gen::container<std::vector<size_t>>(rc::gen::inRange<size_t>(0, kPieces.size()))) {
    source += kPieces[i];
  }
  ChatTemplateLimits limits;
  limits.max_steps = 10'000;
  limits.max_output_bytes = 10'000;
  const auto chat = render_chat(source, one_message("x"), limits);
  if (chat) {
    RC_ASSERT(chat->text.size() <= 10'000u);
  } else {
    RC_ASSERT(!chat.error().what.empty());
  }
}

TEST(ChatTemplateLimitsTest, EveryBudgetEndsInAnError) {
  ChatTemplateLimits small;
  small.max_steps = 1000;
  small.max_output_bytes = 1000;
  for (const std::string_view source : {
           "{% for a in range(9999) %}{% endfor %}",
           "{% for a in range(100) %}{% for b in range(100) %}x{% endfor %}{% endfor %}",
           "{{ 'x' * 1001 }}",
           "{{ 'x'.center(1001) }}",
           "{{ 'x'.ljust(99999999999999999999) }}",
           "{{ 'x'.zfill(99999999999999) }}",
           "{{ '%99999d' % 1 }}",
           "{{ '{:99999}'.format(1) }}",
           "{{ 'x' | indent(99999, true) }}",
           "{{ [1] * 99999999999 }}",
           "{{ ('x' * 900) | replace('x', 'yy') }}",
           "{{ ('x' * 900) | replace('', 'yy') }}",
           "{{ ['x' * 600, 'y' * 600] | join }}",
           "{{ ('x' * 600) ~ ('x' * 600) }}",
           "{{ [1] | batch(999999, 0) | list }}",
           "{{ [1] | slice(999999) | list }}",
           "{{ [[1, 2], [3]] | tojson(indent=900) }}",
           "{% set ns = namespace(x=[]) %}{% for i in range(300) %}{% set ns.x = [ns.x] %}{% endfor %}",
           "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
           "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
           "{{ 9 ** 99 ** 9 }}",
           "{{ -2 ** 99999999999 }}",
           "{{ 170141183460469231731687303715884105727 + 1 }}",
       }) {
    const auto chat = render_chat(source, one_message("x"), small);
    EXPECT_FALSE(chat.has_value()) << source << " gave " << chat->text.substr(0, 200);
  }
}

// Each would overflow the stack of an interpreter that follows it all the way down.
TEST(ChatTemplateLimitsTest, DeepNestingIsAnErrorAndNoCrash) {
  const auto repeated = [](std::string_view piece) {
    std::string out;
    for (int i = 0; i < 100'000; ++i) out += piece;
    return out;
  };
  for (const std::string& source :
       {"{{ " + repeated("("), "{{ " + repeated("["), "{{ " + repeated("{1:"), "{{ " + repeated("-") + "1 }}",
        "{{ " + repeated("not ") + "1 }}", "{{ 1" + repeated("|string") + " }}",
        "{{ x" + repeated(".a") + " }}", "{{ x" + repeated("[0]") + " }}", "{{ x" + repeated("()") + " }}",
        "{{ 1" + repeated(" is defined") + " }}", "{{ 1" + repeated(" if 1 else 1") + " }}",
        "{{ 1" + repeated(" if 1") + " }}", repeated("{% if 1 %}"), repeated("{% for x in y %}"),
        repeated("{% macro m() %}"), "{% set " + repeated("(") + " %}", "{% for " + repeated("(") + " %}"}) {
    const auto parsed = ChatTemplate::parse(source);
    EXPECT_FALSE(parsed.has_value()) << source.substr(0, 30);
  }
  EXPECT_THAT(render_text("{{ 'a' | map('map'" + repeated(", 'map'") + ") | list }}"),
              HasSubstr("generator"));
  const std::string sum = "{{ 1" + repeated(" + 1") + " }}";
  EXPECT_EQ(render_text(sum), "100001");  // a chain is not nested
}

TEST(ChatTemplateLimitsTest, DeepContextIsAnError) {
  Json deep = 1;
  for (int i = 0; i < 400; ++i) deep = Json::array({deep});
  EXPECT_FALSE(render_chat("{{ x }}", {{"x", deep}}).has_value());
}

TEST(ChatTemplateLimitsTest, TheTemplateCannotChangeWhatItIsGiven) {
  for (const std::string_view method :
       {"append(1)", "pop()", "clear()", "sort()", "extend([1])", "insert(0, 1)"}) {
    EXPECT_THAT(render_text("{{ messages." + std::string(method) + " }}"), HasSubstr("is unsafe"));
  }
  EXPECT_THAT(render_text("{{ messages[0].update({}) }}"), HasSubstr("is unsafe"));
  EXPECT_THAT(render_text("{{ namespace(__init__=1) }}"), HasSubstr("private"));
  EXPECT_THAT(render_text("{{ ''['__class__'].x }}"), HasSubstr("unsafe"));
}

}  // namespace
}  // namespace nibble
