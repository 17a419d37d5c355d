#!/usr/bin/env python3
"""Transformers as a peer of bench/compare_peers:
    run_transformers.py FOLDER --with bitsandbytes|gptqmodel [--threads N] [--first]

bitsandbytes: a folder in NF4, computed in bfloat16, the fastest that it offers on a CPU. gptqmodel: a folder in GPTQ
or AWQ, with the kernel that GPTQModel chooses; --backend names another. Tokens come from generate(), greedily, as
users call it. Needs requirements-transformers.txt.
"""
import collections
import importlib.metadata
import os

import protocol


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

    def generate(ids, new_tokens):
        ids = torch.tensor(ids)
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                 min_new_tokens=new_tokens, max_new_tokens=new_tokens, pad_token_id=0)
        if out.shape[1] != ids.shape[1] + new_tokens:
            raise RuntimeError(f"{out.shape[1]} tokens instead of {ids.shape[1] + new_tokens}")

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (args.library, "transformers", "torch"))
    protocol.serve_generate(say, generate, args.first, {"ready": versions, "kernel": kernel})


if __name__ == "__main__":
    main()
