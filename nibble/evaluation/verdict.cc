#include "nibble/evaluation/verdict.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/ranges.h>

#include "nibble/base/memory.h"

namespace nibble {
namespace {

constexpr double kSeedSpread = 0.08;  // of KL: verdict.h
constexpr double kSignificant = 0.05;
constexpr double kUsableKl = 0.2;  // nats

struct NamedPreference {
  std::string_view name;
  Preference preference;
};
constexpr NamedPreference kPreferences[] = {{"balanced", Preference::kBalanced},
                                            {"quality", Preference::kQuality},
                                            {"speed", Preference::kSpeed},
                                            {"size", Preference::kSize}};

std::vector<std::string> broken_limits(const Contender& c, const Limits& limits) {
  std::vector<std::string> why;
  if (limits.max_memory > 0 && c.peak_memory && *c.peak_memory > static_cast<double>(limits.max_memory)) {
    why.push_back(fmt::format("needs {}, the limit is {}", human_bytes(static_cast<size_t>(*c.peak_memory)),
                              human_bytes(limits.max_memory)));
  }
  if (limits.min_speed > 0 && c.decode && *c.decode < limits.min_speed) {
    why.push_back(
        fmt::format("decodes {:.1f} tok/s, at least {:.1f} are wanted", *c.decode, limits.min_speed));
  }
  if (limits.max_kl > 0 && c.kl.value > limits.max_kl) {
    why.push_back(fmt::format("has a KL of {:.4f}, at most {:.4f} is wanted", c.kl.value, limits.max_kl));
  }
  return why;
}

using Indices = std::vector<size_t>;

// Those that are allowed, best first.
Indices rank(const std::vector<Contender>& all, const Indices& allowed, const Limits& limits,
             Preference preference) {
  const double most_kl = limits.max_kl > 0 ? limits.max_kl : kUsableKl;
  // Groups that come one after the other, and what decides inside them.
  const auto group = [&](size_t i) {
    if (all[i].is_reference) return 2;
    const bool by_quality = preference == Preference::kQuality || preference == Preference::kBalanced;
    return by_quality || all[i].kl.value <= most_kl ? 0 : 1;
  };
  const auto cost = [&](size_t i) {
    const Contender& c = all[i];
    if (preference == Preference::kSpeed) return -c.decode.value_or(0.0);
    if (preference == Preference::kSize) return static_cast<double>(c.disk_bytes);
    if (preference == Preference::kBalanced) return c.kl.value * std::exp2(2.0 * c.bits_per_weight);
    return c.kl.value;
  };
  Indices ranked = allowed;
  std::stable_sort(ranked.begin(), ranked.end(), [&](size_t a, size_t b) {
    if (group(a) != group(b)) return group(a) < group(b);
    const double cost_a = group(a) == 1 ? all[a].kl.value : cost(a);
    const double cost_b = group(b) == 1 ? all[b].kl.value : cost(b);
    return cost_a < cost_b;
  });
  return ranked;
}

std::string rate_text(double tokens_per_second) {
  return fmt::format("{:.{}f} tok/s", tokens_per_second, tokens_per_second < 100 ? 1 : 0);
}

const Contender* reference_of(const std::vector<Contender>& all) {
  const auto found = std::find_if(all.begin(), all.end(), [](const Contender& c) { return c.is_reference; });
  return found == all.end() ? nullptr : &*found;
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100.0 * share); }

std::vector<std::string> reasons_for(const std::vector<Contender>& all, const Indices& ranked,
                                     const Limits& limits) {
  const Contender& c = all[ranked.front()];
  std::vector<std::string> reasons;
  if (c.identical) {
    reasons.push_back("its predictions are identical to the reference's");
  } else if (!c.is_reference) {
    reasons.push_back(
        fmt::format("its predictions are {:.4f} nats from the reference's (KL), and it agrees on "
                    "the most likely token in {}",
                    c.kl.value, percent(c.top1_agreement)));
  }
  const Contender* const reference = reference_of(all);
  if (reference != nullptr && !c.is_reference && reference->disk_bytes > 0) {
    reasons.push_back(
        fmt::format("it takes {} on disk, {} of the reference", human_bytes(c.disk_bytes),
                    percent(static_cast<double>(c.disk_bytes) / static_cast<double>(reference->disk_bytes))));
    if (c.decode && reference->decode) {
      reasons.push_back(fmt::format("it decodes {}, {:.1f} times the reference", rate_text(*c.decode),
                                    *c.decode / *reference->decode));
    }
  }
  if (limits.prefer == Preference::kBalanced && ranked.size() > 1) {
    reasons.push_back("of all, it is closest to the reference for its size");
  }
  return reasons;
}

// What another preference would take, where it is not the same.
std::vector<std::string> other_choices(const std::vector<Contender>& all, const Indices& allowed,
                                       const Limits& limits, size_t choice) {
  std::vector<std::string> lines;
  for (const NamedPreference& other : kPreferences) {
    if (other.preference == limits.prefer) continue;
    const Indices ranked = rank(all, allowed, limits, other.preference);
    const Contender& c = all[ranked.front()];
    if (ranked.front() == choice) continue;
    std::string line = fmt::format("--prefer {} would take {}: KL {:.4f}, {}", other.name, c.label,
                                   c.kl.value, human_bytes(c.disk_bytes));
    if (c.decode) line += ", " + rate_text(*c.decode);
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string note_on_runner_up(const std::vector<Contender>& all, const std::vector<Pair>& pairs,
                              size_t choice, size_t second) {
  const Contender& c = all[second];
  if (c.is_reference || all[choice].is_reference) {
    return fmt::format("{} is next", c.label);
  }
  for (const Pair& pair : pairs) {
    const bool same_way = pair.a == choice && pair.b == second;
    if (!same_way && !(pair.a == second && pair.b == choice)) continue;
    switch (pair.finding) {
      case Finding::kIdentical:
        return fmt::format("{} makes identical predictions", c.label);
      case Finding::kNoDifference:
        // A small p with a small difference needs an explanation.
        return fmt::format(
            "{} is not significantly different in KL ({:.4f} and {:.4f}, p = {:.2g}{})", c.label, c.kl.value,
            all[choice].kl.value, pair.test.p_value,
            pair.test.p_value < kSignificant
                ? fmt::format("; other calibration text makes up to {:.0f} %", 100 * kSeedSpread)
                : "");
      default:
        return fmt::format("{} has {:.3g} times its KL, a significant difference (p = {:.2g})", c.label,
                           c.kl.value / all[choice].kl.value, pair.test.p_value);
    }
  }
  return fmt::format("{} is next", c.label);
}

}  // namespace

Expected<Preference> preference_from_name(std::string_view name) {
  for (const NamedPreference& known : kPreferences) {
    if (known.name == name) return known.preference;
  }
  return fail(ErrorCode::kInvalidArgument, "\"{}\" is no preference", name)
      .at("--prefer")
      .with_fix("It is balanced, quality, speed or size.");
}

std::string_view preference_name(Preference preference) {
  for (const NamedPreference& known : kPreferences) {
    if (known.preference == preference) return known.name;
  }
  return "";
}

std::string_view finding_name(Finding finding) {
  switch (finding) {
    case Finding::kIdentical:
      return "identical";
    case Finding::kNoDifference:
      return "no significant difference";
    case Finding::kFirstIsBetter:
      return "a is better";
    case Finding::kSecondIsBetter:
      return "b is better";
  }
  return "";
}

Finding judge(const PairedTest& test, double kl_a, double kl_b, double confidence) {
  const double difference = test.difference.value;
  if (difference == 0.0 && test.p_value == 1.0) return Finding::kIdentical;
  const double larger = std::max(std::fabs(kl_a), std::fabs(kl_b));
  // A p-value that is not there (too little text) decides nothing.
  if (!(test.p_value < 1.0 - confidence) || std::fabs(difference) < kSeedSpread * larger) {
    return Finding::kNoDifference;
  }
  return difference < 0 ? Finding::kFirstIsBetter : Finding::kSecondIsBetter;
}

Verdict decide(const std::vector<Contender>& contenders, const std::vector<Pair>& pairs,
               const Limits& limits) {
  Verdict verdict;
  Indices allowed;
  for (size_t i = 0; i < contenders.size(); ++i) {
    verdict.excluded_because.push_back(broken_limits(contenders[i], limits));
    if (verdict.excluded_because.back().empty()) allowed.push_back(i);
  }
  if (allowed.empty()) {
    verdict.headline = "Nothing that was compared keeps all limits.";
    for (size_t i = 0; i < contenders.size(); ++i) {
      verdict.would_change.push_back(
          fmt::format("{} {}", contenders[i].label, fmt::join(verdict.excluded_because[i], "; ")));
    }
    return verdict;
  }
  const Indices ranked = rank(contenders, allowed, limits, limits.prefer);
  verdict.choice = ranked.front();
  const Contender& c = contenders[*verdict.choice];
  verdict.headline = c.identical && !c.is_reference ? fmt::format("{}: identical to the reference.", c.label)
                     : c.is_reference && contenders.size() > 1
                         ? fmt::format("Stay with {}: nothing else keeps all limits.", c.label)
                         : fmt::format("Take {}.", c.label);
  verdict.reasons = reasons_for(contenders, ranked, limits);
  if (!c.is_reference && !c.identical) {
    verdict.cost.push_back(fmt::format("the most likely token is another one in {} of the positions",
                                       percent(1.0 - c.top1_agreement)));
  }
  if (c.peak_memory) {
    verdict.cost.push_back(
        fmt::format("{} of memory while it runs", human_bytes(static_cast<size_t>(*c.peak_memory))));
  }
  verdict.would_change = other_choices(contenders, allowed, limits, *verdict.choice);
  if (ranked.size() > 1) {
    verdict.runner_up = ranked[1];
    verdict.runner_up_note = note_on_runner_up(contenders, pairs, ranked[0], ranked[1]);
  }
  return verdict;
}

Json to_json(const Verdict& verdict, const std::vector<Contender>& contenders) {
  const auto id = [&](const std::optional<size_t>& index) {
    return index ? Json(contenders[*index].id) : Json(nullptr);
  };
  return {{"choice", id(verdict.choice)},
          {"headline", verdict.headline},
          {"reasons", verdict.reasons},
          {"cost", verdict.cost},
          {"would_change", verdict.would_change},
          {"runner_up", id(verdict.runner_up)},
          {"runner_up_note", verdict.runner_up_note}};
}

}  // namespace nibble
