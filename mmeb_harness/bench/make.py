"""One call of `mmeb-eval bench`: each mode's model, the machine, everything measured, and the files."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from mmeb_harness.bench.measure import DIRECT, MakeEncoder, Plan, measure_mode
from mmeb_harness.bench.sample import read_sample
from mmeb_harness.bench.speed import speed_of
from mmeb_harness.bench.tables import as_markdown
from mmeb_harness.bench.values import BenchResult, ModeResult, Speed
from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.files import write_json, write_text
from mmeb_harness.core.interrupt import Interrupts
from mmeb_harness.core.registry import ModelSpec, find_peer
from mmeb_harness.core.tasks import Task
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.encode.local import LocalEncoder
from mmeb_harness.encode.whole_workers import encoding_parts, workers_for
from mmeb_harness.encode.worker import Recipe
from mmeb_harness.ranking.corpus import require_faiss
from mmeb_harness.run.plan import check_taken, run_profile

Note = Callable[[str], None]  # called with a line that the user should see


def run_bench(
    spec: ModelSpec,
    tasks: Sequence[Task],
    info: DataInfo,
    plan: Plan,
    note: Note,
) -> BenchResult:
    """Measure every mode of a model on these tasks.

    Args:
        note: told what is going on.

    Raises:
        HarnessError: a mode or an option that the model doesn't have, or data that can't be read.
    """
    require_faiss()
    for wanted in plan.beside:
        find_peer(wanted)
    started_at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    speed: Speed | None = None
    modes: list[ModeResult] = []
    for mode in plan.modes or (None,):
        own = spec.in_modes([mode])
        embedder = own.load()
        info_of_model = embedder.info
        if not modes:
            speed = speed_of(embedder.info.settings, plan.peak_teraflops, plan.bandwidth_gigabytes)
        check_taken(tasks, embedder.info)
        edition = next((task.edition for task in tasks), "")
        profile = run_profile(embedder.info, plan.frames, edition=edition)
        sample = read_sample(tasks, info, profile, plan.limit)
        workers = workers_for(embedder) if plan.workers is None else plan.workers
        with open_encoders(embedder, own, workers, note) as make_encoder:
            name = mode_name(embedder, mode)
            modes.append(measure_mode(embedder, name, sample, plan, make_encoder, speed, note))
        del embedder  # its memory, before the next one is loaded
    return BenchResult(
        model=info_of_model.name,
        model_revision=info_of_model.revision,
        model_args=dict(spec.args),
        data=info.name,
        data_synthetic=info.synthetic,
        tasks=tuple(task.name for task in tasks),
        limit=plan.limit,
        frames=plan.frames,
        repeats=plan.repeats,
        workers=workers,
        speed=speed,
        modes=tuple(modes),
        seconds=time.monotonic() - started,
        started=started_at,
        machine=environment.machine(),
        threads=num_threads(),
        versions=environment.package_versions(),
        git_commit=environment.git_commit(),
    )


def mode_name(embedder: Embedder, mode: str | None) -> str:
    """What the mode is called.

    Raises:
        OptionError: the model can't reason, and a mode was asked for.
    """
    if not embedder.info.reasons:
        if mode is not None:
            raise OptionError(f"model {embedder.info.name!r} can't reason, so it has no mode {mode!r}; leave it out")
        return DIRECT
    return mode or str(embedder.info.settings.get("reasoning", "default"))


def num_threads() -> int | None:
    """As many as OMP_NUM_THREADS allows; `None` where it isn't set."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() else None


@contextmanager
def open_encoders(embedder: Embedder, spec: Recipe, workers: int, note: Note) -> Iterator[MakeEncoder]:
    """Encoders as a run has them, by token budget; they share what prepares for them."""
    encoding, preparation = encoding_parts(embedder, spec, workers, note)
    with preparation or nullcontext():
        yield lambda batch_tokens: LocalEncoder(encoding, preparation, batch_tokens, note, Interrupts(note))


def save_bench(folder: Path, result: BenchResult) -> None:
    """Write bench.json and bench.md.

    Raises:
        ResultError: the folder can't be written.
    """
    write_json(folder / "bench.json", dataclasses.asdict(result))
    write_text(folder / "bench.md", as_markdown(result))
