"""A study's output folder, read: what the harness wrote of every run, beside what the world knows of each query.

A frame has one row a query. Columns: query_id, difficulty, kind, hops, blur; gate (of the adaptive run); and of each
mode its name (the task's main metric), `reasoned_MODE` (0 or 1) and `tokens_MODE`; reasoned_fixed, whether the task's
better mode reasons, as chosen on other queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmeb_harness import MODES, Mode
from mmeb_harness.stats.controls import cross_fitted_mode
from mmeb_harness.stats.queries import read_run_queries
from mmeb_harness.stats.seeds import OverSeeds
from mmemb_r1_model.data.suite import QUERY_LABELS
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.files import read_object
from mmemb_r1_model.disk.jsonl import read_rows
from mmemb_r1_model.study.look_ups import FORMED
from mmemb_r1_model.study.plan import BASE, LOOK_UPS, Checkpoint, StudyConfig
from mmemb_r1_model.study.policies import Sample, estimate, sample_of

if TYPE_CHECKING:
    import pandas as pd

_LABELS = ["query_id", "difficulty", "kind", "hops", "blur"]


@dataclass(frozen=True)
class Group:
    """One run's queries of one task, a frame a seed."""

    seeds: tuple[int, ...]
    frames: tuple[pd.DataFrame, ...]

    @property
    def shares(self) -> list[float]:
        """Of the whole task that reasons adaptively, a seed."""
        return [float(frame.reasoned_adaptive.mean()) for frame in self.frames]

    def of(self, seeds: Iterable[int]) -> Group:
        """Of some of the seeds."""
        wanted = set(seeds)
        kept = [(seed, frame) for seed, frame in zip(self.seeds, self.frames, strict=True) if seed in wanted]
        return Group(tuple(seed for seed, _ in kept), tuple(frame for _, frame in kept))

    def samples(self, chosen: str = "") -> list[Sample]:
        """Of all queries, or of those that a pandas query chooses; a seed that has none is left out."""
        frames = [frame.query(chosen) if chosen else frame for frame in self.frames]
        return [
            sample_of(frame, share, number)
            for number, (frame, share) in enumerate(zip(frames, self.shares, strict=True))
            if len(frame)
        ]

    def means(self, columns: Sequence[str], chosen: str = "") -> dict[str, OverSeeds]:
        """Column → its mean; empty if no query is chosen."""
        samples = self.samples(chosen)
        return {name: estimate(samples, itemgetter(name)) for name in columns} if samples else {}


