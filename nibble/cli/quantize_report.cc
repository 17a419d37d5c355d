#include "nibble/cli/quantize_report.h"

#include <algorithm>

#include "nibble/base/log.h"
#include "nibble/base/memory.h"
#include "nibble/cli/output.h"
#include "nibble/pipeline/log_row.h"
#include "nibble/pipeline/model_plan.h"

namespace nibble::cli {
namespace {

constexpr size_t kShownModules = 3;  // modules of each kind

void say(std::string_view text) { log_line(LogLevel::kNormal, text); }

// The `kShownModules` modules with the largest `value`.
template <class Value>
void say_largest(const QuantizeResult& result, std::string_view title, Value value, std::string_view format) {
  std::vector<QuantizedModule> modules = result.modules;
  const size_t shown = std::min(kShownModules, modules.size());
  std::partial_sort(modules.begin(), modules.begin() + static_cast<ptrdiff_t>(shown), modules.end(),
                    [&](const QuantizedModule& a, const QuantizedModule& b) { return value(a) > value(b); });
  std::string line(title);
  for (size_t i = 0; i < shown; ++i) {
    line += fmt::format("{}{} ({})", i == 0 ? " " : ", ", modules[i].module,
                        fmt::format(fmt::runtime(format), value(modules[i])));
  }
  say(line);
}

void say_check(const SanityCheck& check) {
  const std::string line = fmt::format(
      "check on {} held-out tokens: KL to the original {:.4f}, same next token {:.1f} %, perplexity {:.2f} "
      "-> "
      "{:.2f}",
      check.tokens, check.kl, 100 * check.top1_agreement, check.perplexity, check.perplexity_after);
  say(line);
  if (check.broken()) say("The written model does not behave like the original: do not use it as it is.");
}

}  // namespace

Json check_json(const std::optional<SanityCheck>& check) {
  if (!check) return nullptr;
  return {{"kl", check->kl},
          {"top1_agreement", check->top1_agreement},
          {"perplexity_original", check->perplexity},
          {"perplexity", check->perplexity_after},
          {"tokens", check->tokens},
          {"broken", check->broken()}};
}

Json to_json(const QuantizeResult& result) {
  Json modules = Json::array();
  for (const QuantizedModule& module : result.modules) modules.push_back(nibble::to_json(module));
  const WrittenBytes& bytes = result.bytes;
  return {{"was_finished", result.was_finished},
          {"resumed_modules", result.resumed_modules},
          {"plan", nibble::to_json(result.plan)},
          {"modules", modules},
          {"calibration_tokens", result.calibration_tokens},
          {"bytes",
           {{"linear", bytes.linear},
            {"embedding", bytes.embedding},
            {"head", bytes.head},
            {"norm", bytes.norm},
            {"total", bytes.total()}}},
          {"bits_per_weight", bytes.bits_per_weight},
          {"check", check_json(result.check)},
          {"seconds", result.seconds}};
}

void report_quantization(const QuantizeResult& result, const std::string& output, const std::string& method) {
  if (result.was_finished) {
    say(fmt::format("{}: this very model stands there already. To make it again: --overwrite", output));
    return;
  }
  const WrittenBytes& bytes = result.bytes;
  say(fmt::format("linear {}, embedding {}, head {}, norms {}: {} in all; {:.3f} bits per quantized weight",
                  human_bytes(bytes.linear), human_bytes(bytes.embedding), human_bytes(bytes.head),
                  human_bytes(bytes.norm), human_bytes(bytes.total()), bytes.bits_per_weight));
  if (result.calibration_tokens > 0) {
    say_largest(
        result, "largest loss:", [](const QuantizedModule& m) { return m.loss; }, "{:.2g}");
    say_largest(
        result, "slowest:", [](const QuantizedModule& m) { return m.seconds; }, "{:.1f} s");
  }
  if (result.check) say_check(*result.check);
  say(fmt::format("{}: {} in {:.1f} s, peak memory {}", output, method, result.seconds,
                  human_bytes(peak_memory_bytes())));
}

}  // namespace nibble::cli
