"""What bench/compare_peers asks of its figures: the goals of docs/performance.md as a table."""
import os
import typing

from protocol import Test

# Of well-known models, by hidden_size and num_hidden_layers; random weights are as good as real ones.
SHAPES = {(576, 30): "135M", (2048, 22): "1.1B", (4096, 32): "7B"}


class Goal(typing.NamedTuple):
    name: str
    shape: str
    test: str  # as Test.parse() reads it, any number of tokens for tg; "first"
    ours: str
    theirs: str = ""  # a ratio to it; empty: `field` of ours
    limit: float = 0.0
    threads: int = 0  # 0: the most that are measured
    field: str = "rate"
    at_most: bool = False

    def applies(self, threads, test, most_threads):
        if threads != (self.threads or most_threads):
            return False
        if "first" in (test, self.test):
            return test == self.test
        asked, measured = Test.parse(self.test), Test.parse(test)
        return measured == (asked._replace(tokens=measured.tokens) if asked.kind == "tg" else asked)

    def values(self, figures_of):
        """One value per round. figures_of(engine): what it reached in each."""
        ours = [figures.get(self.field) for figures in figures_of(self.ours)]
        if not self.theirs:
            return [value for value in ours if value is not None]
        return [a / b["rate"] for a, b in zip(ours, figures_of(self.theirs))]


Q4_0, Q4_K_M = "llama.cpp Q4_0", "llama.cpp Q4_K_M"

GOALS = [
    *(Goal("share of the raw read bandwidth", shape, "tg1", "nibble gptq", limit=0.90, field="read")
      for shape in ("1.1B", "7B")),
    Goal("decode / llama.cpp Q4_K_M", "1.1B", "tg1", "nibble gptq", Q4_K_M, 1.35),
    Goal("decode / llama.cpp Q4_0", "1.1B", "tg1", "nibble gptq", Q4_0, 1.25),
    Goal("decode / llama.cpp Q4_0", "135M", "tg1", "nibble gptq", Q4_0, 1.6),
    Goal("decode on one thread / llama.cpp Q4_0", "1.1B", "tg1", "nibble gptq", Q4_0, 1.6, threads=1),
    *(Goal("decode of NF4 / of GPTQ", shape, "tg1", "nibble nf4", "nibble gptq", 0.90) for shape in ("135M", "1.1B")),
    Goal("decode / bitsandbytes NF4", "135M", "tg1", "nibble nf4", "bitsandbytes nf4", 6.0),
    Goal("decode / bitsandbytes NF4", "1.1B", "tg1", "nibble nf4", "bitsandbytes nf4", 2.3),
    Goal("decode / GPTQModel", "135M", "tg1", "nibble gptq", "gptqmodel", 4.5),
    Goal("decode / GPTQModel", "1.1B", "tg1", "nibble gptq", "gptqmodel", 2.1),
    *(Goal("prefill / llama.cpp Q4_0", shape, "pp512", "nibble gptq", Q4_0, 2.6) for shape in ("135M", "1.1B")),
    Goal("prefill / OpenVINO GenAI int4", "135M", "pp512", "nibble gptq", "openvino int4", 1.2),
    Goal("prefill / OpenVINO GenAI int4", "1.1B", "pp512", "nibble gptq", "openvino int4", 1.5),
    Goal("prefill: share of the int8 peak", "1.1B", "pp512", "nibble gptq", limit=0.60, field="arithmetic"),
    *(Goal(f"decode of {batch} sequences / llama.cpp Q4_0", shape, f"tg1b{batch}", "nibble gptq", Q4_0, 2.2)
      for shape in ("135M", "1.1B") for batch in (4, 8)),
    *(Goal("decode after 4096 tokens / llama.cpp Q4_0", shape, "tg1d4096", "nibble gptq", Q4_0, 1.2)
      for shape in ("135M", "1.1B")),
    Goal("start to first token, s", "1.1B", "first", "nibble gptq", limit=0.5, at_most=True),
    Goal("start to first token, s", "7B", "first", "nibble gptq", limit=2.0, at_most=True),
]

# The instruction set of older machines, against a llama.cpp that was compiled for it: GGML_NATIVE=OFF.
if os.environ.get("NIBBLE_CPU") == "avx2":
    GOALS = [Goal("prefill / llama.cpp Q4_0, both AVX2", shape, "pp512", "nibble gptq", Q4_0, 1.5)
             for shape in ("135M", "1.1B")]
    GOALS += [Goal("share of the raw read bandwidth, AVX2", "1.1B", "tg1", "nibble gptq", limit=0.90, field="read")]
