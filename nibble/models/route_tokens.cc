// route_tokens() of block_steps.h: which experts a token goes to, and with which weights.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "nibble/models/block_steps.h"

namespace nibble {
namespace {

float sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }

// Numbers [0, count) with the `first` of largest value in front, the smaller number where values are equal.
void sort_largest(std::span<const float> values, size_t first, std::span<size_t> order) {
  std::iota(order.begin(), order.end(), size_t{0});
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(first), order.end(),
      [&](size_t a, size_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
}

// Scratch for one token; `choice` decides, `scores` become weights.
struct Router {
  const DecoderSpec& spec;
  std::span<const float> correction;
  std::span<float> choice, group_scores;
  std::span<size_t> order, group_order;

  // Experts of the groups that are not taken are out of the choice.
  void leave_out_groups() const {
    const RouterRule& rule = spec.router;
    const size_t size = spec.num_experts / rule.num_groups;
    for (size_t g = 0; g < rule.num_groups; ++g) {
      const std::span<const float> group = choice.subspan(g * size, size);
      sort_largest(group, rule.group_rank, order.first(size));
      group_scores[g] = 0.f;
      for (size_t i = 0; i < rule.group_rank; ++i) group_scores[g] += group[order[i]];
    }
    sort_largest(group_scores, rule.groups_chosen, group_order);
    for (const size_t g : group_order.subspan(rule.groups_chosen)) {
      std::fill_n(choice.begin() + static_cast<ptrdiff_t>(g * size), size,
                  -std::numeric_limits<float>::infinity());
    }
  }

  void route(std::span<float> scores) const {
    const RouterRule& rule = spec.router;
    const size_t chosen = spec.experts_per_token;
    if (rule.sigmoid) {
      for (float& score : scores) score = sigmoid(score);
    }
    // The softmax keeps the order, so that its sum can wait.
    std::copy(scores.begin(), scores.end(), choice.begin());
    for (size_t e = 0; e < correction.size(); ++e) choice[e] += correction[e];
    const float largest = *std::max_element(scores.begin(), scores.end());
    if (rule.groups_chosen < rule.num_groups) leave_out_groups();
    sort_largest(choice, chosen, order);
    if (!rule.sigmoid) {
      for (float& score : scores) score = std::exp(score - largest);
    }
    float total = 0.f;
    if (rule.normalized) {
      for (const size_t e : order.first(chosen)) total += scores[e];
    } else if (!rule.sigmoid) {
      for (const float score : scores) total += score;
    } else {
      total = 1.f;
    }
    // A sum of sigmoids may be 0.
    const float factor = rule.scale / std::max(total, std::numeric_limits<float>::min());
    for (const size_t e : order.first(chosen)) scores[e] *= factor;
    for (const size_t e : order.subspan(chosen)) scores[e] = 0.f;
  }
};

}  // namespace

void route_tokens(const DecoderSpec& spec, std::span<const float> correction, MatrixView<float> scores,
                  ExecutionContext& context) {
  const Arena::Scope scope(context.arena);
  const size_t experts = spec.num_experts;
  const size_t groups = spec.router.num_groups;
  const Router router = {spec,
                         correction,
                         {context.arena.take<float>(experts), experts},
                         {context.arena.take<float>(groups), groups},
                         {context.arena.take<size_t>(experts), experts},
                         {context.arena.take<size_t>(groups), groups}};
  for (size_t r = 0; r < scores.rows(); ++r) {
    const std::span<float> row = scores.row_span(r);
    router.route(row.first(experts));
    if (row.size() == experts) continue;
    row[experts] = spec.names.block.shared_gate.empty() ? 1.f : sigmoid(row[experts]);
  }
}

}  // namespace nibble
