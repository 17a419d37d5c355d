#include "nibble/calibration/dataset.h"

#include <algorithm>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/base/tensor.h"
#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/test_folder.h"
#include "nibble/tokenizer/unicode.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr size_t kVocabSize = 2048;

const Tokenizer& tiny_llama() {
  static const Tokenizer tokenizer =
      AutoTokenizer::from_pretrained(test::model_folder("tiny-llama").value().string()).value();
  return tokenizer;
}

Expected<CalibrationData> load(const std::vector<DataSource>& sources, const DatasetOptions& options) {
  return load_calibration_data(sources, options, &tiny_llama(), nullptr, kVocabSize);
}

std::string failure(const Expected<CalibrationData>& data) {
  if (data) return "(loaded)";
  EXPECT_EQ(data.error().code, ErrorCode::kInvalidArgument);
  return to_string(data.error());
}

std::vector<int32_t> tokens_of(std::string_view text) { return tiny_llama().encode(text).value().ids; }

// A text of `words` different words.
std::string words(size_t count, size_t first = 0) {
  std::string text;
  for (size_t k = first; k < first + count; ++k) text += fmt::format("word {} ", k);
  return text;
}

std::string text_line(std::string_view text) { return Json{{"text", text}}.dump() + "\n"; }

void write_tokens(const std::filesystem::path& path, std::map<std::string, Tensor> tensors) {
  const Status written = write_safetensors(path, tensors);
  ASSERT_TRUE(written) << to_string(written.error());
}

// --- --dataset -----------------------------------------------------------------------------------

std::string refusal_of(std::string_view text) {
  const auto sources = parse_dataset(text);
  if (sources) return "(parsed)";
  EXPECT_EQ(sources.error().code, ErrorCode::kInvalidArgument);
  return to_string(sources.error());
}

TEST(ParseDataset, FilesAndTheirShares) {
  const auto sources = parse_dataset("a.jsonl,b/c.txt:num=64,default,default:num=1");
  ASSERT_TRUE(sources) << to_string(sources.error());
  ASSERT_THAT(*sources, SizeIs(4));
  EXPECT_EQ(sources->at(0).path, "a.jsonl");
  EXPECT_FALSE(sources->at(0).num_samples);
  EXPECT_EQ(sources->at(1).path, "b/c.txt");
  EXPECT_EQ(sources->at(1).num_samples, 64u);
  EXPECT_TRUE(sources->at(2).path.empty());
  EXPECT_TRUE(sources->at(3).path.empty());
  EXPECT_EQ(sources->at(3).num_samples, 1u);
}

TEST(ParseDataset, ColonsMayBelongToTheName) {
  EXPECT_EQ(parse_dataset("a:b.txt")->at(0).path, "a:b.txt");
  EXPECT_EQ(parse_dataset("12:30=x.txt")->at(0).path, "12:30=x.txt");
  const auto both = parse_dataset("a:b.txt:num=3");
  EXPECT_EQ(both->at(0).path, "a:b.txt");
  EXPECT_EQ(both->at(0).num_samples, 3u);
}

TEST(ParseDataset, WhatIsWrongIsNamed) {
  EXPECT_THAT(refusal_of(""), HasSubstr("the name of a file is missing"));
  EXPECT_THAT(refusal_of("a.txt,"), HasSubstr("the name of a file is missing"));
  EXPECT_THAT(refusal_of("a.txt,,b.txt"), HasSubstr("the name of a file is missing"));
  EXPECT_THAT(refusal_of("a.txt,:num=3"), HasSubstr("\":num=3\": the name of a file is missing"));
  EXPECT_THAT(refusal_of("a.txt:count=3"), HasSubstr("\"a.txt:count=3\": there is no option count"));
  for (const char* number : {"", "0", "-1", "1.5", "3x", "99999999999999999999999"}) {
    EXPECT_THAT(refusal_of(fmt::format("b.txt,a.txt:num={}", number)),
                HasSubstr(fmt::format("\"a.txt:num={}\": num must be a whole number from 1", number)));
  }
}

// --- Shares --------------------------------------------------------------------------------------

