"""What verifying stored vectors costs a whole run that has nothing left to encode.

python -m tests.benchmarks.stored [--items N] [--dimensions N] [--queries N] [--repeats N]

Made-up texts with made-up vectors, stored as a run leaves them. Whole runs, from reading the task to its result, with
verification and without in turn, in this process and from warm files: a cold disk hides more. Exit code 1 if the median
of the ratios is above 1.1.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import click
import numpy as np

from mmeb_harness import EncodeResult, Frames, Item, ModelInfo, Role, Samples, Task, Trace
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.run.evaluate import evaluate
from mmeb_harness.run.plan import Plan, RunSettings, make_plan
from mmeb_harness.spread.shares import StoredOnly
from mmeb_harness.store import vectors
from mmeb_harness.store.media import MediaHashes
from tests.toy import QuietReporter

MOST = 1.1


class Stored:
    """A model of which only the vectors are there."""

    def __init__(self, dimensions: int) -> None:
        self.info = ModelInfo("stored", "1", dimensions, reasons=True)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        raise AssertionError("nothing is left to encode")


def samples(queries: int, items: int) -> Samples:
    """Every query asks for one text among all."""
    texts = tuple(Item(f"c{i}", text=f"made-up text number {i}") for i in range(items - queries))
    asked = tuple(Item(f"q{i}", text=f"question number {i}") for i in range(queries))
    return Samples(asked, texts, {query.id: {text.id: 1.0} for query, text in zip(asked, texts, strict=False)})


def store_all(folder: Path, model: ModelInfo, made: Samples, root: Path) -> None:
    """Random unit vectors, some of which a rationale came before."""
    store, hashes, rng = (
        vectors.VectorStore(folder, model=model),
        MediaHashes(root / ".media", root),
        np.random.default_rng(0),
    )
    parts: tuple[tuple[Sequence[Item], Role], ...] = ((made.queries, "query"), (made.candidates, "candidate"))
    for items, role in parts:
        for start in range(0, len(items), vectors.FLUSH_ITEMS):
            keys = vectors.content_keys(items[start : start + vectors.FLUSH_ITEMS], role, hashes)
            block = rng.standard_normal((len(keys), model.dimensions), dtype=np.float32)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            traces = tuple(Trace("reasoned", 0.75, f"because {key}", 9) if role == "query" else Trace() for key in keys)
            store.add(keys, Encoded(block, traces, np.full(len(keys), 0.5), np.full(len(keys), 0.25)))
    store.flush()


def timed(plan: Plan, embedder: Stored, verified: bool) -> tuple[float, float]:
    """Seconds of a whole run, and of processors in it: others' work on this machine makes only the first longer."""
    started, started_working = time.perf_counter(), time.process_time()
    parts = {"look_through": mock.DEFAULT, "settle": mock.DEFAULT, "_judge": lambda *_: {}}
    with nullcontext() if verified else mock.patch.multiple(vectors.VectorStore, **parts):
        evaluate([plan], embedder, lambda _: nullcontext(StoredOnly("all should be there")), QuietReporter())
    return time.perf_counter() - started, time.process_time() - started_working


@click.command(help=__doc__)
@click.option("--items", type=click.IntRange(min=2), default=1_000_000, show_default=True)
@click.option("--dimensions", type=click.IntRange(min=2), default=256, show_default=True)
@click.option("--queries", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
def main(items: int, dimensions: int, queries: int, repeats: int) -> None:
    embedder, made = Stored(dimensions), samples(queries, items)

    def load(root: Path, frames: Frames) -> Samples:
        return made

    task = Task("Stored", "image", "I-CLS", "hit@1", load, annotations=("stored.json",))
    registered = {task.name: RegisteredTask(task, BENCHMARK)}
    ratios = []
    with tempfile.TemporaryDirectory(prefix="mmeb-stored-") as name:
        (Path(name) / "stored.json").write_text("{}")

        def plan_into(output: str) -> Plan:
            settings = RunSettings(output=Path(name) / output)
            return make_plan([*registered.values()], registered, DataInfo(Path(name)), embedder.info, settings)

        store_all(plan_into("first").vectors, embedder.info, made, Path(name))
        click.echo(f"{items:,} stored vectors of {dimensions}, {queries:,} queries, {repeats} pairs of whole runs")
        for repeat in range(repeats):
            seconds = {}
            for verified in (True, False) if repeat % 2 else (False, True):
                seconds[verified] = timed(plan_into(f"{repeat}-{verified}"), embedder, verified)
            (wall, work), (plain_wall, plain_work) = seconds[True], seconds[False]
            ratios.append((wall / plain_wall, work / plain_work))
            click.echo(f"verified {wall:.2f} s, unverified {plain_wall:.2f} s: {wall / plain_wall:.3f}")
            click.echo(f"of processors {work:.2f} s and {plain_work:.2f} s: {work / plain_work:.3f}")
    median, of_work = map(statistics.median, zip(*ratios, strict=True))
    click.echo(f"median ratio {median:.3f} (may be {MOST}), of processors' time {of_work:.3f}")
    sys.exit(0 if median <= MOST else 1)


if __name__ == "__main__":
    main()
