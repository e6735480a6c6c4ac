"""A study's output folder, read: queries of every run, task and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness.stats.seeds import OverSeeds
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.files import read_json
from mmemb_r1_model.disk.jsonl import read_rows
from mmemb_r1_model.study.plan import BASE, Checkpoint, StudyConfig
from mmemb_r1_model.study.policies import Sample, estimate, sample_of
from mmemb_r1_model.study.rows import read_checkpoint

if TYPE_CHECKING:
    import pandas as pd

Chosen = Callable[["pd.DataFrame"], Any]


@dataclass(frozen=True)
class Group:
    """One run's queries of one task, a frame a seed.

    Attributes:
        shares: of the whole task that reasons adaptively, a seed.
    """

    seeds: tuple[int, ...]
    frames: tuple[pd.DataFrame, ...]
    shares: tuple[float, ...]

    def samples(self, chosen: Chosen | None = None) -> list[Sample]:
        """Of all queries, or of those for which `chosen` is true; a seed that has none is left out."""
        frames = [frame if chosen is None else frame[chosen(frame)] for frame in self.frames]
        return [
            sample_of(frame, share, number)
            for number, (frame, share) in enumerate(zip(frames, self.shares, strict=True))
            if len(frame)
        ]

    def means(self, columns: Sequence[str], chosen: Chosen | None = None) -> dict[str, OverSeeds]:
        """Column → its mean; empty if no query is chosen."""
        samples = self.samples(chosen)
        return {name: estimate(samples, itemgetter(name)) for name in columns} if samples else {}


class Results:
    """What `mmemb-r1 study run` made."""

    def __init__(self, config: StudyConfig, folder: Path, seeds: Sequence[int]) -> None:
        self.config, self.folder, self.seeds = config, folder, tuple(seeds or config.seeds)
        self._checkpoints: dict[str, Checkpoint] = {variant.name: variant.checkpoint for variant in config.variants}
        self._groups: dict[tuple[str, str], dict[str, Group]] = {}

    def run(self, seed: int, name: str) -> Path:
        """The folder of one run of a seed."""
        return self.folder / f"seed-{seed}" / name

    def seeds_of(self, run: str) -> tuple[int, ...]:
        """Seeds for which a run has been evaluated whole."""
        last = Path("results") / self._checkpoint(run) / "adaptive" / "queries"
        return tuple(
            seed
            for seed in self.seeds
            if all((self.run(seed, run) / last / f"{task}.parquet").is_file() for task in self.config.tasks)
        )

    def _checkpoint(self, run: str) -> Checkpoint:
        return "adaptive" if run == BASE else self._checkpoints[run]

    def groups(self, run: str, checkpoint: Checkpoint | None = None) -> dict[str, Group]:
        """Task → its queries, of the run's own checkpoint or another."""
        chosen = checkpoint or self._checkpoint(run)
        if (run, chosen) not in self._groups:
            seeds = self.seeds_of(run)
            frames = [self._read(seed, run, chosen) for seed in seeds]
            self._groups[run, chosen] = {task: _group(seeds, frames, task) for task in self.config.tasks}
        return self._groups[run, chosen]

    def _read(self, seed: int, run: str, checkpoint: str) -> pd.DataFrame:
        data = self.folder / f"seed-{seed}" / "data" / self.config.test.folder
        return read_checkpoint(self.run(seed, run) / "results" / checkpoint, data, self.config.tasks)

    def json(self, name: str, run: str = BASE) -> list[Any]:
        """A JSON file of a run, of every seed that has been evaluated.

        Raises:
            DataError: a seed hasn't it yet.
        """
        paths = [self.run(seed, run) / name for seed in self.seeds_of(run)]
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path} is missing: `mmemb-r1 study run` hasn't come that far")
        return [read_json(path) for path in paths]

    def rows(self, name: str) -> list[list[dict[str, Any]]]:
        """A file of JSON lines of the base run, of every seed."""
        return [list(read_rows(self.run(seed, BASE) / name)) for seed in self.seeds]


def _group(seeds: tuple[int, ...], frames: Sequence[pd.DataFrame], task: str) -> Group:
    own = tuple(frame[frame.task == task].reset_index(drop=True) for frame in frames)
    return Group(seeds, own, tuple(float(frame.reasoned_adaptive.mean()) for frame in own))
