#ifndef NIBBLE_EVALUATION_MULTIPLE_CHOICE_H_
#define NIBBLE_EVALUATION_MULTIPLE_CHOICE_H_

// Questions with given answers, scored as lm-evaluation-harness scores multiple-choice tasks: the answer that
// the model finds most likely as the continuation of the prompt.

#include <string>
#include <string_view>
#include <vector>

#include "nibble/evaluation/statistics.h"
#include "nibble/models/causal_lm.h"
#include "nibble/tokenizer/tokenizer.h"

namespace nibble {

struct Question {
  std::string prompt;
  std::vector<std::string> choices;  // at least two
  size_t answer = 0;                 // index of the right one
};

// JSONL, one question a line: {"prompt": "The sky is", "choices": ["blue", "square"], "answer": 0}.
// A space is put between prompt and choice unless one of them has it. Errors name the line.
Expected<std::vector<Question>> parse_questions(std::string_view jsonl, std::string_view name);

// The questions inside the program (evaluation/questions.jsonl): an example, too few for a judgement.
std::string_view default_questions();

struct ChoiceScore {
  size_t likeliest = 0;             // by log-probability of the whole continuation (acc)
  size_t likeliest_normalized = 0;  // by that per character of the choice (acc_norm)
};

struct ChoiceResult {
  std::vector<ChoiceScore> questions;
  Interval acc, acc_norm;  // shares of right answers, with Wilson's interval
};

// The prompt is tokenized as the tokenizer does by itself, a BOS where it adds one. kInvalidArgument for a
// question that is longer than the model's context.
Expected<ChoiceResult> answer_questions(const CausalLM& model, const Tokenizer& tokenizer,
                                        const std::vector<Question>& questions, double confidence,
                                        const std::string& what, ThreadPool& pool);

Json to_json(const ChoiceResult& result);

}  // namespace nibble

#endif  // NIBBLE_EVALUATION_MULTIPLE_CHOICE_H_
