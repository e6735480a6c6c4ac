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
import hashlib, os, random, sys, time
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
    return Fault("adapters", f"{name}, checked", _made(body, base, CHECK), (says, r"checks failed"), 1)


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

    return Fault("adapters", f"{name}, run", _made(body, "Honest", HONEST, RUN), ("DocVQA: hit@1",), 0, holds=holds)


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
TURNS = """buffers = [np.zeros((64, 8), np.float32), np.zeros((64, 8), np.float32)]
def vectors(self, items):
    buffer = self.buffers[self.calls % 2]
    buffer[:len(items)] = super().vectors(items)
    return buffer[:len(items)]"""
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
        "one buffer for all results", REUSED, "FAIL  own memory .*views of a buffer that it uses again; return a copy"
    ),
    _checked("two buffers that take turns", TURNS, "FAIL  own memory .*return a copy"),
    _like_honest("one buffer for all results", REUSED),
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
        "answers in another order",
        "def vectors(self, items): return super().vectors(sorted(items, key=lambda i: i.text))",
        "FAIL  batch of one +lowest cosine",
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
        "no unit length",
        "def vectors(self, items): return 2 * super().vectors(items)",
        r"FAIL .*length 2\.0000 for query",
    ),
    _checked(
        "a vector of zeros",
        "def vectors(self, items): return 0 * super().vectors(items)",
        r"FAIL .*length 0\.0000 for query",
    ),
    _checked("NaN", NAN, r"FAIL  text as query .*NaN or infinity for query 'text symbols' \('Naïve"),
    _checked(
        "no seconds",
        _traced("Trace(seconds=0.0)"),
        r"FAIL  seconds +Trace\.seconds of 'text short' is 0, in a call that",
    ),
    _checked(
        "more seconds than there were", _traced("Trace(seconds=3600.0)"), r"FAIL  seconds .* is 3600, in a call that"
    ),
    _checked(
        "seconds before the start", _traced("Trace(seconds=-1.0)"), r"FAIL  text as query .*a trace of -1\.0 seconds"
    ),
    _checked("a gate above one", _traced("Trace(gate=1.5)"), r"FAIL .*of gate 1\.5, which is no probability"),
    _checked(
        "prints", _before("print('encoding')"), "FAIL  leaves the rest .*writes to the standard output.*'encoding'"
    ),
    _checked("writes to the descriptor", _before("os.write(1, b'encoding')"), "FAIL  leaves the rest .*'encoding'"),
    _checked("seeds numpy", _before("np.random.seed(self.calls)"), "FAIL  leaves the rest .*the random state of numpy"),
    _checked("draws from random", _before("random.random()"), "FAIL  leaves the rest .*the state of `random`"),
    _checked(
        "sets the environment", _before("os.environ['A'] = str(self.calls)"), "FAIL  leaves the rest .*the environment"
    ),
    _checked(
        "raises",
        _before("{}['weights']"),
        r"FAIL  text as query +model 'odd': KeyError: 'weights' \(odd\.py:\d+, in encode\)",
    ),
    _checked("calls sys.exit(0)", _before("sys.exit(0)"), r"FAIL  text as query +model 'odd': called sys\.exit\(0\)"),
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
    _like_honest("vectors are lists", "def vectors(self, items): return super().vectors(items).tolist()"),
    _like_honest(
        "vectors are big-endian, in columns and read-only",
        "def vectors(self, items):\n"
        "    v = np.asfortranarray(super().vectors(items).astype('>f4'))\n    v.flags.writeable = False\n    return v",
    ),
    _vectors(
        "numbers that float32 can't hold",
        "v.astype(np.float64) + 1e-12",
        "of float64 that float32 doesn't hold exactly for",
    ),
    _vectors("complex", "v.astype(complex)", "no array of numbers, numpy.ndarray of complex128"),
    _vectors("texts", "v.astype(str)", "no array of numbers, numpy.ndarray of <U"),
    _vectors("objects", "v.astype(object)", "no array of numbers, numpy.ndarray of object"),
    _vectors("None", "None", "no array of numbers, None, for"),
    _vectors("lists of unequal length", "[[1.0], [1.0, 2.0]]", "no array of numbers, a list, for"),
    _vectors("masked", "np.ma.masked_less(v, 0)", "no array of numbers, numpy.*MaskedArray of float32"),
    _vectors("one vector for all", "v[0]", r"vectors of shape \(8,\) for"),
)
