#!/usr/bin/env python3
"""llama.cpp as a peer of bench/compare_peers: run_llamacpp.py FILE.gguf [--threads N] [--first]

Decoding goes through llama_decode() with fixed tokens, as in llama-bench and llama-batched-bench; nothing of
Python's is inside the time but the filling of a batch. Needs llama-cpp-python, compiled for this machine:
    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python -r requirements-llamacpp.txt
"""
import importlib.metadata
import random
import re
import time

import llama_cpp as llama
import protocol

BATCH = 2048  # tokens that one call takes; llama.cpp computes them 512 at a time


class Context:
    """Sequences of up to `length` tokens, with `depth` tokens in each between two tests."""

    def __init__(self, model, threads, sequences, length, depth):
        params = llama.llama_context_default_params()
        params.n_ctx = sequences * (-(-length // 256) * 256)
        params.n_batch, params.n_ubatch, params.n_seq_max = BATCH, 512, sequences
        params.n_threads = params.n_threads_batch = threads
        self.handle = llama.llama_init_from_model(model, params)
        if not self.handle:
            raise MemoryError("llama_init_from_model failed")
        self.memory = llama.llama_get_memory(self.handle)
        self.batch = llama.llama_batch_init(BATCH, 0, 1)
        self.sequences, self.depth = sequences, depth
        vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        tokens = random.Random(0)
        self.tokens = [tokens.randrange(300, min(8000, vocab)) for _ in range(length)]
        for sequence in range(sequences):
            self.read(sequence, 0, depth)

    def decode(self, items):
        """items: (position, sequence, whether logits are wanted)"""
        batch = self.batch
        batch.n_tokens = len(items)
        for i, (position, sequence, wanted) in enumerate(items):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = self.tokens[position], position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wanted
        if llama.llama_decode(self.handle, batch) != 0:
            raise RuntimeError("llama_decode failed")
        if any(wanted for _, _, wanted in items):
            llama.llama_get_logits_ith(self.handle, -1)  # waits until they are there

    def read(self, sequence, begin, end):
        for at in range(begin, end, BATCH):
            stop = min(at + BATCH, end)
            self.decode([(i, sequence, i == end - 1) for i in range(at, stop)])

    def run(self, test):
        for sequence in range(self.sequences):
            llama.llama_memory_seq_rm(self.memory, sequence, self.depth, -1)
        begin = time.perf_counter()
        if test.kind == "pp":
            self.read(0, self.depth, self.depth + test.tokens)
        else:
            for position in range(self.depth, self.depth + test.tokens):
                self.decode([(position, sequence, True) for sequence in range(self.sequences)])
        return time.perf_counter() - begin


def main():
    args = protocol.arguments(__doc__)
    say = protocol.take_stdout()
    llama.llama_backend_init()
    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, None)
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.model}")
    if args.first:
        Context(model, args.threads, 1, protocol.FIRST_PROMPT + 1, 0).run(protocol.Test("pp", protocol.FIRST_PROMPT))
        say(first=True)
        return
    say(ready="llama-cpp-python " + importlib.metadata.version("llama-cpp-python"),
        kernel=", ".join(re.findall(r"(\w+) = 1", llama.llama_print_system_info().decode())))
    contexts = {}

    def run(test):
        if test not in contexts:  # each with its own: cells of another test's sequences would be looked at, too
            contexts[test] = Context(model, args.threads, test.batch, test.depth + test.tokens, test.depth)
            contexts[test].run(test._replace(tokens=min(8, test.tokens)))  # warms up
        return contexts[test].run(test)

    protocol.serve(say, run)


if __name__ == "__main__":
    main()
