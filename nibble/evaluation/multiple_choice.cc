#include "nibble/evaluation/multiple_choice.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "nibble/base/arena.h"
#include "nibble/base/cancel.h"
#include "nibble/base/progress.h"
#include "nibble/evaluation/token_scores.h"
#include "nibble/nn/kv_cache.h"

namespace nibble {
namespace {

Expected<Question> parse_question(std::string_view line) {
  const auto wrong = [](std::string_view what) {
    return fail(ErrorCode::kInvalidArgument, "{}", what)
        .with_fix(R"(A line is {"prompt": "The sky is", "choices": ["blue", "square"], "answer": 0}.)");
  };
  NIBBLE_TRY(const Json json, parse_json(line));
  if (!json.is_object()) return wrong("not an object");
  const Json prompt = json.value("prompt", Json());
  const Json choices = json.value("choices", Json());
  const Json answer = json.value("answer", Json());
  if (!prompt.is_string() || prompt.get_ref<const std::string&>().empty()) return wrong("no text \"prompt\"");
  if (!choices.is_array() || choices.size() < 2) return wrong("\"choices\" must be a list of two or more");
  if (!answer.is_number_unsigned() || answer.get<size_t>() >= choices.size()) {
    return wrong("\"answer\" must be the number of a choice, counted from 0");
  }
  Question question;
  question.prompt = prompt.get<std::string>();
  question.answer = answer.get<size_t>();
  for (const Json& choice : choices) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
      return wrong("every choice must be a text");
    }
    question.choices.push_back(choice.get<std::string>());
  }
  return question;
}

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t'; }

// Prompt and continuation as tokens. Spaces at the end of the prompt belong to the continuation, as tokens
// begin with theirs; what the whole has more than the prompt alone is the continuation.
struct EncodedPair {
  std::vector<int32_t> tokens;
  size_t prompt = 0;  // tokens of it
};

Expected<EncodedPair> encode_pair(const Tokenizer& tokenizer, const std::string& prompt,
                                  const std::string& choice) {
  const bool has_space = is_space(prompt.back()) || is_space(choice.front());
  const std::string whole = prompt + (has_space ? "" : " ") + choice;
  size_t end = prompt.size();
  while (end > 0 && is_space(prompt[end - 1])) --end;
  NIBBLE_TRY(Encoding both, tokenizer.encode(whole));
  NIBBLE_TRY(const Encoding alone, tokenizer.encode(std::string_view(prompt).substr(0, end)));
  // At least the last token is scored, and at least one is there to score it by.
  const size_t most = both.ids.empty() ? 0 : both.ids.size() - 1;
  return EncodedPair{std::move(both.ids), std::min(alone.ids.size(), most)};
}

// Sum of log-probabilities of the continuation.
Expected<double> continuation_log_probability(const CausalLM& model, const EncodedPair& pair,
                                              ExecutionContext& context) {
  if (pair.prompt == 0)
    return fail(ErrorCode::kInvalidArgument, "prompt and choice make less than two tokens");
  const size_t count = pair.tokens.size() - 1;
  const size_t scored = pair.tokens.size() - pair.prompt;
  const Arena::Scope scope(context.arena);
  const MatrixView<float> logits = context.arena.take_matrix(scored, model.config().vocab_size);
  const auto cache = model.make_cache(count);
  const SequenceChunk chunk = {std::span(pair.tokens).first(count), cache.get(), scored, count};
  NIBBLE_RETURN_IF_ERROR(model.forward({&chunk, 1}, logits, context));
  TokenScores scores;
  scores.resize(scored, false);
  double sum = 0.0;
  for (size_t i = 0; i < scored; ++i) {
    score_token(logits.row_span(i), {}, pair.tokens[pair.prompt + i], i, scores);
    sum -= scores.nll[i];
  }
  return sum;
}

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

Expected<ChoiceScore> answer_question(const CausalLM& model, const Tokenizer& tokenizer,
                                      const Question& question, ExecutionContext& context) {
  ChoiceScore score;
  double best = -std::numeric_limits<double>::infinity();
  double best_normalized = best;
  for (size_t i = 0; i < question.choices.size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(check_cancelled());
    NIBBLE_TRY(const EncodedPair pair, encode_pair(tokenizer, question.prompt, question.choices[i]));
    NIBBLE_TRY(const double sum, continuation_log_probability(model, pair, context));
    const double normalized = sum / static_cast<double>(characters(question.choices[i]));
    if (sum > best) {
      best = sum;
      score.likeliest = i;
    }
    if (normalized > best_normalized) {
      best_normalized = normalized;
      score.likeliest_normalized = i;
    }
  }
  return score;
}

}  // namespace

Expected<std::vector<Question>> parse_questions(std::string_view jsonl, std::string_view name) {
  std::vector<Question> questions;
  for (size_t number = 1; !jsonl.empty(); ++number) {
    const size_t end = std::min(jsonl.find('\n'), jsonl.size());
    const std::string_view line = jsonl.substr(0, end);
    jsonl.remove_prefix(std::min(end + 1, jsonl.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    NIBBLE_TRY(Question question, at(fmt::format("{}: line {}", name, number), parse_question(line)));
    questions.push_back(std::move(question));
  }
  if (questions.empty()) return fail(ErrorCode::kInvalidArgument, "no questions").at(name);
  return questions;
}

Expected<ChoiceResult> answer_questions(const CausalLM& model, const Tokenizer& tokenizer,
                                        const std::vector<Question>& questions, double confidence,
                                        const std::string& what, ThreadPool& pool) {
  Arena arena;
  ExecutionContext context{pool, arena};
  Progress progress(what, questions.size(), "questions");
  ChoiceResult result;
  size_t right = 0;
  size_t right_normalized = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    NIBBLE_TRY(const ChoiceScore score, at(fmt::format("question {}", i + 1),
                                           answer_question(model, tokenizer, questions[i], context)));
    right += score.likeliest == questions[i].answer ? 1 : 0;
    right_normalized += score.likeliest_normalized == questions[i].answer ? 1 : 0;
    result.questions.push_back(score);
    progress.advance();
  }
  result.acc = proportion_interval(right, questions.size(), confidence);
  result.acc_norm = proportion_interval(right_normalized, questions.size(), confidence);
  return result;
}

Json to_json(const ChoiceResult& result) {
  return {{"questions", result.questions.size()},
          {"acc", to_json(result.acc)},
          {"acc_norm", to_json(result.acc_norm)}};
}

}  // namespace nibble
