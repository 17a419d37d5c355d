"""What the libraries cannot read of an architecture, whoever wrote the file.

A limit with `says` is tried in every run, and the reader's refusal must contain those words. One without is
a reader that loads the file without a word and computes something else: it is left out.
"""
import dataclasses

FALCON = ("falcon_7b", "falcon_new", "falcon_rw_alibi", "falcon_rw_alibi_long")
GPT_NEOX = ("gpt_neox", "gpt_neox_sequential")
PHI3 = ("phi3_longrope_long", "phi3_longrope_short")
# AWQ may divide what the activations of these give (ScaledActivation): `--effort compat` does, as AutoAWQ does.
SCALED_ACTIVATIONS = (*FALCON, *GPT_NEOX, "bloom", "gpt_bigcode", "gptj", "mpt", "starcoder2")


@dataclasses.dataclass(frozen=True)
class Limit:
    architectures: tuple
    methods: tuple  # gptq, awq, nf4, int8; "awq compat" is that effort alone
    reader: str
    says: str  # of its refusal; empty: it computes something else
    why: str


LIMITS = (
    Limit(("mixtral",), ("gptq", "awq"), "transformers", "experts",
          "Transformers 5 joins the experts to one parameter, which GPTQModel's layers do not replace"),
    Limit(("mixtral",), ("gptq",), "gptqmodel", "Missing required quantized weights",
          "GPTQModel 7.7 has other names for the experts than the published files"),
    Limit(("mixtral",), ("awq",), "gptqmodel", "", "the same names; AWQ files are not checked for missing ones"),
    Limit(PHI3 + ("glm4",), ("gptq",), "gptqmodel", "gate_proj.qweight",
          "GPTQModel's own files of these have gate_up_proj in two"),
    Limit(PHI3 + ("glm4",), ("awq",), "gptqmodel", "", "the same names; AWQ files are not checked for missing ones"),
    Limit(("mpt",), ("gptq",), "transformers", "Block pattern", "optimum does not know where mpt keeps its blocks"),
    Limit(FALCON, ("gptq",), "transformers", "missing_keys",
          "optimum replaces layers whose type is nn.Linear itself, and falcon's are FalconLinear"),
    Limit(FALCON, ("nf4",), "transformers", "ignore_mismatched_sizes",
          "Transformers' bitsandbytes code replaces layers whose type is nn.Linear itself, and falcon's are FalconLinear"),
    Limit(FALCON, ("int8",), "transformers", "same dtype", "the same: the bytes arrive in a float layer"),
    Limit(("gpt2", "gpt_bigcode"), ("gptq",), "transformers", "no attribute 'weight'",
          "Transformers initializes c_proj.weight of every block, and a quantized layer has no weight"),
    Limit(("gpt_bigcode",), ("awq",), "transformers", "no attribute 'weight'", "the same"),
    Limit(("gpt2",), ("awq",), "transformers", "has_been_replaced",
          "Transformers finds no nn.Linear in it (they are Conv1D) and fails at its own warning about that"),
    Limit(GPT_NEOX, ("gptq", "awq"), "gptqmodel", "",
          "Transformers 5 calls the head lm_head, the published files embed_out: GPTQModel leaves the head uninitialized (NaN)"),
    Limit(SCALED_ACTIVATIONS, ("awq compat",), "gptqmodel", "",
          "GPTQModel 7.7 does not load the scales of activations (act.scales)"),
    Limit(("nemotron", "olmo"), ("awq",), "gptqmodel", "failed to auto-detect module tree",
          "GPTQModel 7.7 has no definition of it"),
    Limit(("qwen2_sliding",), ("awq",), "autoawq", "",
          "Transformers 4.51, with which AutoAWQ runs, applies the sliding window to every layer, not from max_window_layers on"),
    Limit(("qwen3_moe",), ("awq",), "autoawq", "AssertionError",
          "AutoAWQ looks for the words of modules_to_not_convert in names inside a block, and a dense block's mlp.gate_proj"
          " has the router's mlp.gate in it: models with both cannot be described to it"),
    Limit(("phi", "gemma3_text", "cohere2", "glm4", "gpt2", "granite", "nemotron", "olmo", "olmo2", "qwen2_moe"), ("awq",),
          "autoawq", "isn't supported yet", "AutoAWQ 0.2.9 has no definition of it"),
    Limit(("deepseek_v2", "smollm3"), ("awq",), "autoawq", "does not recognize this architecture",
          "Transformers 4.51, with which AutoAWQ runs, does not know it"),
)


def of(architecture, methods):
    """reader -> Limit, for a model that is quantized by all of the methods' names."""
    return {limit.reader: limit for limit in LIMITS
            if architecture in limit.architectures and set(methods) & set(limit.methods)}
