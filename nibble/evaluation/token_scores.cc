#include "nibble/evaluation/token_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "nibble/checkpoint/checkpoint_writer.h"
#include "nibble/checkpoint/safetensors.h"
#include "nibble/pipeline/compare_logits.h"

namespace nibble {
namespace {

constexpr size_t kTop = 5;

// Indices of the largest logits, the first of equal ones first.
std::array<size_t, kTop> top_tokens(std::span<const float> logits) {
  std::array<size_t, kTop> top{};
  std::array<float, kTop> values;
  values.fill(-std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > values.back())) continue;
    size_t place = kTop - 1;
    for (; place > 0 && logits[i] > values[place - 1]; --place) {
      values[place] = values[place - 1];
      top[place] = top[place - 1];
    }
    values[place] = logits[i];
    top[place] = i;
  }
  return top;
}

float overlap(const std::array<size_t, kTop>& a, const std::array<size_t, kTop>& b) {
  const auto common = std::count_if(a.begin(), a.end(),
                                    [&](size_t token) { return std::count(b.begin(), b.end(), token) > 0; });
  return static_cast<float>(common) / kTop;
}

struct NamedScores {
  const char* name;
  std::vector<float> TokenScores::*values;
};

constexpr NamedScores kOfReference[] = {{"kl", &TokenScores::kl},
                                        {"delta_log", &TokenScores::delta_log},
                                        {"delta_prob", &TokenScores::delta_prob},
                                        {"same_top", &TokenScores::same_top},
                                        {"top5_overlap", &TokenScores::top5_overlap}};

}  // namespace

void TokenScores::resize(size_t positions, bool with_reference) {
  nll.resize(positions);
  for (const NamedScores& member : kOfReference)
    (this->*member.values).resize(with_reference ? positions : 0);
}

void score_token(std::span<const float> logits, std::span<const float> reference, int32_t next, size_t at,
                 TokenScores& scores) {
  const bool alone = reference.empty();
  LogitComparison comparison(static_cast<size_t>(next));
  comparison.add(alone ? logits : reference, logits, 0);
  scores.nll[at] = static_cast<float>(comparison.nll_q());
  if (alone) return;
  scores.kl[at] = static_cast<float>(comparison.kl());
  scores.delta_log[at] = static_cast<float>(comparison.nll_p() - comparison.nll_q());
  scores.delta_prob[at] = static_cast<float>(std::exp(-comparison.nll_q()) - std::exp(-comparison.nll_p()));
  scores.same_top[at] = comparison.same_top() ? 1.f : 0.f;
  scores.top5_overlap[at] = overlap(top_tokens(reference), top_tokens(logits));
}

Status save_scores(const TokenScores& scores, const std::filesystem::path& file) {
  std::map<std::string, Tensor> tensors;
  const auto put = [&](const char* name, const std::vector<float>& values) {
    tensors[name] = Tensor::of(DType::kF32, {values.size()}, std::vector<float>(values));
  };
  put("nll", scores.nll);
  if (scores.has_reference()) {
    for (const NamedScores& member : kOfReference) put(member.name, scores.*member.values);
  }
  return write_safetensors(file, tensors);
}

Expected<TokenScores> load_scores(const std::filesystem::path& file) {
  NIBBLE_TRY(const SafetensorsFile opened, at(file.string(), SafetensorsFile::open(file)));
  TokenScores scores;
  const auto get = [&](const char* name, std::vector<float>& values) -> Status {
    NIBBLE_TRY(const Tensor tensor, opened.tensor(name));
    if (tensor.dtype != DType::kF32 || (!scores.nll.empty() && tensor.size() != scores.nll.size())) {
      return fail(ErrorCode::kDataLoss, "{} has another type or length than it was written with", name);
    }
    values = copy_elements<float>(tensor);
    return {};
  };
  const auto load_all = [&]() -> Status {
    NIBBLE_RETURN_IF_ERROR(get("nll", scores.nll));
    if (!opened.header().tensors.contains("kl")) return {};
    for (const NamedScores& member : kOfReference) {
      NIBBLE_RETURN_IF_ERROR(get(member.name, scores.*member.values));
    }
    return {};
  };
  if (auto status = load_all(); !status) return Failure(std::move(status).error().at(file.string()));
  return scores;
}

}  // namespace nibble
