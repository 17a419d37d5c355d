"""AutoAWQ 0.2.9: its reader with the plain PyTorch arithmetic, and its packers.

On a machine without a GPU it asks for intel_extension_for_pytorch, which is no longer made, and takes
Triton for available when it can be imported. Both answers are replaced here; what reads the file, unpacks and
computes is AutoAWQ's own code. Nothing of it runs gemv and gemv_fast without CUDA: these files are
compared with what AutoAWQ's packers make of the same codes, byte for byte.
"""
import os
import subprocess
import tempfile

import awq.models.base
import awq.modules.linear.gemm as gemm
import checks
import torch
from awq import AutoAWQForCausalLM
from awq.modules.linear import WQLinear_GEMM, WQLinear_GEMV, WQLinear_GEMVFast
from awq.utils.packing_utils import dequantize_gemm, reverse_awq_order, unpack_awq
from safetensors.torch import load_file

awq.models.base.get_best_device = lambda: "cuda:0"
gemm.TRITON_AVAILABLE = False


def tensors_of(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            out.update(load_file(os.path.join(folder, name)))
    return out


def read(request):
    model = AutoAWQForCausalLM.from_quantized(request["folder"], fuse_layers=False, device_map={"": "cpu"}).model
    if model.config.model_type == "gemma2":  # "sdpa", which AutoAWQ gets by default, knows no soft cap
        model.config._attn_implementation = "eager"
    return [same_weights(request, model), checks.check_logits(request, model, "float16", "plain PyTorch"),
            checks.check_greedy(request, model, "float16", "greedy")]


def activation_scales(model, linear):
    """Of a scaled activation beside the linear, or None."""
    parent = model.get_submodule(linear.rpartition(".")[0])
    return next((child.scales for child in parent.children() if type(child).__name__ == "ScaledActivation"), None)


def same_weights(request, model):
    """AutoAWQ's float16 weights against those of `nibble dequantize`: every one."""
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([request["nibble"], "dequantize", request["folder"], "-o", work + "/float", "-q"], check=True)
        ours = tensors_of(work + "/float")
    count = differ = 0
    for name, module in model.named_modules():
        if isinstance(module, WQLinear_GEMM):
            theirs = dequantize_gemm(module.qweight, module.qzeros, module.scales, 4, module.group_size).T
            divisors = activation_scales(model, name)
            if divisors is not None and divisors.numel() == theirs.shape[1]:  # Nibble puts them into the weight
                theirs = (theirs.float() / divisors.float()).half()
            count += theirs.numel()
            differ += int((theirs != ours[name + ".weight"]).sum())
    return {"what": "dequantized weights", "arithmetic": "float16", "difference": differ / max(count, 1), "tolerance": 0.0,
            "passed": count > 0 and differ == 0}


def same_bytes(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def pack(request):
    """The codes of the twin, a gemm file, through AutoAWQ's packer of the layout that `folder` has."""
    ours, twin = tensors_of(request["folder"]), tensors_of(request["twin"])
    layer = {"gemv": WQLinear_GEMV, "gemv_fast": WQLinear_GEMVFast}[request["layout"]]
    modules = [name.removesuffix(".qweight") for name in twin if name.endswith(".qweight")]
    differ, count = [], 0
    for module in modules:
        packed = pack_module(layer, *(twin[f"{module}.{kind}"] for kind in ("qweight", "qzeros", "scales")))
        for kind, theirs in packed.items():
            count += theirs.numel()
            mine = ours.get(f"{module}.{kind}")
            if mine is None or not same_bytes(mine, theirs):
                differ.append(f"{module}.{kind}")
    other = [name for name in twin if name.rsplit(".", 1)[-1] not in ("qweight", "qzeros", "scales")
             and not (name in ours and same_bytes(ours[name], twin[name]))]
    ids = load_file(request["prompt"])["input_ids"].long()
    logits = checks.nibble_logits(request, ids)
    arithmetic = "float32" if request["layout"] == "gemv" else "float16"  # gemv_fast rounds scale * zero
    read_back = checks.compare(logits, checks.nibble_logits({**request, "folder": request["twin"]}, ids), arithmetic,
                               "Nibble reads both alike")
    packed = {"what": "AutoAWQ's packer", "arithmetic": "bytes", "difference": float(len(differ) + len(other)), "tolerance": 0.0,
              "passed": count > 0 and not differ and not other, "note": ", ".join((differ + other)[:4])}
    return [packed, read_back]


def pack_module(layer, qweight, qzeros, scales):
    group_size = qweight.shape[0] // scales.shape[0]
    codes, zeros = (x & 15 for x in reverse_awq_order(*unpack_awq(qweight, qzeros, 4), 4))  # [in, out], [groups, out]
    weight = (codes - zeros.repeat_interleave(group_size, 0)) * scales.float().repeat_interleave(group_size, 0)
    linear = torch.nn.Linear(qweight.shape[0], scales.shape[1], bias=False)
    linear.weight.data = weight.T.contiguous()
    packed = layer.from_linear(linear, 4, group_size, False, scales.T.float().contiguous(), zeros.T.float().contiguous())
    return {kind: getattr(packed, kind).contiguous() for kind in ("qweight", "qzeros", "scales")}
