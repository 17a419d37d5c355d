"""What is quantized, and who has to read it."""
import dataclasses
import json

import limits
import sources

# Readers: see readers.py and autoawq_reader.py.
GPTQ = ("transformers", "gptqmodel")
AWQ = ("transformers", "gptqmodel", "autoawq")
BNB = ("transformers",)


@dataclasses.dataclass(frozen=True)
class Case:
    group: str
    name: str
    source: str  # of sources.py
    options: tuple  # of nibble quantize
    readers: tuple
    floats: tuple = ()  # parts of names of modules that must have stayed float
    quantized: tuple = ()  # and of those that must not have
    refusals: dict = dataclasses.field(default_factory=dict)  # reader -> what its refusal must say
    twin: str = ""  # of gemv and gemv_fast: the case whose gemm file holds the same codes
    calibrated: bool = True


def gptq(name, *options, group="gptq", source="tiny-llama", **rest):
    effort = () if "--effort" in options or "--method" in options else ("--effort", "fast")
    return Case(group, name, source, (*effort, *options), GPTQ, **rest)


def gptq_matrix():
    for bits in (2, 3, 4, 8):
        for size in (32, 64, 128, -1):
            for layout in ("v1 sym", "v2 sym", "v2 asym"):
                for desc_act in (False, True):
                    options = ["--bits", str(bits), "--group-size", str(size)]
                    options += ["--format", "gptq" if "v1" in layout else "gptq_v2"]
                    options += ["--no-sym"] if "asym" in layout else []
                    options += ["--desc-act"] if desc_act else []
                    yield gptq(f"{bits} bits, g {size}, {layout}{', desc_act' if desc_act else ''}", *options)


def gptq_planar():
    few = {"transformers": "Only support quantization to [2,3,4,8] bits"}
    for bits in (2, 3, 4, 5, 6, 7, 8):
        for sym in ("", ", asym"):
            case = gptq(f"gptq_p, {bits} bits, g 64{sym}", "--bits", str(bits), "--group-size", "64", "--format", "gptq_p",
                        *(("--no-sym",) if sym else ()), refusals=few if bits in (5, 6, 7) else {})
            # Transformers forgets the layout, which makes a difference at 3 bits: it reads other codes.
            yield dataclasses.replace(case, readers=("gptqmodel",)) if bits == 3 else case


# Transformers hands no `dynamic` to optimum, whoever wrote the file: shapes or keys do not fit.
NO_DYNAMIC = {"transformers": "RuntimeError"}
# optimum replaces the linear layers of blocks alone.
NO_LM_HEAD = {"transformers": "'missing_keys': ['lm_head.weight']"}


def gptq_rest():
    for effort in ("compat", "fast", "default", "best"):
        yield gptq(f"effort {effort}", "--effort", effort, "--group-size", "64")
        yield gptq(f"effort {effort}, 3 bits, asym", "--effort", effort, "--group-size", "128", "--bits", "3", "--no-sym")
    compat = ("--effort", "compat", "--group-size", "64")
    yield gptq("compat, static groups", *compat, "--static-groups")
    yield gptq("compat, static groups, desc_act", *compat, "--static-groups", "--desc-act")
    yield gptq("compat, natural order", *compat, "--no-act-group-aware")
    yield gptq("compat, clip search", *compat, "--mse", "2.4", "--damp-percent", "0.1")
    for bits in ("4", "8"):
        yield gptq(f"signed scales, {bits} bits", "--signed-scales", "--group-size", "64", "--bits", bits)
    yield gptq("signed scales, default, 3 bits", "--effort", "default", "--signed-scales", "--group-size", "128",
               "--bits", "3")
    # Without gptqmodel's own name in meta.quantizer, asymmetric v1 files are refused: they may have been
    # written by AutoGPTQ, which destroyed zero points of 0.
    yield gptq("v1 asym", "--no-sym", "--format", "gptq", "--group-size", "32",
               refusals={"gptqmodel": "sym=False"})
    rules = {r"+:.*\.1\.mlp\.down_proj": {"bits": 8, "group_size": 128}, r"-:.*\.0\.self_attn\.k_proj": {}}
    yield gptq("dynamic", "--group-size", "64", "--dynamic", json.dumps(rules),
               floats=("layers.0.self_attn.k_proj",), quantized=("layers.1.mlp.down_proj", "layers.1.self_attn.k_proj"),
               refusals=NO_DYNAMIC)
    rules = {r"+:.*\.o_proj": {"bits": 3, "group_size": 32, "sym": False}, r"+:.*\.up_proj": {"desc_act": True}}
    yield gptq("dynamic, sym and desc_act", "--group-size", "64", "--format", "gptq_v2", "--dynamic", json.dumps(rules),
               refusals=NO_DYNAMIC)
    yield gptq("dynamic with 5 bits", "--group-size", "64", "--dynamic", json.dumps({r"+:.*\.v_proj": {"bits": 5}}),
               "--format", "gptq_p", refusals=NO_DYNAMIC)
    yield gptq("skip", "--skip", "k_proj", "--skip", "layers.2.mlp", "--group-size", "64",
               floats=("k_proj", "layers.2.mlp"), quantized=("q_proj", "layers.1.mlp"))
    yield gptq("lm_head", "--lm-head", "--group-size", "64", source="tiny-llama-untied", quantized=("lm_head",),
               refusals=NO_LM_HEAD)
    yield gptq("several shards", "--group-size", "64", "--max-shard-size", "600000")
    for options in (("--bits", "4"), ("--bits", "8", "--no-sym"), ("--bits", "3", "--mse", "2.4")):
        yield gptq("rtn " + " ".join(options), "--method", "rtn", "--group-size", "64", *options, calibrated=False)


