#!/usr/bin/env python3
"""Quantizes with an original library on the CPU and prints how long it took, as one line of JSON.

    peer_quantize.py gptqmodel|gptqmodel-awq|autoawq MODEL TOKENS OUT [--samples 64] [--length 512]
                     [--group-size 128] [--bits 4] [--threads 2]

TOKENS is a safetensors file with input_ids [samples, length]. `import_seconds` is the time that Python and the
packages need before the first line of work and is in no other figure; `seconds` is loading, quantizing and
saving, which is what a run of `nibble quantize` does. Needs: pip install torch transformers gptqmodel, or
autoawq with the Transformers that it knows (tools/interop/requirements*.txt).
"""
import time

BEGIN = time.perf_counter()
import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # GPTQModel 7.7.0 does not start on two cores otherwise
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def gptqmodel(args, rows, method):
    from gptqmodel import GPTQModel, QuantizeConfig

    yield "import_seconds"
    options = {"bits": args.bits, "group_size": args.group_size, "desc_act": False, "sym": method == "gptq"}
    if method == "awq":
        options |= {"method": "awq", "format": "gemm"}
    model = GPTQModel.load(args.model, QuantizeConfig(**options), device="cpu")
    yield "load_seconds"
    model.quantize([{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows], batch_size=1)
    yield "quantize_seconds"
    model.save(args.out)
    yield "save_seconds"


def autoawq(args, rows):
    from awq import AutoAWQForCausalLM

    yield "import_seconds"
    import torch

    model = AutoAWQForCausalLM.from_pretrained(args.model, device_map="cpu", torch_dtype=torch.float32, safetensors=True)
    yield "load_seconds"
    config = {"zero_point": True, "q_group_size": args.group_size, "w_bit": args.bits, "version": "GEMM"}
    model.quantize(None, quant_config=config, calib_data=rows, max_calib_samples=len(rows), max_calib_seq_len=len(rows[0]))
    yield "quantize_seconds"
    model.save_quantized(args.out)
    yield "save_seconds"


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "transformers", "gptqmodel", "autoawq"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=["gptqmodel", "gptqmodel-awq", "autoawq"])
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("out")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(args.threads)
    rows = load_file(args.tokens)["input_ids"][:args.samples, :args.length].tolist()
    if args.library == "autoawq":
        steps = autoawq(args, rows)
    else:
        steps = gptqmodel(args, rows, "awq" if args.library == "gptqmodel-awq" else "gptq")
    result, last = {}, BEGIN
    for step in steps:
        now = time.perf_counter()
        result[step], last = round(now - last, 3), now
    result["seconds"] = round(sum(value for step, value in result.items() if step != "import_seconds"), 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("\n" + json.dumps({"library": args.library, **result, "peak_memory_bytes": peak, "samples": len(rows),
                             "length": len(rows[0]), "threads": args.threads, "versions": versions()}), flush=True)
    os._exit(0)  # GPTQModel's threads end late


if __name__ == "__main__":
    main()
