"""Adapters that break the contract between a model and the harness: `check` names what, a run refuses or converts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.fault import Command, Fault, World
from tests.faults.plugins import install

RUN: Command = ("mmeb-eval", "run", "--model", "odd", "--tasks", "DocVQA", "--limit", "4", "--output", "odd")
HONEST: Command = ("mmeb-eval", "run", "--model", "honest", "--tasks", "DocVQA", "--limit", "4", "--output", "honest")
CHECK: Command = ("mmeb-eval", "check", "odd")

#: A model that does all right, and one that differs by what `odd` does in the end.
ADAPTER = """
import hashlib, os, random, sys, threading, time
import numpy as np
from mmeb_harness import EncodeResult, ModelInfo, Trace

def unit(item):
    seen = [item.text.encode(), item.instruction.encode(), *(path.read_bytes() for path in item.media)]
    seed = int.from_bytes(hashlib.sha256(b"|".join(seen)).digest()[:8])
    vector = np.random.default_rng(seed).normal(size=8)
    return (vector / np.linalg.norm(vector)).astype(np.float32)

class Honest:
    info = ModelInfo("odd", "1", 8)
    calls = 0
    def encode(self, items, role):
        self.calls += 1
        return EncodeResult(self.vectors(items), self.traces(items))
    def vectors(self, items):
        return np.stack([unit(item) for item in items])
    def traces(self, items):
        return None

class Budgeted(Honest):
    def cost(self, item, role):
        return 10
    def prepare(self, items, role):
        return [unit(item) for item in items]
    def encode_prepared(self, prepared):
        return EncodeResult(np.stack(prepared))
    def encode(self, items, role):
        return self.encode_prepared(self.prepare(items, role))
"""


def adapter(body: str, base: str = "Honest") -> str:
    """The module of a model that differs from an honest one in these methods."""
    return ADAPTER + f"\nclass Odd({base}):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def _made(body: str, base: str, *commands: Command) -> Callable[[World], Sequence[Command]]:
    def make(world: World) -> Sequence[Command]:
        install(world, adapter(body, base), models="odd = odd:Odd\nhonest = odd:Honest")
        return commands

    return make


def _checked(name: str, body: str, says: str, base: str = "Honest") -> Fault:
    return Fault(
        "adapters", f"{name}, checked", _made(body, base, CHECK), (says, r"1 check failed|\d checks failed"), 1
    )


def _refused(name: str, body: str, says: str, base: str = "Honest") -> Fault:
    return Fault("adapters", f"{name}, run", _made(body, base, RUN), (says,))


def _vectors(name: str, expression: str, says: str) -> Fault:
    return _refused(
        f"vectors are {name}", f"def vectors(self, items): v = super().vectors(items); return {expression}", says
    )


def _like_honest(name: str, body: str) -> Fault:
    """A run ends with the scores of an honest model."""

    def holds(world: World) -> None:
        odd, honest = (_scores(world.folder / run) for run in ("odd", "honest"))
        assert odd == honest, f"{odd} and {honest}"

    run = (*RUN, "--vectors", "of its own")  # else those of the honest one would do
    return Fault("adapters", f"{name}, run", _made(body, "Honest", HONEST, run), ("DocVQA: hit@1",), 0, holds=holds)


def _scores(run: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((run / "tasks" / "DocVQA.json").read_text())["metrics"]
    return metrics


def _kept_before_nan(world: World) -> None:
    """What came before the item stays: 64 candidates a batch, and the query is in the last."""
    assert list((world.folder / ".vectors").rglob("chunk-*")), "nothing is stored"


REUSED = """buffer = np.zeros((64, 8), np.float32)
def vectors(self, items):
    self.buffer[:len(items)] = super().vectors(items)
    return self.buffer[:len(items)]"""
RING = """buffers = [np.zeros((64, 8), np.float32) for _ in range(7)]
def vectors(self, items):
    buffer = self.buffers[self.calls % 7]
    buffer[:len(items)] = super().vectors(items)
    for path in (path for item in items for path in item.media):
        path.with_suffix(".npy").write_bytes(b"")
    return buffer[:len(items)]
