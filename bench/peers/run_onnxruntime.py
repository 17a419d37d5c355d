#!/usr/bin/env python3
"""ONNX Runtime GenAI as a peer of bench/compare_peers: run_onnxruntime.py FOLDER [--threads N] [--first]

FOLDER is what `python -m onnxruntime_genai.models.builder -p int4 -e cpu` made. Needs requirements-onnxruntime.txt.
"""
import importlib.metadata
import json

import numpy as np
import onnxruntime_genai as genai
import protocol


def main():
    args = protocol.arguments(__doc__)
    say = protocol.take_stdout()
    config = genai.Config(args.model)
    session = {"intra_op_num_threads": args.threads}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = genai.Model(config)

    def generate(ids, new_tokens):
        ids = np.array(ids, np.int32)
        length = ids.shape[1] + new_tokens
        params = genai.GeneratorParams(model)
        params.set_search_options(do_sample=False, min_length=length, max_length=length, batch_size=len(ids))
        generator = genai.Generator(model, params)
        generator.append_tokens(ids if len(ids) > 1 else ids[0])
        for _ in range(new_tokens):
            generator.generate_next_token()

    version = "onnxruntime-genai " + importlib.metadata.version("onnxruntime-genai")
    protocol.serve_generate(say, generate, args.first, {"ready": version, "kernel": "int4, blocks of 32, int8 activations"})


if __name__ == "__main__":
    main()