class Results:
    """What `mmemb-r1 study run` made."""

    def __init__(self, config: StudyConfig, folder: Path, seeds: Sequence[int]) -> None:
        self.config, self.folder, self.seeds = config, folder, tuple(seeds or config.seeds)
        self._checkpoints: dict[str, Checkpoint] = {variant.name: variant.checkpoint for variant in config.variants}
        self._shares_training = {variant.name for variant in config.variants if variant.shares == "train"}
        self._groups: dict[tuple[str, str], dict[str, Group]] = {}

    def run(self, seed: int, name: str) -> Path:
        """The folder of one run of a seed."""
        return self.folder / f"seed-{seed}" / name

    def checkpoint(self, run: str) -> Checkpoint:
        """The stage whose model of a run is evaluated."""
        return self._checkpoints.get(run, "adaptive")

    def seeds_of(self, run: str) -> tuple[int, ...]:
        """Seeds for which a run has been evaluated whole."""
        last = Path("results", self.checkpoint(run), "adaptive", "queries")
        return tuple(
            seed
            for seed in self.seeds
            if all((self.run(seed, run) / last / f"{task}.parquet").is_file() for task in self.config.tasks)
        )

    def look_ups(self, seed: int, run: str, checkpoint: Checkpoint) -> dict[str, Any]:
        """Task → what the run's model, of one of its stages, wrote of chains (see look_ups.py).

        Raises:
            DataError: that wasn't measured.
        """
        shared = checkpoint == "joint" and run in self._shares_training
        path = self.run(seed, BASE if shared else run) / "results" / checkpoint / LOOK_UPS
        return read_object(_present(path), "delete it and run the study again")

    def formed(self, run: str, task: str) -> dict[int, bool]:
        """Seed → whether the look-ups had formed when stage 1 was over; of a task of no training: in all that are."""
        measured = {seed: self.look_ups(seed, run, "joint") for seed in self.seeds_of(run)}
        return {
            seed: all(of[name]["right"] >= FORMED for name in ([task] if task in of else of))
            for seed, of in measured.items()
        }

    def groups(self, run: str, checkpoint: Checkpoint | None = None) -> dict[str, Group]:
        """Task → its queries, of the run's own checkpoint or another.

        Raises:
            DataError: a mode or task is missing, or holds other queries than the split.
        """
        chosen = checkpoint or self.checkpoint(run)
        if (run, chosen) not in self._groups:
            seeds = self.seeds_of(run)
            self._groups[run, chosen] = {
                task: Group(seeds, tuple(self._read_task(seed, run, chosen, task) for seed in seeds))
                for task in self.config.tasks
            }
        return self._groups[run, chosen]

    def _read_task(self, seed: int, run: str, checkpoint: str, task: str) -> pd.DataFrame:
        import pandas as pd

        labels = self.folder / f"seed-{seed}" / "data" / self.config.test.folder / QUERY_LABELS
        results = self.run(seed, run) / "results" / checkpoint
        rows = pd.read_parquet(labels, columns=_LABELS, filters=[("task", "==", task)])
        for mode in MODES:
            rows = rows.merge(_read_mode(results / mode, mode, task), on="query_id", how="outer", validate="1:1")
        if rows.isna().any(axis=None):
            raise DataError(f"{results}: the queries of {task} are not those of the split; run the study again")
        gains = rows.always.to_numpy() - rows.never.to_numpy()
        rows["reasoned_fixed"] = cross_fitted_mode(gains, np.arange(len(rows)))
        return rows

    def vetoed(self, run: str, task: str, limit: int) -> Group:
        """The queries with a veto of so many tokens as the adaptive mode; where none was fitted, as without one."""
        group = self.groups(run)[task]
        frames = []
        for seed, frame in zip(group.seeds, group.frames, strict=True):
            folder = self.run(seed, run) / "results" / "adaptive" / f"veto-{limit}"
            rows = frame.drop(columns=["gate", "adaptive", "reasoned_adaptive", "tokens_adaptive"])
            own = _read_mode(folder, "adaptive", task) if folder.is_dir() else frame
            columns = ["query_id", "adaptive", "reasoned_adaptive", "tokens_adaptive"]
            frames.append(rows.merge(own[columns], on="query_id", validate="1:1"))
        return Group(group.seeds, tuple(frames))

    def json(self, name: str, run: str = BASE) -> list[Any]:
        """A JSON file of a run, of every seed that has been evaluated.

        Raises:
            DataError: a seed hasn't it yet.
        """
        way_out = "delete it and run the study again"
        return [read_object(_present(self.run(seed, run) / name), way_out) for seed in self.seeds_of(run)]

    def rows(self, name: str) -> list[list[dict[str, Any]]]:
        """A file of JSON lines of the base run, of every seed."""
        return [list(read_rows(self.run(seed, BASE) / name)) for seed in self.seeds]


def _read_mode(run: Path, mode: Mode, task: str) -> pd.DataFrame:
    import pandas as pd

    _present(run / "run.json")
    queries, traces = read_run_queries(run, task)
    columns = {
        "query_id": queries.ids,
        mode: queries.scores,
        f"reasoned_{mode}": traces.reasoned.astype(float),
        f"tokens_{mode}": traces.reasoning_tokens,
    }
    return pd.DataFrame(columns | ({"gate": traces.gates} if mode == "adaptive" else {}))


def _present(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path} is missing: `mmemb-r1 study run` hasn't come that far")
    return path
