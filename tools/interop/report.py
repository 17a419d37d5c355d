"""docs/interop.md: written by tools/interop/run, the same text for the same results."""
import subprocess

import limits

READERS = {
    "transformers": "Transformers (with GPTQModel for GPTQ and AWQ, bitsandbytes for its own)",
    "gptqmodel": "GPTQModel, plain PyTorch backend",
    "autoawq": "AutoAWQ, plain PyTorch arithmetic",
    "autoawq_pack": "AutoAWQ's packers (no CPU code runs gemv and gemv_fast)",
    "nibble": "Nibble: quantizes; the right modules are quantized",
}

HEAD = """# Interoperability

Written by `tools/interop/run`; do not edit. Every row is a model that `nibble quantize` made and an original
library loaded unchanged. Logits are compared with `nibble logits --compute f32`; the greedy continuation of the
library must take Nibble's best token at each step, or one within twice the tolerance of it. Differences are
shares of the logits' standard deviation; where the tolerances come from stands in `tools/interop/checks.py`.
Everything runs on a CPU: the GPU kernels of these libraries and of vLLM and ExLlama were not tried, neither with
ordinary files nor with the negative scales of `--signed-scales`, which the readers below take.
"""

LIMITS = """## What the libraries cannot read

Limits of the libraries, whoever wrote the file. A reader that "refuses" was tried, and said so; one that is
"left out" loads the file without a word and computes something else.
"""


def describe(row):
    text = f"{row['reader']}: {row['what']}"
    if row["arithmetic"]:
        text += f" ({row['arithmetic']}): {row['difference']:.2g}, allowed {row['tolerance']:.2g}"
    return text + (f": {row['note']}" if row.get("note") else "")


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def versions_text(versions, nibble):
    main, old = versions["main"], versions["autoawq"]
    own = subprocess.run([nibble, "--version"], capture_output=True, text=True).stdout.split()
    names = [f"Nibble {own[1] if len(own) > 1 else '?'}"]
    names += [f"{name} {main[name]}" for name in ("torch", "transformers", "gptqmodel", "optimum", "bitsandbytes")
              if name in main]
    if old:
        names.append(f"autoawq {old.get('autoawq')} with transformers {old.get('transformers')}")
    return "Versions: " + ", ".join(names) + ".\n"


def summary(results):
    counts = {}
    for case, rows in results:
        for row in rows:
            key = (case.group, row["reader"], row["what"], row["arithmetic"])
            counts.setdefault(key, []).append(row)
    lines = []
    for (group, reader, what, arithmetic), rows in counts.items():
        lines.append((group, reader, f"{what} ({arithmetic})" if arithmetic else what, len(rows),
                      sum(row["passed"] for row in rows), f"{max(row['difference'] for row in rows):.1e}",
                      f"{max(row['tolerance'] for row in rows):.1e}"))
    return table(("group", "reader", "check", "cases", "passed", "largest difference", "allowed"), lines)


def details(results):
    lines = []
    for case, rows in results:
        cells = []
        for reader in dict.fromkeys(row["reader"] for row in rows):
            own = [row for row in rows if row["reader"] == reader]
            if not all(row["passed"] for row in own):
                cells.append(f"{reader} **failed**")
            elif reader != "nibble":
                words = [f"{row['difference']:.0e}" for row in own if row["tolerance"]]
                words += dict.fromkeys(row["note"] for row in own if row.get("note"))
                cells.append(f"{reader} ok " + ", ".join(words))
        lines.append((case.group, case.name, "; ".join(cells)))
    return table(("group", "case", "readers (differences in the order of the checks)"), lines)


def limits_text(results):
    """Of the architectures that were tried."""
    sources = {case.source.partition(".")[0] for case, _ in results}
    lines = [(", ".join(name for name in limit.architectures if name in sources), ", ".join(limit.methods), limit.reader,
              "refuses" if limit.says else "left out", limit.why)
             for limit in limits.LIMITS if sources & set(limit.architectures)]
    return [LIMITS, table(("architectures", "method", "reader", "what it does", "why"), lines)] if lines else []


def text(results, versions, nibble):
    failures = [(case, row) for case, rows in results for row in rows if not row["passed"]]
    bad = len({(case.group, case.name) for case, _ in failures})
    parts = [HEAD, versions_text(versions, nibble), f"{len(results)} cases, {len(results) - bad} good.\n",
             "Readers:\n", table(("reader", "what it is"), READERS.items()), "## Summary\n", summary(results)]
    if failures:
        parts += ["## Failures\n", "\n".join(f"- {case.group}: {case.name}: {describe(row)}" for case, row in failures) + "\n"]
    parts += limits_text(results)
    parts += ["## Cases\n", details(results)]
    return "\n".join(parts)
