"""Curves of a training in somebody's tracker, besides log.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mmeb_harness import TRACKERS, Tracked, TrackerName, check_trackers, tracking
from mmemb_r1_model.disk.jsonl import Row

__all__ = ["TRACKERS", "OpenCurves", "TrackerName", "check_trackers", "curves_in", "log_alone"]

PROJECT = "mmemb-r1"

#: Given a training's log and what the training was made with: takes the log's rows, from the first one on.
OpenCurves = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Callable[[Row], None]]]


@contextmanager
def log_alone(_log: Path, _settings: Mapping[str, Any]) -> Iterator[Callable[[Row], None]]:
    """No tracker: rows are in the log, and nowhere else."""
    yield lambda _: None


def curves_in(names: Sequence[TrackerName], run: Path) -> OpenCurves:
    """Curves of the trainings below `run` in some trackers, grouped by its name."""

    @contextmanager
    def opened(log: Path, settings: Mapping[str, Any]) -> Iterator[Callable[[Row], None]]:
        group, stage = run.resolve().name, "-".join(log.parent.relative_to(run).parts)
        with tracking(names, Tracked(PROJECT, f"{group}-{stage}", group, settings, log.parent, log)) as track:
            yield lambda row: track({name: value for name, value in row.items() if name != "step"}, row["step"])

    return opened if names else log_alone
