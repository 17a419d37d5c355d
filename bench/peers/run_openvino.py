#!/usr/bin/env python3
"""OpenVINO GenAI as a peer of bench/compare_peers: run_openvino.py FOLDER [--threads N] [--first]

FOLDER is what `optimum-cli export openvino --weight-format int4` made. Needs requirements-openvino.txt.
"""
import importlib.metadata

import numpy as np
import openvino
import openvino_genai as genai
import protocol


def main():
    args = protocol.arguments(__doc__)
    say = protocol.take_stdout()
    pipeline = genai.LLMPipeline(args.model, "CPU", INFERENCE_NUM_THREADS=args.threads, PERFORMANCE_HINT="LATENCY")

    def generate(ids, new_tokens):
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new_tokens
        config.do_sample, config.ignore_eos = False, True
        ids = np.array(ids, np.int64)
        inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        made = [len(row) for row in pipeline.generate(inputs, config).tokens]
        if made != [new_tokens] * len(ids):
            raise RuntimeError(f"{made} tokens instead of {new_tokens}")

    version = "openvino-genai " + importlib.metadata.version("openvino-genai")
    protocol.serve_generate(say, generate, args.first, {"ready": version, "kernel": "int4, int8 activations"})


if __name__ == "__main__":
    main()
