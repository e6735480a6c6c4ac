"""A gate that sees its own uncertainty: `veto` of the embedder, its bound fitted where the model is at home.

A bound is fitted on the validation split, whose tasks are those of training, and never on a test split: the highest
that gives up at most 2 % of the right answers that the model reasons its way to. Out of distribution, where rationales
fail, it is hoped to give up more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmeb_harness import Frames, Item
from mmemb_r1_model.data.suite import find_tasks, read_labels
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.selection.quality import auc
from mmemb_r1_model.study.checks import encoded
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.student import Student, StudentConfig, open_student

#: Share of the right answers with a rationale that a bound may give up, on the split that it is fitted on.
LOST = 0.02
#: Of fewer of them none is fitted.
LEAST = 50
BATCH = 64


@dataclass(frozen=True)
class FittedVeto:
    """A bound, and what it would do on the queries that it was fitted on, those that reason by the gate.

    Attributes:
        bound: `None`: too few of them are right; see `model.settings.Veto`.
        right, wrong: how many there are.
        right_lost, wrong_caught: share of either that is given up.
        auc: chance that of a right and a wrong one the model is surer of the right one; `None`: there are not both.
    """

    bound: float | None
    tokens: int
    right: int
    wrong: int
    right_lost: float
    wrong_caught: float
    auc: float | None


def fit_vetoes(model: Path, data: Path, tasks: Sequence[str], limits: Sequence[int]) -> list[dict[str, Any]]:
    """A veto for each limit of tokens (0: all), of all of `tasks` that the split has."""
    known = read_labels(data)
    student = open_student(StudentConfig(checkpoint=str(model)), World())
    student.module.eval()
    embedder, of_candidates = load(path=str(model)), load(path=str(model), reasoning="never")
    log_probs: list[NDArray[np.float64]] = []
    hits: list[bool] = []
    for task in find_tasks():
        if task.name in tasks and task.name in known:
            samples = task.load(data, Frames())
            vectors_QD, traces = encoded(embedder, samples.queries, BATCH)
            candidates_ND, _ = encoded(of_candidates, samples.candidates, BATCH)
            best = (vectors_QD @ candidates_ND.T).argmax(axis=1)
            reasoned = [place for place, trace in enumerate(traces) if trace.path == "reasoned"]
            queries = [samples.queries[place] for place in reasoned]
            log_probs += _log_probs(student, queries, [traces[place].rationale or "" for place in reasoned])
            hits += [
                samples.candidates[int(best[place])].id in samples.gains[query.id]
                for place, query in zip(reasoned, queries, strict=True)
            ]
    return [dataclasses.asdict(fitted_veto(log_probs, np.array(hits, dtype=bool), limit)) for limit in limits]


def fitted_veto(log_probs: Sequence[NDArray[np.float64]], hits: NDArray[np.bool_], limit: int) -> FittedVeto:
    """A bound on the least log-probability of a rationale's first `limit` tokens, or of all.

    Args:
        log_probs: (tokens,) of each query's rationale, its end included.
        hits: whether its answer is right.
    """
    least = np.array([own[: limit or None].min() for own in log_probs])
    right, wrong = np.sort(least[hits]), least[~hits]
    surer = auc(right, wrong)
    if len(right) < LEAST:
        return FittedVeto(None, limit, len(right), len(wrong), 0.0, 0.0, surer)
    bound = min(0.0, round(float(right[int(LOST * len(right))]), 6))
    lost, caught = (float((values < bound).mean()) if len(values) else 0.0 for values in (right, wrong))
    return FittedVeto(bound, limit, len(right), len(wrong), lost, caught, surer)


@torch.no_grad()
def _log_probs(student: Student, items: Sequence[Item], rationales: Sequence[str]) -> list[NDArray[np.float64]]:
    """(tokens,) of each rationale and its end, as the model is sure of them."""
    log_probs: list[NDArray[np.float64]] = []
    for start in range(0, len(items), BATCH):
        some = slice(start, start + BATCH)
        prompts = [student.reader.read(item) for item in items[some]]
        packed = student.pack(prompts, [[student.completion(rationale)] for rationale in rationales[some]])
        scored = student.encode(packed, range(len(prompts))).log_probs
        log_probs += [own[:-1].double().numpy() for own in scored]  # without <emb>, which the rule writes
    return log_probs
