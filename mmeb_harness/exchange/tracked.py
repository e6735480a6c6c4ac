"""A finished run as the one row of a tracker: every mean and task score, and what encoding took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmeb_harness.core.trackers import Tracked, TrackerName, tracking
from mmeb_harness.results.files import EncodeStats, RunResult
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.outcome import Run

PROJECT = "mmeb-harness"


def track_run(names: Sequence[TrackerName], run: Run) -> None:
    """Give a run's summary to trackers; what one does that fails, `tracking` says."""
    if names:
        name, record = run.folder.resolve().name, RunFolder(run.folder).run_file
        tracked = Tracked(PROJECT, name, run.result.data, _settings(run.result), run.folder, record)
        with tracking(names, tracked) as log:
            log(summary(run), 0)


def summary(run: Run) -> dict[str, float]:
    """A run's numbers, scores in [0, 1]. Of means those over all of their tasks alone: a part is another score."""
    result, tasks = run.result, [task.result for task in run.tasks]
    values = {f"tasks/{task.name}/{task.metric}": task.score for task in tasks}
    values |= {
        f"means/{mean.name}": mean.score for mean in result.aggregates if mean.complete and mean.score is not None
    }
    for side, stats in (("queries", result.queries), ("candidates", result.candidates)):
        values |= {f"{side}/{name}": value for name, value in _costs(stats).items()}
        values |= {f"{side}/{name}_seconds": value for name, value in result.latency_seconds.get(side, {}).items()}
    return values | {"num_tasks": len(tasks), "seconds": result.seconds}


def _costs(stats: EncodeStats) -> dict[str, float]:
    return {
        "items": stats.items,
        "reasoning_rate": stats.reasoning_rate,
        # Of several modes at once it is no mode's own.
        **({} if stats.shared else {"items_per_second": stats.items_per_second}),
        **({"tokens_per_reasoned": stats.tokens_per_reasoned} if stats.reasoned else {}),
    }


def _settings(run: RunResult) -> dict[str, Any]:
    """What tells runs apart; arguments of the model may hold paths, which its revision stands for."""
    return {
        "model": run.model,
        "model_revision": run.model_revision,
        "model_settings": dict(run.model_settings),
        "data": run.data,
        "data_synthetic": run.data_synthetic,
        "data_revision": run.data_revision,
        "edition": run.edition,
        "limit": run.limit,
        "seed": run.seed,
        "git_commit": run.git_commit,
        "versions": dict(run.versions),
        "gpus": run.machine.get("gpus"),
    }
