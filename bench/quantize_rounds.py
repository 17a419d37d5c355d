"""What quantize_vs_gptqmodel and quantize_vs_autoawq share: rounds that alternate the programs."""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a float checkpoint")
    parser.add_argument("tokens", help="safetensors file with input_ids [samples, length], of the model's vocabulary")
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--effort", action="append", default=[], help="of Nibble; may be repeated")
    return parser.parse_args()


def pin(threads):
    """To the same processors, for the children too."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def report(**fields):
    print(json.dumps(fields), flush=True)


def run(command, what):
    """Wall seconds, peak memory in bytes, standard output."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=said, text=True,
                                   errors="replace")
        out = process.stdout.read()
        usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if usage[1] != 0:
            said.seek(0)
            sys.exit(f"{what} failed: {' '.join(said.read().split())[-600:]}")
    return seconds, usage[2].ru_maxrss * 1024, out


def nibble(args, method, effort, out):
    program = os.environ.get("NIBBLE", ROOT / "build" / "release" / "nibble")
    seconds, peak, _ = run([program, "quantize", args.model, "-o", out, "--method", method, "--effort", effort,
                            "--bits", args.bits, "--group-size", args.group_size, "--dataset", args.tokens,
                            "--nsamples", args.samples, "--seqlen", args.length, "--no-check", "-t", args.threads, "-q"],
                           f"nibble --effort {effort}")
    return {"library": "nibble", "effort": effort, "seconds": round(seconds, 3), "peak_memory_bytes": peak}


def peer(args, library, out):
    python = os.environ.get("PYTHON", "python3")
    wall, _, text = run([python, ROOT / "bench" / "peer_quantize.py", library, args.model, args.tokens, out,
                         "--samples", args.samples, "--length", args.length, "--group-size", args.group_size,
                         "--bits", args.bits, "--threads", args.threads], library)
    result = json.loads([line for line in text.splitlines() if line.startswith("{")][-1])
    return {**result, "seconds_with_imports": round(wall, 3)}


def version_of_nibble():
    program = os.environ.get("NIBBLE", ROOT / "build" / "release" / "nibble")
    return " ".join(subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split())


def compare(args, library, method, efforts):
    """Every round: the library, then Nibble with each effort. Then the medians over the rounds of the
    ratio (library's seconds) / (Nibble's seconds), the library's without its imports."""
    pin(args.threads)
    report(cpu=cpu_name(), threads=args.threads, nibble=version_of_nibble(), model=args.model, samples=args.samples,
           length=args.length, group_size=args.group_size, bits=args.bits, method=method, rounds=args.rounds)
    seconds = {effort: [] for effort in efforts}
    ratios = {effort: [] for effort in efforts}
    theirs_all = []
    with tempfile.TemporaryDirectory(prefix="nibble-bench-") as work:
        out = pathlib.Path(work) / "out"
        for number in range(1, args.rounds + 1):
            theirs = peer(args, library, out)
            shutil.rmtree(out)
            report(round=number, **theirs)
            theirs_all.append(theirs["seconds"])
            for effort in efforts:
                ours = nibble(args, method, effort, out)
                shutil.rmtree(out)
                seconds[effort].append(ours["seconds"])
                ratios[effort].append(theirs["seconds"] / ours["seconds"])
                report(round=number, **ours, ratio=round(ratios[effort][-1], 2))
    report(median=library, seconds=round(statistics.median(theirs_all), 3))
    for effort in efforts:
        report(median="nibble", effort=effort, seconds=round(statistics.median(seconds[effort]), 3),
               ratio=round(statistics.median(ratios[effort]), 2))
