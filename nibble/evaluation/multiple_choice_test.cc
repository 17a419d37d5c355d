#include "nibble/evaluation/multiple_choice.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/arena.h"
#include "nibble/models/auto_model.h"
#include "nibble/nn/kv_cache.h"
#include "tests/support/fixtures.h"
#include "tests/support/logits.h"

namespace nibble {
namespace {

using testing::HasSubstr;

TEST(ParseQuestions, TheBuiltInOnesAreWellFormed) {
  const auto questions = parse_questions(default_questions(), "built-in");
  ASSERT_TRUE(questions) << to_string(questions.error());
  EXPECT_EQ(questions->size(), 24u);
}

TEST(ParseQuestions, ErrorsNameTheLine) {
  const std::string good = R"({"prompt": "a", "choices": ["b", "c"], "answer": 1})";
  const std::pair<std::string, const char*> cases[] = {
      {"", "no questions"},
      {good + "\n{", "file: line 2"},
      {R"({"choices": ["b", "c"], "answer": 1})", "no text \"prompt\""},
      {R"({"prompt": "a", "choices": ["b"], "answer": 0})", "two or more"},
      {R"({"prompt": "a", "choices": ["b", ""], "answer": 0})", "every choice must be a text"},
      {R"({"prompt": "a", "choices": ["b", "c"], "answer": 2})", "counted from 0"},
      {R"({"prompt": "a", "choices": ["b", "c"], "answer": -1})", "counted from 0"},
      {"[]", "not an object"}};
  for (const auto& [text, what] : cases) {
    const auto questions = parse_questions(text, "file");
    ASSERT_FALSE(questions) << text;
    EXPECT_THAT(to_string(questions.error()), HasSubstr(what)) << text;
  }
  EXPECT_EQ(parse_questions("\n" + good + "\r\n\n", "file").value().size(), 1u);
}

// The definition, token by token, from logits of the whole sequence.
TEST(AnswerQuestions, ScoresAreThoseOfTheContinuation) {
  ThreadPool pool;
  const auto folder = test::model_folder("tiny-llama", {.with_tokenizer = true}).value().string();
  FromPretrainedOptions options;
  options.compute = ComputeMode::kF32;
  const auto model = AutoModelForCausalLM::from_pretrained(folder, options, pool).value();
  const Tokenizer tokenizer = AutoTokenizer::from_pretrained(folder).value();
  const std::vector<Question> questions = {
      {"The history of the ", {"city", "a", "Roman Empire and of its many wars in the east"}, 0},
      {"He was born in", {"the year 1900", "qqqq zzzz", "London"}, 2}};
  const auto result = answer_questions(*model, tokenizer, questions, 0.95, "", pool);
  ASSERT_TRUE(result) << to_string(result.error());

  Arena arena;
  ExecutionContext context{pool, arena};
  const size_t vocab = model->config().vocab_size;
  for (size_t q = 0; q < questions.size(); ++q) {
    std::vector<double> sums;
    std::vector<double> normalized;
    for (const std::string& choice : questions[q].choices) {
      const std::string prompt = q == 0 ? "The history of the" : questions[q].prompt;
      const std::vector<int32_t> before = tokenizer.encode(prompt).value().ids;
      const std::vector<int32_t> all = tokenizer.encode(prompt + " " + choice).value().ids;
      const auto cache = model->make_cache(all.size());
      std::vector<float> logits(all.size() * vocab);
      const SequenceChunk chunk{all, cache.get(), all.size(), all.size()};
      ASSERT_TRUE(model->forward({&chunk, 1}, {logits.data(), all.size(), vocab}, context));
      double sum = 0;
      for (size_t i = before.size(); i < all.size(); ++i) {
        const std::span<const float> row = std::span(logits).subspan((i - 1) * vocab, vocab);
        sum += row[static_cast<size_t>(all[i])] - test::logsumexp(row);
      }
      sums.push_back(sum);
      normalized.push_back(sum / static_cast<double>(choice.size()));
    }
    const auto best = [](const std::vector<double>& v) {
      return static_cast<size_t>(std::max_element(v.begin(), v.end()) - v.begin());
    };
    EXPECT_EQ(result->questions[q].likeliest, best(sums));
    EXPECT_EQ(result->questions[q].likeliest_normalized, best(normalized));
  }
}

}  // namespace
}  // namespace nibble