def encode(self, items, role):
    self.calls += 1
    return EncodeResult(self.vectors(items))
def cost(self, item, role):
    object.__setattr__(item, "instruction", "x")
    return 10"""
LATER = """def vectors(self, items):
    vectors = super().vectors(items)
    threading.Timer(0.01, vectors.fill, (0,)).start()
    return vectors"""
SORTED = """def encode(self, items, role):
    result = super().encode(sorted(items, key=lambda item: item.text) if role == "candidate" else items, role)
    random.random(), np.random.seed(self.calls), os.environ.update(A=str(self.calls))
    return result"""
CUT = """def vectors(self, items):
    vectors = super().vectors(items)
    vectors[16:] = vectors[:1]
    return vectors"""
BY_OBJECT = """seen = {}
def vectors(self, items):
    return np.stack([self.seen.setdefault(id(item), unit(item)) for item in items])"""
KINDS = """def vectors(self, items):
    vectors = super().vectors(items).astype(">f4")
    vectors.flags.writeable = False
    return np.asfortranarray(vectors) if self.calls % 2 else vectors.tolist()"""
RAISES = """class Lazy:
    def __array__(self, *_): raise KeyError("weights")
def vectors(self, items):
    return self.Lazy()"""
NAN = """def encode(self, items, role):
    result = super().encode(items, role)
    if role == "query":
        result.vectors[-1, 3] = np.nan
    return result"""
AHEAD = """def prepare(self, items, role):
    self.current = super().prepare(items, role)
    return len(items)
