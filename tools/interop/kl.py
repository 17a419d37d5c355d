#!/usr/bin/env python3
"""How far a quantized model's predictions are from the original's.

    kl.py REFERENCE CANDIDATE... --text FILE [--tokens 32768] [--window 512] [--nibble PATH] [-t N]

REFERENCE and CANDIDATE are folders that `nibble logits` reads. The first --tokens tokens of the text (no
BOS) are cut into windows without overlap, each scored from an empty context with `--compute f32`: the
weights exactly as the files define them. One line of JSON for each candidate:

    kl              mean of KL(reference || candidate) in nats over positions 0 .. window - 2
    kl_stderr, kl_p99
    perplexity, perplexity_reference    over the same positions
    top1_agreement  how often both have the same best token

Sums are in double precision. For WikiText-2, FILE is the raw test split. Needs numpy.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
try:
    import numpy as np
except ImportError:
    sys.exit("kl.py needs numpy: pip install numpy, or start it with a Python that has it.")
import tensors  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BYTES_OF_LOGITS = 400_000_000  # at a time; a large vocabulary makes 6 GB of 32768 tokens


def token_windows(nibble, model, text, tokens, window):
    command = [nibble, "tokenize", model, "--file", text, "--no-special-tokens", "-q"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ids = json.loads(out)["ids"][:tokens]
    if len(ids) < window:
        sys.exit(f"{text} has {len(ids)} tokens, less than one window of {window}.")
    return [ids[begin:begin + window] for begin in range(0, len(ids) - window + 1, window)]


def logits(nibble, model, windows, threads):
    """float32 [windows, window, vocab]"""
    with tempfile.TemporaryDirectory() as work:
        inputs, outputs = pathlib.Path(work) / "ids.safetensors", pathlib.Path(work) / "logits.safetensors"
        tensors.write(inputs, {"input_ids": tensors.int32(windows)})
        subprocess.run([nibble, "logits", model, "--input-ids", inputs, "-o", outputs, "--compute", "f32", "-q",
                        "-t", str(threads)], check=True, stdout=subprocess.DEVNULL)
        table, begin = tensors.header(outputs)
        return np.fromfile(outputs, np.float32, offset=begin + table["logits"]["data_offsets"][0]).reshape(
            table["logits"]["shape"])


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows -= rows.max(-1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
    return rows


def compare_window(reference, candidate, ids):
    """Per position: KL, log likelihood of the next token in both, whether the best token is the same."""
    p, q = log_softmax(reference[:-1]), log_softmax(candidate[:-1])
    at, next_ids = np.arange(len(ids) - 1), np.asarray(ids[1:])
    return (np.exp(p) * (p - q)).sum(-1), p[at, next_ids], q[at, next_ids], p.argmax(-1) == q.argmax(-1)


def measure(nibble, reference, candidates, windows, threads=2, reference_logits=None):
    """A dictionary of results for each candidate. `reference_logits` is a function of windows."""
    found = {candidate: [] for candidate in candidates}
    vocab = json.loads((pathlib.Path(reference) / "config.json").read_text())["vocab_size"]
    step = max(1, BYTES_OF_LOGITS // (len(windows[0]) * vocab * 4))
    for first in range(0, len(windows), step):
        part = windows[first:first + step]
        expected = (reference_logits or (lambda w: logits(nibble, reference, w, threads)))(part)
        for candidate in candidates:
            got = logits(nibble, candidate, part, threads)
            found[candidate] += [compare_window(*each) for each in zip(expected, got, part)]
    results = {}
    for candidate, rows in found.items():
        kl, original, own, same = (np.concatenate(column) for column in zip(*rows))
        results[candidate] = {
            "kl": float(kl.mean()), "kl_stderr": float(kl.std() / len(kl) ** 0.5), "kl_p99": float(np.quantile(kl, 0.99)),
            "perplexity": float(np.exp(-own.mean())), "perplexity_reference": float(np.exp(-original.mean())),
            "top1_agreement": float(same.mean()), "positions": len(kl)}
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference")
    parser.add_argument("candidates", nargs="+")
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--nibble", default=ROOT / "build" / "release" / "nibble")
    parser.add_argument("-t", "--threads", type=int, default=2)
    args = parser.parse_args()
    windows = token_windows(args.nibble, args.reference, args.text, args.tokens, args.window)
    for candidate, result in measure(args.nibble, args.reference, args.candidates, windows, args.threads).items():
        print(json.dumps({"candidate": candidate, **result, "tensor_bytes": tensors.tensor_bytes(candidate)}))


if __name__ == "__main__":
    main()
