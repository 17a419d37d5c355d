"""Runs in an environment of the original libraries: reads one request per line, answers with one line.

A request is {reader, folder, source, prompt, nibble, twin}; the answer {checks: [...]} or {error}. The
libraries write what they like to standard output, so answers go to a descriptor of their own.
"""
import json
import os
import sys
import traceback

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # GPTQModel 7.7.0 does not start on two cores otherwise
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # compiling a dequantization takes longer than a thousand runs of it
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of models this small, threads only wait for each other
sys.dont_write_bytecode = True


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import readers

    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"checks": readers.READERS[request["reader"]](request)}
        except Exception as error:  # a refusal of the library: the caller knows whether it was expected
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # GPTQModel's threads end late


if __name__ == "__main__":
    if sys.argv[1:] == ["--versions"]:
        from importlib.metadata import PackageNotFoundError, version

        found = {}
        for name in ("torch", "transformers", "gptqmodel", "optimum", "bitsandbytes", "autoawq"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                pass
        print(json.dumps(found))
    else:
        main()
