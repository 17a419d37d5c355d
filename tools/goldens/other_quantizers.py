#!/usr/bin/env python3
"""Small checkpoints written by AutoRound and LLM Compressor, with the logits of Transformers, for tests/data/other_quantizers.

  tools/goldens/other_quantizers.py SOURCE OUT      needs torch, transformers, auto-round, llmcompressor

SOURCE: tests/data/architectures. The golden is the model as Transformers reads it, or where it does not, the float model that
the tool's own functions unpack; in float32 and with eager attention.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

SEED, SEQUENCES, LENGTH, STEPS = 7, 2, 24, 12


def tokens(rows, length, vocab_size, seed):
    return torch.randint(3, vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def tokenizer(vocab_size):
    """Both tools ask for one; the models have none."""
    words = {f"t{i}": i for i in range(vocab_size)}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")))
    made.pad_token = "t0"
    return made


def by_auto_round(source, folder, packing, **options):
    from auto_round import AutoRound
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float16)
    vocab_size = model.config.vocab_size
    data = [row.unsqueeze(0) for row in tokens(16, 64, vocab_size, SEED)]
    AutoRound(model, tokenizer(vocab_size), dataset=data, nsamples=16, seqlen=64, iters=4, batch_size=8, seed=SEED,
              **options).quantize_and_save(str(folder), format=f"auto_round:{packing}")


def by_llm_compressor(source, folder, modifier):
    from llmcompressor import oneshot
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float16)
    rows = tokens(16, 64, model.config.vocab_size, SEED).tolist()
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    oneshot(model=model, dataset=data, recipe=modifier(), max_seq_length=64, num_calibration_samples=16,
            tokenizer=tokenizer(model.config.vocab_size))
    model.save_pretrained(folder, save_compressed=True)


def gptq(**weights):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    actorder = weights.pop("actorder", None)
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(type="int", **weights))
    return GPTQModifier(config_groups={"group_0": scheme}, ignore=["lm_head"], actorder=actorder)


MODELS = {
    "auto_round_gptq": ("llama_bias", lambda s, f: by_auto_round(
        s, f, "auto_gptq", bits=4, group_size=32, sym=True,
        layer_config={"model.layers.1.mlp.down_proj": {"bits": 8, "group_size": 64},
                      "model.layers.0.self_attn.k_proj": {"bits": 16}})),
    "auto_round_awq": ("qwen2", lambda s, f: by_auto_round(s, f, "auto_awq", bits=4, group_size=32, sym=False)),
    "compressed_w4_group": ("llama_bias", lambda s, f: by_llm_compressor(s, f, lambda: gptq(
        num_bits=4, symmetric=False, strategy="group", group_size=32, actorder="weight"))),
    "compressed_w8_channel": ("qwen3", lambda s, f: by_llm_compressor(s, f, lambda: gptq(
        num_bits=8, symmetric=True, strategy="channel"))),
}


def unpacked_awq(tensors, name, scheme):
    from auto_round.export.export_to_awq.utils import dequantize_gemm
    packed = [tensors.pop(f"{name}.{part}") for part in ("qweight", "qzeros", "scales")]
    return dequantize_gemm(*packed, scheme["bits"], scheme["group_size"]).T


def unpacked_gptq(tensors, name, scheme):
    """AutoRound's own layer multiplies in bfloat16. Words hold neighbouring inputs, zero points are stored less one."""
    qweight, qzeros, scales = [tensors.pop(f"{name}.{part}") for part in ("qweight", "qzeros", "scales")]
    bits = scheme.get("extra_config", {}).get(name, {}).get("bits", scheme["bits"])
    shifts = torch.arange(0, 32, bits)
    codes = (qweight.unsqueeze(1) >> shifts.view(1, -1, 1) & (1 << bits) - 1).reshape(-1, qweight.shape[1])
    zeros = (qzeros.unsqueeze(2) >> shifts & (1 << bits) - 1).reshape(qzeros.shape[0], -1) + 1
    group = tensors.pop(f"{name}.g_idx", torch.arange(codes.shape[0]) // (codes.shape[0] // scales.shape[0])).long()
    return ((codes - zeros[group]).to(scales.dtype) * scales[group]).T


def unpacked_compressed(tensors, name, scheme):
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    args = QuantizationArgs(**scheme["config_groups"]["group_0"]["weights"])
    packed, scale = tensors.pop(f"{name}.weight_packed"), tensors.pop(f"{name}.weight_scale")
    shape = torch.Size(tensors.pop(f"{name}.weight_shape").tolist())
    zero = tensors.pop(f"{name}.weight_zero_point", None)
    if zero is not None:
        zero = unpack_from_int32(zero, args.num_bits, torch.Size(scale.shape), packed_dim=0)
    return dequantize(unpack_from_int32(packed, args.num_bits, shape), scale, zero, args)


def float_copy(folder, packed, unpack):
    """Of files that Transformers 5.24 does not read or not exactly: AutoRound's AWQ, for which there is no layer on a
    processor, and packed zero points of compressed-tensors, whose shape it does not expect. Unpacked by the tools' own
    functions but for GPTQ."""
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    scheme = config.pop("quantization_config")
    for name in [n.removesuffix(packed) for n in tensors if n.endswith(packed)]:
        tensors[f"{name}.weight"] = unpack(tensors, name, scheme)
    copy = folder.parent / f"{folder.name}.float"
    copy.mkdir()
    (copy / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, copy / "model.safetensors")
    return copy


UNPACK = {"auto_round_gptq": (".qweight", unpacked_gptq),
          "auto_round_awq": (".qweight", unpacked_awq),
          "compressed_w4_group": (".weight_packed", unpacked_compressed),
          "compressed_w8_channel": (".weight_packed", unpacked_compressed)}


def golden(folder):
    source = float_copy(folder, *UNPACK[folder.name]) if folder.name in UNPACK else folder
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager").eval()
    if source != folder:
        shutil.rmtree(source)
    ids = tokens(SEQUENCES, LENGTH, model.config.vocab_size, SEED + 1)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
        sequence = ids
        for _ in range(STEPS):
            best = model(input_ids=sequence, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
            sequence = torch.cat([sequence, best], 1)
    return {"input_ids": ids.int(), "logits": logits.float().contiguous(), "greedy": sequence[:, LENGTH:].int().contiguous()}


def main(source, out, names):
    for name in names or MODELS:
        base, make = MODELS[name]
        with tempfile.TemporaryDirectory() as folder:
            made = pathlib.Path(folder) / "model"
            make(pathlib.Path(source) / base, made)
            saved = [p for p in made.rglob("config.json")][0].parent
            target = pathlib.Path(out) / name
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for file in saved.iterdir():
                if file.name == "config.json" or file.name.startswith("model"):
                    shutil.copy(file, target)
            save_file(golden(target), target / "goldens.safetensors")
            print(name, sum(p.stat().st_size for p in target.iterdir()), "bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
