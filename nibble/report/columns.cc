#include "nibble/report/columns.h"

#include "nibble/report/numbers.h"

namespace nibble::report {
namespace {

using C = const Candidate&;

std::string number(const Measured& m, bool margin) {
  return margin ? format_with_margin(m) : format_number(m.value);
}

std::string percent(const Measured& share, bool margin) {
  return margin ? format_percent_with_margin(share) : format_percent(share.value);
}

const Column kColumns[] = {
    {"Size on disk", "disk", "", "all files of the model", true, 2, [](C c) { return c.disk_bytes; },
     [](C c, bool) { return format_bytes(c.disk_bytes); }},
    {"Bits per weight", "bits", "", "with scales and zero points", true, 5,
     [](C c) { return c.bits_per_weight; }, [](C c, bool) { return format_number(c.bits_per_weight); }},
    {"KL divergence", "KL", "nats",
     "how far the predicted words are from those of the original; 0 is identical", true, 1,
     [](C c) { return c.kl.value; }, [](C c, bool) { return format_with_margin(c.kl); }},
    {"Top-1 agreement", "top-1", "", "how often the most likely word is the same", false, 4,
     [](C c) { return c.top1_agreement.value; }, [](C c, bool m) { return percent(c.top1_agreement, m); }},
    {"Perplexity", "ppl", "", "how surprising the text is to the model", true, 6,
     [](C c) { return c.perplexity.value; }, [](C c, bool m) { return number(c.perplexity, m); }},
    {"Answer speed", "tok/s", "tok/s", "decode: tokens of an answer", false, 3,
     [](C c) { return c.decode.value; }, [](C c, bool m) { return number(c.decode, m); }},
    {"Prompt speed", "prompt/s", "tok/s", "prefill: tokens of a prompt", false, 8,
     [](C c) { return c.prefill.value; }, [](C c, bool m) { return number(c.prefill, m); }},
    {"Peak memory", "memory", "", "the most that the process held", true, 7,
     [](C c) { return c.peak_memory.value; },
     [](C c, bool m) {
       return m ? format_bytes_with_margin(c.peak_memory) : format_bytes(c.peak_memory.value);
     }},
    {"Load", "load s", "s", "until the first token can be read", true, 10,
     [](C c) { return c.load_seconds.value; }, [](C c, bool m) { return number(c.load_seconds, m); }},
    {"Questions right", "acc", "", "multiple-choice questions answered correctly", false, 9,
     [](C c) { return c.acc.value; }, [](C c, bool m) { return percent(c.acc, m); }},
    {"Questions right, by length", "acc norm", "",
     "the same, with the likelihood of an answer divided by its length", false, 15,
     [](C c) { return c.acc_norm.value; }, [](C c, bool m) { return percent(c.acc_norm, m); }},
    {"KL, 99 %", "KL 99 %", "nats", "one word in a hundred is worse than this", true, 11,
     [](C c) { return c.kl_percentiles.p99; }, [](C c, bool) { return format_number(c.kl_percentiles.p99); }},
    {"Top-5 overlap", "top-5", "", "how many of the five most likely words are the same", false, 13,
     [](C c) { return c.top5_overlap.value; }, [](C c, bool m) { return percent(c.top5_overlap, m); }},
    {"Bits per byte", "bits/byte", "",
     "perplexity for each byte of text, which other tokenizers can be compared with", true, 14,
     [](C c) { return c.bits_per_byte.value; }, [](C c, bool m) { return number(c.bits_per_byte, m); }},
    {"Change in log-probability", "d logp", "nats",
     "of the word that follows in the text; below 0: it has become less likely", false, 16,
     [](C c) { return c.delta_logprob.value; }, [](C c, bool m) { return number(c.delta_logprob, m); }},
    {"RMS change in probability", "rms dp", "", "of the word that follows in the text", true, 17,
     [](C c) { return c.rms_delta_prob.value; }, [](C c, bool m) { return percent(c.rms_delta_prob, m); }},
    {"Weights", "weights", "", "weights in memory", true, 12, [](C c) { return c.weight_bytes; },
     [](C c, bool) { return format_bytes(c.weight_bytes); }},
    {"Quantizing", "quant. s", "s", "time to make it", true, 18, [](C c) { return c.quantize_seconds; },
     [](C c, bool) { return format_number(c.quantize_seconds); }},
};

}  // namespace

std::vector<const Column*> columns_with_values(const Report& report) {
  std::vector<const Column*> columns;
  for (const Column& column : kColumns) {
    for (const Candidate& candidate : report.candidates) {
      if (!is_known(column.value(candidate))) continue;
      columns.push_back(&column);
      break;
    }
  }
  return columns;
}

std::string cell(const Column& column, const Candidate& candidate, bool margin) {
  return is_known(column.value(candidate)) ? column.text(candidate, margin) : "–";
}

}  // namespace nibble::report