def awq(name, *options, group="awq", source="tiny-llama", readers=AWQ, **rest):
    return Case(group, name, source, ("--method", "awq", *options), readers, **rest)


def awq_cases():
    for effort in ("compat", "default"):
        for size in (32, 64, 128):
            base = ("--effort", effort, "--group-size", str(size))
            gemm = f"gemm, g {size}, {effort}"
            yield awq(gemm, *base)
            for layout in ("gemv", "gemv_fast"):  # no reader of these runs on a CPU
                yield awq(f"{layout}, g {size}, {effort}", *base, "--format", layout, readers=("autoawq_pack",), twin=gemm)
    for effort in ("fast", "best"):
        yield awq(f"gemm, g 64, {effort}", "--effort", effort, "--group-size", "64")
    for effort in ("compat", "default"):
        yield awq(f"skip, {effort}", "--effort", effort, "--group-size", "32", "--skip", "o_proj",
                  floats=("o_proj",), quantized=("q_proj", "mlp.down_proj"))
    # AutoAWQ compares the words with names inside a block, Transformers with whole names: only the
    # second finds this one.
    yield awq("skip by whole name", "--group-size", "64", "--skip", "layers.2.mlp", readers=("transformers", "gptqmodel"),
              floats=("layers.2.mlp",), quantized=("layers.1.mlp",))
    yield awq("several shards", "--group-size", "64", "--max-shard-size", "600000")
    rtn = ("--method", "rtn", "--group-size", "64", "--format")
    yield Case("awq", "rtn gemm", "tiny-llama", (*rtn, "gemm"), AWQ, calibrated=False)
    for layout in ("gemv", "gemv_fast"):
        yield Case("awq", f"rtn {layout}", "tiny-llama", (*rtn, layout), ("autoawq_pack",), twin="rtn gemm",
                   calibrated=False)


def bnb(name, *options, group="bitsandbytes", source="tiny-llama", **rest):
    return Case(group, name, source, ("--method", *options), BNB, calibrated=False, **rest)


def bnb_cases():
    for kind in ("nf4", "fp4"):
        yield bnb(kind, kind)
        yield bnb(f"{kind}, double quantization", kind, "--double-quant")
        for size in ("128", "256"):
            yield bnb(f"{kind}, blocks of {size}", kind, "--blocksize", size)
        yield bnb(f"{kind}, double quantization, skip", kind, "--double-quant", "--skip", "k_proj", "--skip", "lm_head",
                  floats=("k_proj",), quantized=("q_proj",))
        yield bnb(f"{kind}, untied head", kind, source="tiny-llama-untied", floats=("lm_head",), quantized=("q_proj",))
        yield bnb(f"{kind}, untied, skip", kind, "--skip", "o_proj", "--skip", "lm_head", source="tiny-llama-untied",
                  floats=("lm_head", "o_proj"), quantized=("q_proj",))
        yield bnb(f"{kind}, several shards", kind, "--max-shard-size", "600000")
    yield bnb("int8", "int8")
    yield bnb("int8, skip", "int8", "--skip", "down_proj", "--skip", "lm_head",
              floats=("down_proj",), quantized=("up_proj",))
    yield bnb("int8, threshold 3", "int8", "--llm-int8-threshold", "3")
    yield bnb("int8, untied head", "int8", source="tiny-llama-untied", floats=("lm_head",), quantized=("q_proj",))


