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


def load_transformers(request, dtype):
    from transformers import AutoModelForCausalLM

    extra = {}
    if "mixtral" in config_of(request)["model_type"]:
        extra["experts_implementation"] = "eager"
    model, info = AutoModelForCausalLM.from_pretrained(request["folder"], dtype=dtype, device_map="cpu",
                                                       attn_implementation="eager", output_loading_info=True, **extra)
    lost = {key: sorted(names) for key, names in info.items() if names}
    if lost:
        raise RuntimeError(f"Transformers loaded it with {lost}")
    return model.eval()


def transformers(request):
    quantization = config_of(request)["quantization_config"]
    method = quantization["quant_method"]
    if method == "bitsandbytes":
        import bitsandbytes as bnb

        native = load_transformers(request, "auto")
        out = [checks.check_logits(request, native, "int8" if quantization["load_in_8bit"] else "bfloat16", "as loaded")]
        has_kernel = getattr(bnb.nn.modules, "has_avx512bf16", None)
        bnb.nn.modules.has_avx512bf16 = lambda: False  # the CPU kernel for bfloat16
        model = load_transformers(request, torch.float32)
        compute_in_float32(model)
        arithmetic = "int8" if quantization["load_in_8bit"] else "float32"
        out += [checks.check_logits(request, model, arithmetic, "float32"),
                checks.check_greedy(request, model, arithmetic, "greedy")]
        if has_kernel:
            bnb.nn.modules.has_avx512bf16 = has_kernel
        return out
    native = load_transformers(request, "auto")
    out = [checks.check_logits(request, native, str(native.dtype).removeprefix("torch."), "as loaded")]
    model = load_transformers(request, torch.float32)
    out += [checks.check_logits(request, model, "float32", "float32"),
            checks.check_greedy(request, model, "float32", "greedy")]
    gc.collect()
    return out


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


READERS = {f.__name__: f for f in (transformers, gptqmodel, autoawq, autoawq_pack)}