def encode_prepared(self, prepared):
    return super().encode_prepared(self.current)"""


def _before(line: str) -> str:
    return f"def encode(self, items, role):\n    {line}\n    return super().encode(items, role)"


def _traced(trace: str) -> str:
    return f"def traces(self, items): return tuple({trace} for item in items)"


FAULTS = (
    _checked(
        "seven buffers that take turns, files beside media, a cost that changes its item",
        RING,
        r"FAIL  cost +it changed the items[\s\S]*FAIL  own memory .*return a copy\nFAIL  media files .*\.npy",
        "Budgeted",
    ),
    _checked("vectors that are written to after they were returned", LATER, "FAIL  own memory .*return a copy"),
    _checked(
        "candidates in another order; random states and the environment",
        SORTED,
        "FAIL  candidates [\\s\\S]*FAIL  leaves the rest .*environment, the state of `random`, .*of numpy",
    ),
    _checked(
        "the end of a large batch is left out", CUT, "FAIL  candidates +at the end of a batch of 64: lowest cosine"
    ),
    _checked("remembers items by their place in memory", BY_OBJECT, "FAIL  batch of one +lowest cosine"),
    _like_honest("one buffer for all results", REUSED),
    _like_honest("big-endian in columns and read-only, then lists", KINDS),
    _refused(
        "vectors that raise where they become an array", RAISES, r"no array of numbers, .*KeyError: 'weights' \(odd"
    ),
    _checked(
        "changes an item",
        _before("object.__setattr__(items[0], 'text', 'x')"),
        "FAIL  text as query .*changed the items",
    ),
    _checked(
        "sorts the list it is given", _before("items.sort(key=lambda item: item.text)"), "FAIL .*changed the items"
    ),
    _checked(
        "writes into a picture",
        _before("[p.write_bytes(p.read_bytes() + b'0') for i in items for p in i.media]"),
        r"FAIL  media files .*changed files of media: 'red\.png'|FAIL  media files +it changed files of media",
    ),
    _checked(
        "depends on what came before",
        "def vectors(self, items): v = super().vectors(items); v[:, 0] += self.calls; "
        "return v / np.linalg.norm(v, axis=1, keepdims=True)",
        "FAIL  same again +lowest cosine",
    ),
    _checked(
        "forgets that another item can have the id",
        "seen = {}\ndef vectors(self, items):\n"
        "    return np.stack([self.seen.setdefault(item.id, unit(item)) for item in items])",
        "FAIL  other ids +lowest cosine",
    ),
    _checked(
        "depends on its batch",
        "def vectors(self, items): v = super().vectors(items); v = v - v.mean(0) * (len(v) > 1); "
        "return v / np.linalg.norm(v, axis=1, keepdims=True)",
        "FAIL  batch of one +lowest cosine",
    ),
    _checked("keeps what it prepared in itself", AHEAD, "FAIL  prepared ahead", "Budgeted"),
    _checked(
        "costs no number", "def cost(self, item, role): return item.id", "FAIL  cost .*a number of tokens", "Budgeted"
    ),
    _checked(
        "other numbers",
        "def vectors(self, items): return super().vectors(items).astype(np.float16).astype(np.float64)",
        "FAIL  kind of numbers +vectors as query are numpy.ndarray of float64; return a numpy.ndarray of float32",
    ),
    _checked(
        "one vector less",
        "def vectors(self, items): return super().vectors(items)[1:]",
        r"FAIL .*vectors of shape \(2, 8\)",
    ),
    _checked(
        "a vector of zeros",
        "def vectors(self, items): return 0 * super().vectors(items)",
        r"FAIL .*length 0\.0000 for query",
    ),
    _checked("NaN", NAN, r"FAIL  text as query .*NaN or infinity for query 'text symbols' \('Naïve"),
    _checked(
        "more seconds than there were, and a rationale that it can't write",
        _traced("Trace('reasoned', 0.5, 'because', 1, seconds=3600.0)"),
        r"FAIL  seconds .* is 3600, in a call that[\s\S]*FAIL  traces .*doesn't say reasons=True[\s\S]*2 checks failed",
    ),
    _checked("writes to the descriptor", _before("os.write(1, b'encoding')"), "FAIL  leaves the rest .*'encoding'"),
    _checked(
        "raises",
        _before("{}['weights']"),
        r"FAIL  text as query +model 'odd': KeyError: 'weights' \(odd\.py:\d+, in encode\)",
    ),
    Fault(
        "adapters",
        "NaN, run",
        _made(NAN, "Honest", RUN),
        (r"error: DocVQA: model 'odd' returned NaN or infinity for query '\w+' \('.+'\)$",),
        holds=_kept_before_nan,
    ),
    _refused(
        "raises",
        _before("{}['weights']"),
        r"error: DocVQA: model 'odd': KeyError: 'weights' \(odd\.py:\d+, in encode\) over \d+",
    ),
    _refused("calls sys.exit(0)", _before("sys.exit(0)"), r"model 'odd': called sys\.exit\(0\)"),
    _refused(
        "calls sys.exit(0) in a thread",
        "def prepare(self, items, role): sys.exit(0)",
        r"model 'odd': called sys\.exit\(0\) \(odd.* while it prepared",
        "Budgeted",
    ),
    _refused("raises KeyboardInterrupt", _before("raise KeyboardInterrupt"), "model 'odd': KeyboardInterrupt"),
    _refused(
        "no result at all", "def encode(self, items, role): return None", "returned None for .*, not an EncodeResult"
    ),
    _vectors(
        "numbers that float32 can't hold",
        "v.astype(np.float64) + 1e-12",
        "of float64 that float32 doesn't hold exactly for",
    ),
    _vectors("lists of unequal length", "[[1.0], [1.0, 2.0]]", "no array of numbers, a list, for"),
    _vectors("masked", "np.ma.masked_less(v, 0)", "no array of numbers, numpy.*MaskedArray of float32"),
    _vectors("one vector for all", "v[0]", r"vectors of shape \(8,\) for"),
)
