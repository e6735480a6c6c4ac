"""How good the selection is: the world tells which rationales are right, nobody else in the pipeline is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmemb_r1_model.data.suite import DIFFICULTY, QUERY, RIGHT, SAMPLE, SIDE, TASK, WORKER, read_labels, worker_rows
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.selection.rule import Judged, Rule, RuleConfig, chances
from mmemb_r1_model.selection.stage import all_judged, key_of

RULES: tuple[tuple[str, Rule, bool], ...] = (
    ("argmax, margin", "argmax", True),
    ("argmax, delta", "argmax", False),
    ("sampled, margin", "sampled", True),
    ("random", "random", True),
    ("longest", "longest", True),
)
_Side = tuple[str, Sequence[Judged], list[bool]]  # key, its rationales, which of them are right
#: With more data sets than these, each of them has no group of its own.
_SEPARATE = 10


def selection_quality(selected: Path, folders: Sequence[Path]) -> dict[str, Any]:
    """group → rule → shares of the sides with a right one chosen, with a precise one, direct-only; and the AUC.

    Of direct-only also the share where no rationale is right, and where one is; `None` where there is no such side.

    Groups are all sides, "easy" and "hard" queries, "positive" sides, and the sides of each data set if there are few.
    A rule's share of right choices is the sum of its chances over right rationales; a side that is direct-only counts
    in `direct_only` alone.

    Args:
        selected: folder with what was judged.
        folders: of the training data, whose scripted workers' rationales are marked as right or wrong.
    """
    columns = (TASK, QUERY, SIDE, WORKER, SAMPLE, RIGHT)
    truth = {
        (row[TASK], row[QUERY], row[SIDE], row[WORKER], row[SAMPLE]): row[RIGHT]
        for folder in folders
        for row in worker_rows(folder, *columns)
    }
    difficulty = {
        (task, query): row[DIFFICULTY]
        for folder in folders
        for task, rows in read_labels(folder, DIFFICULTY).items()
        for query, row in rows.items()
    }
    groups: dict[str, list[_Side]] = {}
    sets: dict[str, list[_Side]] = {}
    for side in all_judged(selected):
        place = (side.dataset, side.pair, side.side)
        try:
            right = [truth[*place, rationale.worker, rationale.sample] for rationale in side.judged]
            kind = "positive" if side.side == "positive" else difficulty[side.dataset, side.pair]
        except KeyError as error:
            known = ", ".join(map(str, folders))
            raise DataError(
                f"{selected}: what was judged of {' / '.join(place)} is none of the rationales in {known} ({error}); "
                "move the folder away and judge again"
            ) from error
        own = (key_of(side), side.judged, right)
        for group in ("all", kind):
            groups.setdefault(group, []).append(own)
        sets.setdefault(f"{side.dataset}, {side.side}", []).append(own)
    if len(sets) <= _SEPARATE:
        groups |= sets
    return {group: _group(rows) for group, rows in groups.items()}


def _group(rows: list[_Side]) -> dict[str, Any]:
    rules: dict[str, Any] = {name: _rule(rows, RuleConfig(rule, margin)) for name, rule, margin in RULES}
    return {
        "sides": len(rows),
        "right_rationales": float(np.mean([is_right for _, _, right in rows for is_right in right])),
        "auc": {name: rank_auc(rows, name) for name in ("delta", "margin")},
        "rules": rules,
    }


def _rule(rows: list[_Side], config: RuleConfig) -> Mapping[str, float | None]:
    right = precise = chosen = wrong_over_precise = 0.0
    contested = 0
    direct_only: dict[bool, list[bool]] = {True: [], False: []}  # by whether one is right
    for key, judged, truth in rows:
        shares = chances(judged, config, key)
        direct_only[any(truth)].append(not any(shares))
        if not any(shares):
            continue
        chosen += 1
        right += sum(share for share, is_right in zip(shares, truth, strict=True) if is_right)
        precise += sum(share for share, rationale in zip(shares, judged, strict=True) if rationale.worker == "precise")
        if not all(truth):
            contested += 1
            wrong_over_precise += sum(share for share, is_right in zip(shares, truth, strict=True) if not is_right)
    return {
        "right": right / max(1, chosen),
        "right_where_one_is_wrong": 1 - wrong_over_precise / max(1, contested),
        "precise": precise / max(1, chosen),
        "direct_only": 1 - chosen / max(1, len(rows)),
        "direct_only_where_none_is_right": float(np.mean(direct_only[False])) if direct_only[False] else None,
        "direct_only_where_one_is_right": float(np.mean(direct_only[True])) if direct_only[True] else None,
    }


def rank_auc(rows: Iterable[_Side], name: str) -> float | None:
    """Chance that a right rationale gains more than a wrong one; of any two in the group."""
    gains: dict[bool, list[float]] = {True: [], False: []}
    for _, judged, truth in rows:
        for rationale, right in zip(judged, truth, strict=True):
            gains[right].append(getattr(rationale, name))
    return auc(np.array(gains[True]), np.array(gains[False]))


def auc(good: NDArray[np.float64], bad: NDArray[np.float64]) -> float | None:
    """Chance that one of the good values is above one of the bad ones, ties half; `None`: there are not both."""
    if not len(good) or not len(bad):
        return None
    good = np.sort(good)
    above = len(good) - np.searchsorted(good, bad, side="right")
    ties = np.searchsorted(good, bad, side="right") - np.searchsorted(good, bad, side="left")
    return float((above + 0.5 * ties).sum() / (len(good) * len(bad)))