# Layers of the fixtures that stay float, because GPTQ's layout and the kernels of GPTQModel (for AWQ too) need
# multiples of 32: llama_bias has some of 48 outputs, deepseek's latent vector 40, the experts 24 or 48. (Experts of
# deepseek_v2 would fit, but Transformers 5 joins them, as mixtral's.)
SKIPS = {
    "llama_bias": ("k_proj", "v_proj"),
    "deepseek_v2": ("kv_a_proj_with_mqa", "mlp.experts"),
    "deepseek_v3": ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "experts"),
    "qwen2_moe": ("mlp.experts",),
    "qwen3_moe": ("mlp.experts", "layers.0.mlp"),  # whose dense layer 0 GPTQModel does not look for
}
# AutoAWQ's plain arithmetic takes any: there the same are quantized in groups that fit.
AUTOAWQ_GROUPS = {"deepseek_v3": "8", "qwen3_moe": "16"}
# bitsandbytes 0.50.2 on a CPU cannot dequantize blocks of 64 that go over the end of a row (96, 32 or 24 inputs), and
# its int8 layers take no input of 4 axes (deepseek's kv_b_proj). Transformers 5 joins experts to one parameter, which
# bitsandbytes leaves float.
BNB_SKIPS = {
    "llama_bias": ("o_proj", "lm_head"),
    "deepseek_v2": ("experts", "kv_b_proj", "lm_head"),
    "deepseek_v3": ("experts", "kv_b_proj", "q_b_proj", "lm_head"),
    "qwen2_moe": ("experts", "shared_expert", "lm_head"),
    "qwen3_moe": ("experts", "lm_head"),
}

# What these two show is routing, and none of their layers is wide enough for those kernels: deepseek_v2 and
# deepseek_v3 stand for them.
TOO_NARROW = ("deepseek_v2_groups", "deepseek_v3_halves")


def skips(names):
    return tuple(word for name in names for word in ("--skip", name))


def limited(case, *methods):
    """The case without the readers that compute something else, and with the refusals of the others."""
    known = limits.of(case.source.partition(".")[0], methods)
    readers = tuple(reader for reader in case.readers if reader not in known or known[reader].says)
    return dataclasses.replace(case, readers=readers,
                               refusals={reader: known[reader].says for reader in readers if reader in known})


def architecture_cases():
    for name in sources.architectures():
        if name in TOO_NARROW:
            continue
        floats = ("block_sparse_moe.gate",) if name == "mixtral" else ()
        rest = {"group": "architectures", "source": name}
        skip = SKIPS.get(name, ())
        fitted = {**rest, "floats": (*floats, *skip)}
        options = ("--group-size", "32", *skips(skip))
        yield limited(gptq(f"{name}, gptq", *options, **fitted), "gptq")
        yield limited(gptq(f"{name}, gptq compat, desc_act", "--effort", "compat", "--desc-act", *options, **fitted), "gptq")
        for effort in ("compat", "default"):
            case = awq(f"{name}, awq {effort}", "--effort", effort, *options, readers=("transformers", "gptqmodel"), **fitted)
            yield limited(case, "awq", f"awq {effort}")
            if name in AUTOAWQ_GROUPS:
                options_there, floats_there = ("--group-size", AUTOAWQ_GROUPS[name]), floats
            else:
                options_there, floats_there = options, fitted["floats"]
            case = awq(f"{name}, awq {effort}, AutoAWQ", "--effort", effort, *options_there, readers=("autoawq",),
                       group="architectures", source=name + ".v4", floats=floats_there)
            yield limited(case, "awq")
        for kind in ("nf4", "int8"):
            skip = BNB_SKIPS.get(name, ())
            case = limited(bnb(f"{name}, {kind}", kind, *skips(skip), **rest, floats=(*floats, *skip)), kind)
            # All of mixtral's experts are quantized: the right modules are, and no more can be checked here.
            yield dataclasses.replace(case, readers=()) if name == "mixtral" else case


def all_cases():
    return [*gptq_matrix(), *gptq_planar(), *gptq_rest(), *awq_cases(), *bnb_cases(), *architecture_cases()]


GROUPS = ("gptq", "awq", "bitsandbytes", "architectures")