TEST(CalibrationShares, WhatIsNotGivenAwayIsDividedEqually) {
  const TestFolder folder;
  std::vector<std::vector<int32_t>> texts;
  std::vector<DataSource> sources;
  for (const char* word : {"dog ", "cat ", "tree "}) {
    std::string text;
    for (int k = 0; k < 500; ++k) text += word;
    sources.push_back({folder.add(std::string(word) + ".txt", text), {}});
    texts.push_back(tokens_of(text));
  }
  sources[1].num_samples = 4;
  const auto data = load(sources, {.num_samples = 11, .sequence_length = 64});
  ASSERT_TRUE(data) << to_string(data.error());
  ASSERT_THAT(data->sequences, SizeIs(11));
  EXPECT_EQ(data->num_tokens(), 11u * 64);
  std::vector<size_t> counts(3);
  for (const auto& sequence : data->sequences) {
    for (size_t t = 0; t < 3; ++t) {
      const auto found = std::search(texts[t].begin(), texts[t].end(), sequence.begin(), sequence.end());
      counts[t] += found != texts[t].end();
    }
  }
  EXPECT_THAT(counts, ElementsAre(4, 4, 3));
}

TEST(CalibrationShares, FilesThatWouldGetNothingAreAnError) {
  const TestFolder folder;
  const auto a = folder.add("a.txt", words(2000));
  EXPECT_THAT(failure(load({{a, 8}, {a, {}}}, {.num_samples = 8, .sequence_length = 64})),
              HasSubstr("8 sequences in all, 8 of them given away with num=, leave none for the other file"));
  EXPECT_THAT(failure(load({{a, 7}, {a, {}}, {a, {}}}, {.num_samples = 8, .sequence_length = 64})),
              HasSubstr("leave 1 for the 2 other files"));
  const auto more = load({{a, 9}}, {.num_samples = 8, .sequence_length = 64});
  ASSERT_TRUE(more) << to_string(more.error());
  EXPECT_THAT(more->sequences, SizeIs(9));
}

// --- Plain text ----------------------------------------------------------------------------------

TEST(CalibrationText, IsCutAtPlacesThatTheSeedDecides) {
  const TestFolder folder;
  const std::string text = words(3000);
  const auto path = folder.add("a.txt", text);
  const DatasetOptions options{.num_samples = 8, .sequence_length = 128, .seed = 5};
  const auto data = load({{path, {}}}, options);
  ASSERT_TRUE(data) << to_string(data.error());
  const std::vector<int32_t> tokens = tokens_of(text);
  ASSERT_THAT(data->sequences, SizeIs(8));
  for (const auto& sequence : data->sequences) {
    ASSERT_THAT(sequence, SizeIs(128));
    EXPECT_NE(std::search(tokens.begin(), tokens.end(), sequence.begin(), sequence.end()), tokens.end());
  }
  EXPECT_NE(data->sequences[0], data->sequences[1]);

  const auto again = load({{path, {}}}, options);
  EXPECT_EQ(again->sequences, data->sequences);
  EXPECT_EQ(again->sha256, data->sha256);
  const auto other = load({{path, {}}}, {.num_samples = 8, .sequence_length = 128, .seed = 6});
  EXPECT_NE(other->sequences, data->sequences);
  EXPECT_NE(other->sha256, data->sha256);
}

TEST(CalibrationText, EveryPlaceCanBeTheBeginning) {
  const TestFolder folder;
  const std::string text = words(4);
  const std::vector<int32_t> tokens = tokens_of(text);
  const size_t length = tokens.size() - 2;
  const auto data = load({{folder.add("a.txt", text), {}}}, {.num_samples = 64, .sequence_length = length});
  ASSERT_TRUE(data) << to_string(data.error());
  for (size_t begin = 0; begin <= 2; ++begin) {
    const auto first = tokens.begin() + static_cast<ptrdiff_t>(begin);
    const std::vector<int32_t> window(first, first + static_cast<ptrdiff_t>(length));
    EXPECT_THAT(data->sequences, testing::Contains(window)) << begin;
  }
  EXPECT_THAT(data->warnings, testing::Contains(HasSubstr("repeat parts of a text of only")));
}

TEST(CalibrationText, AShortTextIsOneSequenceWithAWarning) {
  const TestFolder folder;
  const auto path = folder.add("a.txt", "Two dogs ran home.");
  const auto data = load({{path, {}}}, {.num_samples = 4, .sequence_length = 512});
  ASSERT_TRUE(data) << to_string(data.error());
  EXPECT_THAT(data->sequences, ElementsAre(tokens_of("Two dogs ran home.")));
  ASSERT_THAT(data->warnings, SizeIs(2));
  EXPECT_EQ(data->warnings[0], path.string() + ": only 1 of 4 sequences, since there is no more data");
  EXPECT_THAT(data->warnings[1], HasSubstr("tokens of calibration data are few"));
}

