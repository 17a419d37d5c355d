#include "nibble/report/columns.h"

#include "nibble/report/numbers.h"

namespace nibble::report {
namespace {

using C = const Candidate&;

const Column kColumns[] = {
    {"Size on disk", "disk", "", "all files of the model", true, 2, [](C c) { return c.disk_bytes; },
     [](C c) { return format_bytes(c.disk_bytes); }},
    {"Weights", "weights", "", "weights in memory", true, 12, [](C c) { return c.weight_bytes; },
     [](C c) { return format_bytes(c.weight_bytes); }},
    {"Bits per weight", "bits", "", "with scales and zero points", true, 5,
     [](C c) { return c.bits_per_weight; }, [](C c) { return format_number(c.bits_per_weight); }},
    {"KL divergence", "KL", "nats",
     "how far the predicted words are from those of the original; 0 is identical", true, 1,
     [](C c) { return c.kl.value; }, [](C c) { return format_with_margin(c.kl); }},
    {"KL, 99 %", "KL 99 %", "nats", "one word in a hundred is worse than this", true, 11,
     [](C c) { return c.kl_percentiles.p99; }, [](C c) { return format_number(c.kl_percentiles.p99); }},
    {"Top-1 agreement", "top-1", "", "how often the most likely word is the same", false, 4,
     [](C c) { return c.top1_agreement.value; },
     [](C c) { return format_percent_with_margin(c.top1_agreement); }},
    {"Top-5 overlap", "top-5", "", "how many of the five most likely words are the same", false, 13,
     [](C c) { return c.top5_overlap.value; },
     [](C c) { return format_percent_with_margin(c.top5_overlap); }},
    {"Perplexity", "ppl", "", "how surprising the text is to the model", true, 6,
     [](C c) { return c.perplexity.value; }, [](C c) { return format_with_margin(c.perplexity); }},
    {"Bits per byte", "bits/byte", "",
     "the same for each byte of text, which other tokenizers can be compared with", true, 14,
     [](C c) { return c.bits_per_byte.value; }, [](C c) { return format_with_margin(c.bits_per_byte); }},
    {"Change in log-probability", "d logp", "nats",
     "of the word that follows in the text; below 0: it has become less likely", false, 16,
     [](C c) { return c.delta_logprob.value; }, [](C c) { return format_with_margin(c.delta_logprob); }},
    {"RMS change in probability", "rms dp", "", "of the word that follows in the text", true, 17,
     [](C c) { return c.rms_delta_prob.value; },
     [](C c) { return format_percent_with_margin(c.rms_delta_prob); }},
    {"Questions right", "acc", "", "multiple-choice questions answered correctly", false, 9,
     [](C c) { return c.acc.value; }, [](C c) { return format_percent_with_margin(c.acc); }},
    {"Questions right, by length", "acc norm", "",
     "the same, with the likelihood of an answer divided by its length", false, 15,
     [](C c) { return c.acc_norm.value; }, [](C c) { return format_percent_with_margin(c.acc_norm); }},
    {"Answer speed", "tok/s", "tok/s", "decode: tokens of an answer", false, 3,
     [](C c) { return c.decode.value; }, [](C c) { return format_with_margin(c.decode); }},
    {"Prompt speed", "prompt/s", "tok/s", "prefill: tokens of a prompt", false, 8,
     [](C c) { return c.prefill.value; }, [](C c) { return format_with_margin(c.prefill); }},
    {"Peak memory", "memory", "", "the most that the process held", true, 7,
     [](C c) { return c.peak_memory.value; }, [](C c) { return format_bytes_with_margin(c.peak_memory); }},
    {"Load", "load s", "s", "until the first token can be read", true, 10,
     [](C c) { return c.load_seconds.value; }, [](C c) { return format_with_margin(c.load_seconds); }},
    {"Quantizing", "quant. s", "s", "time to make it", true, 18, [](C c) { return c.quantize_seconds; },
     [](C c) { return format_number(c.quantize_seconds); }},
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

std::string cell(const Column& column, const Candidate& candidate) {
  return is_known(column.value(candidate)) ? column.text(candidate) : "–";
}

}  // namespace nibble::report
