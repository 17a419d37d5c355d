"""How bench/compare_peers talks to the programs that run a peer: lines of JSON.

A peer loads its model and says {"ready": ...}. Then it reads the name of a test per line, and answers each with
{"seconds": ..., "tokens": ...} or {"error": ...}, until its standard input ends. With --first it makes one token
instead, says {"first": true}, and ends.
"""
import argparse
import json
import os
import random
import re
import sys
import time
import typing

FIRST_PROMPT = 32  # tokens before the first one that is made
PROMPT = 16  # tokens before those that are decoded


class Test(typing.NamedTuple):
    """pp512, tg128, tg128b4, tg128d4096, tg128b8d4096: the words of `nibble bench`, without blanks."""
    kind: str
    tokens: int
    batch: int = 1
    depth: int = 0

    @classmethod
    def parse(cls, name):
        match = re.fullmatch(r"(pp|tg)(\d+)(?:b(\d+))?(?:d(\d+))?", name)
        if not match or (match[1] == "pp" and match[3]):
            sys.exit(f"{name} is no test: pp512, tg128, tg128b4, tg128d4096, tg128b8d4096")
        return cls(match[1], int(match[2]), int(match[3] or 1), int(match[4] or 0))

    def __str__(self):
        return (f"{self.kind}{self.tokens}" + (f"b{self.batch}" if self.batch > 1 else "") +
                (f"d{self.depth}" if self.depth else ""))


def arguments(description, *more):
    """The options that every peer has, and `more`: pairs of names and keywords."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--first", action="store_true")
    for name, keywords in more:
        parser.add_argument(name, **keywords)
    return parser.parse_args()


def take_stdout():
    """A function that writes a line of JSON. Whatever the libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**fields):
        out.write(json.dumps(fields) + "\n")
        out.flush()

    return say


def serve(say, run):
    """run(Test) returns seconds; whatever it raises is the answer."""
    for line in sys.stdin:
        test = Test.parse(line.strip())
        try:
            say(seconds=run(test), tokens=test.tokens * test.batch)
        except Exception as error:  # of somebody else's library: any kind
            say(error=f"{type(error).__name__}: {error}"[:300])


def serve_generate(say, generate, first, ready):
    """For libraries that only generate. generate(ids, new_tokens): rows of ids, each continued greedily by so many.

    The time of the prompt is taken out of decoding. ready: what to say of the library, once the model is there.
    """
    def seconds(rows, length, new_tokens):
        choose = random.Random(0)
        ids = [[choose.randrange(300, 8000) for _ in range(length)] for _ in range(rows)]
        begin = time.perf_counter()
        generate(ids, new_tokens)
        return time.perf_counter() - begin

    if first:
        seconds(1, FIRST_PROMPT, 1)
        say(first=True)
        os._exit(0)  # how long Python takes to end is not the question
    say(**ready)
    seconds(1, PROMPT, 4)  # warms up

    def run(test):
        if test.kind == "pp":
            return seconds(1, test.depth + test.tokens, 1) - (seconds(1, test.depth, 1) if test.depth else 0)
        length = max(PROMPT, test.depth)
        prompt = min(seconds(test.batch, length, 1) for _ in range(2))
        return seconds(test.batch, length, test.tokens + 1) - prompt

    serve(say, run)
