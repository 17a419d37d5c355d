#!/usr/bin/env python3
"""Transformers as a peer of bench/compare_peers:
    run_transformers.py FOLDER --with bitsandbytes|gptqmodel [--threads N] [--first]

bitsandbytes: a folder in NF4, computed in bfloat16, the fastest that it offers on a CPU. gptqmodel: a folder in GPTQ
or AWQ, with the kernel that GPTQModel chooses; --backend names another. Tokens come from generate(), greedily, as
users call it; the time of the prompt is taken out of decoding. Needs requirements-transformers.txt.
"""
import collections
import importlib.metadata
import os
import time

import protocol

PROMPT = 16  # tokens before those that are decoded


def load_bitsandbytes(path, _):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, device_map="cpu"), "nf4, bfloat16"


def load_gptqmodel(path, backend):
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # 7.7.0 does not start on two cores without it
    from gptqmodel import BACKEND, GPTQModel

    model = GPTQModel.load(path, device="cpu", backend=getattr(BACKEND, backend.upper()))
    kinds = collections.Counter(type(m).__name__ for m in model.model.modules() if hasattr(m, "qweight"))
    return model, ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


LOADERS = {"bitsandbytes": load_bitsandbytes, "gptqmodel": load_gptqmodel}


def main():
    args = protocol.arguments(__doc__, ("--with", dict(dest="library", choices=LOADERS, required=True)),
                              ("--backend", dict(default="auto", help="of GPTQModel")))
    say = protocol.take_stdout()
    import torch

    torch.set_num_threads(args.threads)
    model, kernel = LOADERS[args.library](args.model, args.backend)
    if hasattr(model, "eval"):
        model.eval()

    def seconds(rows, length, new_tokens):
        torch.manual_seed(0)
        ids = torch.randint(300, 8000, (rows, length))
        begin = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                 min_new_tokens=new_tokens, max_new_tokens=new_tokens, pad_token_id=0)
        took = time.perf_counter() - begin
        if out.shape[1] != length + new_tokens:
            raise RuntimeError(f"{out.shape[1]} tokens instead of {length + new_tokens}")
        return took

    if args.first:
        seconds(1, protocol.FIRST_PROMPT, 1)
        say(first=True)
        os._exit(0)  # how long Python takes to end is not the question
    say(ready=", ".join(f"{name} {importlib.metadata.version(name)}" for name in (args.library, "transformers", "torch")),
        kernel=kernel)
    seconds(1, PROMPT, 4)  # warms up

    def run(test):
        if test.kind == "pp":
            return seconds(1, test.depth + test.tokens, 1) - (seconds(1, test.depth, 1) if test.depth else 0)
        length = max(PROMPT, test.depth)
        prompt = min(seconds(test.batch, length, 1) for _ in range(2))
        return seconds(test.batch, length, test.tokens + 1) - prompt

    protocol.serve(say, run)


if __name__ == "__main__":
    main()
