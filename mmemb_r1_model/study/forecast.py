"""The part of a report on the gate as a forecast: what its probability is worth, what it tells apart within a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmeb_harness.show.tables import markdown_table, percent
from mmeb_harness.stats.calibration import calibrate
from mmeb_harness.stats.seeds import student_interval
from mmemb_r1_model.data.suite import find_tasks
from mmemb_r1_model.selection.quality import auc
from mmemb_r1_model.study import figures
from mmemb_r1_model.study.plan import BASE
from mmemb_r1_model.study.results import Group, Results

if TYPE_CHECKING:
    import pandas as pd


def own_tasks(results: Results) -> list[str]:
    """The study's tasks that have training data."""
    foreign = {task.name for task in find_tasks() if task.in_distribution == "OOD"}
    return [task for task in results.config.tasks if task not in foreign]


def pays_against_hurts(frame: pd.DataFrame) -> float | None:
    """Chance that of two queries, one that reasoning helps and one that it hurts, the gate is above on the first.

    `None`: there are not both.
    """
    gates, gaps = frame.gate.to_numpy(float), (frame.always - frame.never).to_numpy(float)
    return auc(gates[gaps > 0], gates[gaps < 0])


def forecast_section(results: Results, runs: Sequence[str], target: Path, numbers: dict[str, Any]) -> str:
    """Tables, and the picture `calibration.png` in `target`.

    Args:
        runs: whose gates are held apart within tasks; calibration is the base's.
    """
    groups = results.groups(BASE)
    frames = [frame for name in own_tasks(results) for frame in groups[name].frames]
    gate, never, always = (np.concatenate([frame[name] for frame in frames]) for name in ("gate", "never", "always"))
    calibration = calibrate(gate, always - never)
    brier, of_rate = calibration.brier, calibration.base_rate_brier
    names = {"from": "low", "gain": "gap"} | {name: name for name in ("gate", "queries", "pays", "hurts")}
    bins = [{name: getattr(tenth, field) for name, field in names.items()} for tenth in calibration.bins]
    numbers["calibration"] = {"bins": bins, "brier": brier, "brier_of_base_rate": of_rate, "ece": calibration.ece}
    figures.calibration(bins, target / "calibration.png")
    rows = [
        [f"{tenth['from']:.1f} to {tenth['from'] + 0.1:.1f}", str(tenth["queries"])]
        + [percent(tenth[name]) for name in ("pays", "hurts", "gain")]
        for tenth in bins
    ]
    return f"""## Calibration of the gate

All seeds, tasks that have training data. Gain: points of the main metric, reasoned minus direct.

{markdown_table(["p(reason)", "queries", "reasoning pays", "hurts", "gain"], rows)}

As a forecast that reasoning pays: Brier score {brier:.3f} (of the base rate {of_rate:.3f}), ECE
{calibration.ece:.3f} (ten bins of equally many queries). The gate is trained on reward, cost included;
only `calibrate` makes it a probability.

![calibration](calibration.png)

## What the gate tells apart within a task

AUC: the chance that of two queries of one task, one that reasoning helps and one that it hurts, the gate is higher on
the first. A seed each, their mean and its interval over seeds; a gate that knew the task alone would have 0.50.

{markdown_table(["run", "task", "helped / hurt", "each seed", "AUC", "over seeds"], _within(results, runs, numbers))}
"""


def _within(results: Results, runs: Sequence[str], numbers: dict[str, Any]) -> list[list[str]]:
    rows = []
    for run in runs:
        own = numbers.setdefault("within", {}).setdefault(run, {})
        for task, group in results.groups(run).items():
            each = [pays_against_hurts(frame) for frame in group.frames]
            known = np.array([value for value in each if value is not None])
            if not len(known):
                continue
            low, high = student_interval(known)
            helped, hurt = (_count(group, sign) for sign in (1, -1))
            own[task] = {
                "each": each,
                "mean": float(known.mean()),
                "seeds": (low, high),
                "helped": helped,
                "hurt": hurt,
            }
            values = " / ".join("-" if value is None else f"{value:.2f}" for value in each)
            interval = "" if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"
            rows.append([run, task, f"{helped} / {hurt}", values, f"{known.mean():.2f}", interval])
    return rows


def _count(group: Group, sign: int) -> int:
    """Queries of all seeds whose score gets better (1) or worse (-1) by reasoning."""
    return sum(int((np.sign(frame.always - frame.never) == sign).sum()) for frame in group.frames)