TEST(CalibrationText, NoTextIsAnError) {
  const TestFolder folder;
  const auto refusal = [&](std::string_view text) {
    return failure(load({{folder.add("a.txt", text), {}}}, {}));
  };
  EXPECT_THAT(refusal(""), HasSubstr("a.txt: the file is empty"));
  EXPECT_THAT(refusal(" \n\n"), HasSubstr("a.txt: the file holds only white space"));
  EXPECT_THAT(refusal("a"), HasSubstr("a.txt: the text has 1 token, but a sequence needs 2"));
  EXPECT_THAT(refusal("caf\xE9 au lait"), HasSubstr("a.txt: the text is not UTF-8"));
  EXPECT_THAT(refusal(std::string_view("PK\x03\x04\x00\x00", 6)),
              HasSubstr("a.txt: byte 4 is 0: this is no text"));
  EXPECT_THAT(failure(load({{folder.add("b.jsonl", "\n"), {}}}, {})), HasSubstr("only white space"));
  EXPECT_THAT(failure(load({}, {})), HasSubstr("no calibration data: no file is given"));
  EXPECT_THAT(failure(load({{folder / "a.txt", {}}}, {.sequence_length = 1})), HasSubstr("2 are the least"));
  const auto missing = load({{folder / "c.txt", {}}}, {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  // One empty file among good ones is a mistake, too.
  const auto good = folder.add("good.txt", words(2000));
  EXPECT_THAT(failure(load({{good, {}}, {folder.add("d.txt", ""), {}}}, {})),
              HasSubstr("d.txt: the file is empty"));
}

TEST(CalibrationText, FewTokensAreCountedAgainstTheWidestInput) {
  const TestFolder folder;
  const auto path = folder.add("a.txt", words(3000));
  const auto warnings_for = [&](size_t width) {
    return load({{path, {}}}, {.num_samples = 4, .sequence_length = 256, .widest_in_features = width})
        ->warnings;
  };
  EXPECT_THAT(warnings_for(256), IsEmpty());
  EXPECT_THAT(warnings_for(257),
              ElementsAre("1024 tokens of calibration data are few: 1028 and more make better "
                          "weights (4 for each of 257 inputs)"));
  EXPECT_THAT(warnings_for(0), ElementsAre(HasSubstr("8192 and more")));
}

TEST(CalibrationText, ScriptsThatTheSamplesLackAreNamed) {
  const TestFolder folder;
  std::string lines;
  for (size_t k = 0; k < 40; ++k) lines += text_line(words(20, 100 * k));
  for (size_t k = 0; k < 2; ++k) lines += text_line("кот и собака живут в одном доме");
  const auto path = folder.add("a.jsonl", lines);
  // The seed passes over the Russian lines; a draw of all lines does not.
  const auto few = load({{path, {}}}, {.num_samples = 1, .sequence_length = 64, .seed = 1});
  ASSERT_TRUE(few) << to_string(few.error());
  EXPECT_THAT(few->warnings, testing::Contains(HasSubstr("a.jsonl: Cyrillic (")));
  const auto all = load({{path, {}}}, {.num_samples = 100, .sequence_length = 64, .seed = 1});
  ASSERT_TRUE(all) << to_string(all.error());
  EXPECT_THAT(all->warnings, testing::Not(testing::Contains(HasSubstr("Cyrillic"))));
}

TEST(CalibrationText, TextThatTheTokenizerSpellsInBytesIsNamed) {
  const TestFolder folder;
  std::string text;
  for (int k = 0; k < 200; ++k) text += "猫と犬は家にいる。";
  const auto data = load({{folder.add("a.txt", text), {}}}, {.num_samples = 4, .sequence_length = 64});
  ASSERT_TRUE(data) << to_string(data.error());
  EXPECT_THAT(data->warnings,
              testing::Contains(testing::ContainsRegex(
                  "a.txt: [0-9]+ % of the tokens are single bytes or unknown: the data may")));
}

TEST(CalibrationText, NeedsATokenizerOfTheModel) {
  const TestFolder folder;
  const auto path = folder.add("a.txt", words(100));
  EXPECT_THAT(failure(load_calibration_data({{path, {}}}, {}, nullptr, nullptr, kVocabSize)),
              HasSubstr("text needs a tokenizer"));
  EXPECT_THAT(failure(load_calibration_data({{path, {}}}, {}, &tiny_llama(), nullptr, 20)),
              HasSubstr("is outside the model's vocabulary of 20"));
}

TEST(CalibrationText, TheBuiltInTextIsThereAndEnough) {
  const std::string_view text = default_calibration_text();
  EXPECT_GT(text.size(), 250'000u);
  EXPECT_LT(text.size(), 400'000u);
  EXPECT_TRUE(is_valid_utf8(text));
  EXPECT_EQ(text.find("<|"), std::string_view::npos);
  EXPECT_EQ(text.back(), '\n');
  const auto data = load({{{}, {}}}, {.num_samples = 16, .sequence_length = 1024});
  ASSERT_TRUE(data) << to_string(data.error());
  EXPECT_THAT(data->sequences, SizeIs(16));
  EXPECT_EQ(data->num_tokens(), 16u * 1024);
  EXPECT_THAT(data->warnings, IsEmpty());
}

// --- JSONL ---------------------------------------------------------------------------------------

TEST(CalibrationJsonl, ShortLinesArePackedAndLongOnesCut) {
  const TestFolder folder;
  std::string lines;
  std::vector<std::vector<int32_t>> samples;
  for (size_t k = 0; k < 12; ++k) {
    const std::string text = words(4 + k % 3, 100 * k);
    lines += text_line(text);
    samples.push_back(tokens_of(text));
  }
  const std::string long_text = words(200, 5000);
  lines += text_line(long_text);
  const auto path = folder.add("a.jsonl", lines);
  const auto data = load({{path, {}}}, {.num_samples = 64, .sequence_length = 100});
  ASSERT_TRUE(data) << to_string(data.error());
  EXPECT_LT(data->sequences.size(), 10u);
  std::vector<int32_t> all;
  for (const auto& sequence : data->sequences) {
    EXPECT_LE(sequence.size(), 100u);
    EXPECT_GT(sequence.size(), 25u);
    all.insert(all.end(), sequence.begin(), sequence.end());
  }
  // Every line is there, as a whole.
  size_t total = 100;
  for (const auto& sample : samples) {
    EXPECT_NE(std::search(all.begin(), all.end(), sample.begin(), sample.end()), all.end());
    total += sample.size();
  }
  EXPECT_EQ(all.size(), total);
  auto cut = tokens_of(long_text);
  cut.resize(100);
  EXPECT_THAT(data->sequences, testing::Contains(cut));
}

TEST(CalibrationJsonl, TheSeedDecidesWhichLines) {
  const TestFolder folder;
  std::string lines;
  for (size_t k = 0; k < 50; ++k) lines += text_line(words(20, 100 * k));
  const auto path = folder.add("a.jsonl", lines);
  const auto with_seed = [&](uint64_t seed) {
    return load({{path, {}}}, {.num_samples = 5, .sequence_length = 50, .seed = seed}).value();
  };
  EXPECT_THAT(with_seed(1).sequences, SizeIs(5));
  EXPECT_EQ(with_seed(1).sha256, with_seed(1).sha256);
  EXPECT_NE(with_seed(1).sha256, with_seed(2).sha256);
}

TEST(CalibrationJsonl, LinesOfAtMostTenTokensAreDropped) {
  const TestFolder folder;
  const auto path =
      folder.add("a.jsonl", text_line("Hi.") + "\n  \r\n" + text_line(words(20)) + text_line(""));
  const auto data = load({{path, {}}}, {.num_samples = 1, .sequence_length = 512});
  ASSERT_TRUE(data) << to_string(data.error());
  EXPECT_THAT(data->sequences, ElementsAre(tokens_of(words(20))));
  EXPECT_THAT(data->warnings[0], HasSubstr("2 samples of at most 10 tokens were left out"));
  EXPECT_THAT(failure(load({{folder.add("b.jsonl", text_line("Hi.")), {}}}, {})),
              HasSubstr("1 samples of at most 10 tokens were left out"));
}

TEST(CalibrationJsonl, MessagesGoThroughTheChatTemplate) {
  const TestFolder folder;
  const Json messages = {{{"role", "user"}, {"content", "Tell me a story about <|im_end|> and a dog."}},
                         {{"role", "assistant"}, {"content", "Once there was a dog who could not sleep."}}};
  const auto path = folder.add("a.jsonl", Json{{"messages", messages}}.dump());
  const DatasetOptions options{.num_samples = 1, .sequence_length = 512};
  const auto data = load({{path, {}}}, options);
  ASSERT_TRUE(data) << to_string(data.error());
  ASSERT_THAT(data->sequences, SizeIs(1));
  EXPECT_EQ(tiny_llama().decode(data->sequences[0]),
            "<|im_start|>user\nTell me a story about <|im_end|> and a dog.<|im_end|>\n"
            "<|im_start|>assistant\nOnce there was a dog who could not sleep.<|im_end|>\n");
  // What a message says stays text.
  const auto end = tiny_llama().token_to_id("<|im_end|>");
  ASSERT_TRUE(end);
  EXPECT_EQ(std::count(data->sequences[0].begin(), data->sequences[0].end(), *end), 2);

  const auto own = ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}] {{ m.content }} {{ eos_token }}{% endfor %}");
  ASSERT_TRUE(own) << to_string(own.error());
  const auto other = load_calibration_data({{path, {}}}, options, &tiny_llama(), &*own, kVocabSize);
  ASSERT_TRUE(other) << to_string(other.error());
  EXPECT_THAT(tiny_llama().decode(other->sequences[0]), testing::StartsWith("[user] Tell me a story"));
}

TEST(CalibrationJsonl, BrokenLinesAreNamedByTheirNumber) {
  const TestFolder folder;
  const auto with_line = [&](std::string_view line) {
    const auto path = folder.add("a.jsonl", text_line(words(20)) + "\n" + std::string(line) + "\n");
    const auto data = load({{path, {}}}, {});
    return data ? std::string("(loaded)") : to_string(data.error());
  };
  EXPECT_THAT(with_line("{\"text\": \"cut"), HasSubstr("a.jsonl: line 3"));
  EXPECT_THAT(with_line("{\"text\": \"cut"), HasSubstr("\n  Each line is an object: "));
  EXPECT_THAT(with_line("[1, 2]"), HasSubstr("a.jsonl: line 3: the line is a list, but must be an object"));
  EXPECT_THAT(with_line("{\"prompt\": \"x\"}"), HasSubstr("neither a \"text\" (a string) nor \"messages\""));
  EXPECT_THAT(with_line("{\"text\": 7}"), HasSubstr("neither a \"text\" (a string) nor \"messages\""));
  EXPECT_THAT(with_line("{\"messages\": \"x\"}"), HasSubstr("messages is a string, but must be a list"));
  EXPECT_THAT(with_line("{\"messages\": []}"), HasSubstr("a.jsonl: line 3"));
}

// --- Token files ---------------------------------------------------------------------------------

TEST(CalibrationTokens, AreTakenAsTheyAre) {
  const TestFolder folder;
  const auto narrow = folder / "a.safetensors";
  const auto wide = folder / "b.safetensors";
  write_tokens(narrow,
               {{"input_ids", Tensor::of(DType::kI32, {3, 2}, std::vector<int32_t>{5, 6, 7, 8, 9, 2047})}});
  write_tokens(wide,
               {{"input_ids", Tensor::of(DType::kI64, {2, 3}, std::vector<int64_t>{1, 2, 3, 4, 5, 6})}});
  const auto data = load_calibration_data({{narrow, 3}, {wide, 2}}, {}, nullptr, nullptr, kVocabSize);
  ASSERT_TRUE(data) << to_string(data.error());
  EXPECT_THAT(data->sequences, ElementsAre(ElementsAre(5, 6), ElementsAre(7, 8), ElementsAre(9, 2047),
                                           ElementsAre(1, 2, 3), ElementsAre(4, 5, 6)));
  EXPECT_EQ(data->num_tokens(), 12u);
  EXPECT_THAT(data->sha256, SizeIs(64));
  const auto first = load_calibration_data({{narrow, 1}}, {}, nullptr, nullptr, kVocabSize);
  EXPECT_THAT(first->sequences, ElementsAre(ElementsAre(5, 6)));
}

TEST(CalibrationTokens, TheMaskTakesPaddingAway) {
  const TestFolder folder;
  const auto path = folder / "a.safetensors";
  const std::vector<int32_t> ids = {-100, 4, 5, 6, 7, 8, 9, 0, 1, 0, 0, 0};
  for (const DType dtype : {DType::kI64, DType::kBool}) {
    const std::vector<int64_t> mask = {0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0};
    write_tokens(path, {{"input_ids", Tensor::of(DType::kI32, {3, 4}, ids)},
                        {"attention_mask",
                         dtype == DType::kI64
                             ? Tensor::of(dtype, {3, 4}, mask)
                             : Tensor::of(dtype, {3, 4}, std::vector<uint8_t>(mask.begin(), mask.end()))}});
    const auto data =
        load_calibration_data({{path, 3}}, {.sequence_length = 3}, nullptr, nullptr, kVocabSize);
    ASSERT_TRUE(data) << to_string(data.error());
    EXPECT_THAT(data->sequences, ElementsAre(ElementsAre(4, 5, 6), ElementsAre(7, 8, 9)));
    EXPECT_THAT(data->warnings[0], HasSubstr("1 samples of less than 2 tokens were left out"));
  }
}

TEST(CalibrationTokens, RowsThatAreTooLongAreCut) {
  const TestFolder folder;
  const auto path = folder / "a.safetensors";
  write_tokens(path, {{"input_ids", Tensor::of(DType::kI32, {1, 5}, std::vector<int32_t>{1, 2, 3, 4, 5})}});
  const auto data = load_calibration_data({{path, 1}}, {.sequence_length = 3}, nullptr, nullptr, kVocabSize);
  ASSERT_TRUE(data) << to_string(data.error());
  EXPECT_THAT(data->sequences, ElementsAre(ElementsAre(1, 2, 3)));
  EXPECT_THAT(data->warnings[0], HasSubstr("1 samples were cut to 3 tokens"));
}

TEST(CalibrationTokens, OfAnotherTokenizerAreRefused) {
  const TestFolder folder;
  const auto path = folder / "a.safetensors";
  const int64_t too_large = int64_t{std::numeric_limits<int32_t>::max()} + 6;
  for (const int64_t foreign : {int64_t{2048}, int64_t{-1}, too_large}) {
    write_tokens(path,
                 {{"input_ids", Tensor::of(DType::kI64, {2, 2}, std::vector<int64_t>{1, 2, 3, foreign})}});
    const std::string message = failure(load({{path, {}}}, {}));
    EXPECT_THAT(message, HasSubstr("a.safetensors: input_ids row 1: token "));
    EXPECT_THAT(message, HasSubstr("is outside the model's vocabulary of 2048"));
    EXPECT_THAT(message, HasSubstr("made by the tokenizer of another model"));
  }
}

TEST(CalibrationTokens, MustHaveTheRightTensors) {
  const TestFolder folder;
  const auto path = folder / "a.safetensors";
  const Tensor row = Tensor::of(DType::kI32, {4}, std::vector<int32_t>{1, 2, 3, 4});
  const Tensor rows = Tensor::of(DType::kI32, {2, 2}, std::vector<int32_t>{1, 2, 3, 4});
  write_tokens(path, {{"ids", rows}});
  EXPECT_THAT(failure(load({{path, {}}}, {})), HasSubstr("there is no input_ids"));
  write_tokens(path, {{"input_ids", row}});
  EXPECT_THAT(failure(load({{path, {}}}, {})), HasSubstr("shape [4], but must be [samples, length]"));
  write_tokens(path, {{"input_ids", Tensor::of(DType::kF32, {2, 2}, std::vector<float>{1, 2, 3, 4})}});
  EXPECT_THAT(failure(load({{path, {}}}, {})), HasSubstr("elements are F32, but must be I32 or I64"));
  write_tokens(path, {{"input_ids", rows},
                      {"attention_mask", Tensor::of(DType::kI32, {1, 2}, std::vector<int32_t>{1, 1})}});
  EXPECT_THAT(failure(load({{path, {}}}, {})), HasSubstr("shape [1, 2] beside input_ids [2, 2]"));
  write_tokens(path, {{"input_ids", Tensor::of(DType::kI32, {0, 2}, std::vector<int32_t>{})}});
  EXPECT_THAT(failure(load({{path, {}}}, {})), HasSubstr("no calibration data"));
}

TEST(CalibrationData, TheDigestTellsSequencesApart) {
  const TestFolder folder;
  const auto digest = [&](Shape shape, std::vector<int32_t> ids) {
    const auto path = folder / "a.safetensors";
    write_tokens(path, {{"input_ids", Tensor::of(DType::kI32, std::move(shape), std::move(ids))}});
    return load_calibration_data({{path, {}}}, {}, nullptr, nullptr, kVocabSize).value().sha256;
  };
  const std::string two = digest({2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(two, digest({2, 2}, {1, 2, 3, 4}));
  EXPECT_NE(two, digest({1, 4}, {1, 2, 3, 4}));
  EXPECT_NE(two, digest({2, 2}, {3, 4, 1, 2}));
}

}  // namespace
}  // namespace nibble
