"""Whether a model has learnt to follow a table: are the rationales that it writes of chains right?

Fixed before anything was run: look-ups have formed in a model if of the chains with a hop at least, on a validation
split, its own greedy rationales are right in 90 % of a task's, or more. In small students they form suddenly or not at
all, so that of a few seeds a mean over all says little: whether they formed is an outcome of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import Frames, Row, Trace
from mmemb_r1_model.data.suite import HOPS, KIND, RATIONALE, find_tasks, read_labels
from mmemb_r1_model.embed.embedder import load

#: Share of right rationales from which on look-ups count as formed.
FORMED = 0.9
BATCH = 64


@dataclass(frozen=True)
class LookUps:
    """Rationales of some chains.

    Attributes:
        right: share of them that lead to the answer: the colour first, the last shape last.
        whole: share in which every step stands, in order.
        tokens: mean length, markers included.
    """

    queries: int
    right: float
    whole: float
    tokens: float


@dataclass(frozen=True)
class TaskLookUps(LookUps):
    """All of a task, and by hops."""

    by_hops: dict[str, LookUps]

    @property
    def formed(self) -> bool:
        """Whether they have formed, by the rule that was fixed beforehand."""
        return self.right >= FORMED


def measure_look_ups(model: Path, data: Path, tasks: Sequence[str]) -> dict[str, TaskLookUps]:
    """Task → what a model writes of its chains with a hop at least; a task without any is left out."""
    labels = read_labels(data, KIND, HOPS, RATIONALE)
    embedder = load(path=str(model), reasoning="always")
    measured = {}
    for task in find_tasks():
        of_task = labels.get(task.name, {})
        chains = {query: row for query, row in of_task.items() if row[KIND] == "chain" and row[HOPS] > 0}
        if task.name not in tasks or not chains:
            continue
        queries = [query for query in task.load(data, Frames()).queries if query.id in chains]
        written: list[Trace] = []
        for start in range(0, len(queries), BATCH):
            written += embedder.encode(queries[start : start + BATCH], "query").traces or ()
        rows = [chains[query.id] for query in queries]
        texts, tokens = [trace.rationale or "" for trace in written], [trace.reasoning_tokens for trace in written]
        measured[task.name] = judged(texts, tokens, rows)
    return measured


def judged(texts: Sequence[str], tokens: Sequence[int], labels: Sequence[Row]) -> TaskLookUps:
    """Rationales held against the world's own; words of neither a colour nor a shape don't count, in any style."""
    own = [label[RATIONALE].split() for label in labels]
    known = {word for words in own for word in words}
    said = [[word for word in text.split() if word in known] for text in texts]
    pairs = list(zip(said, own, strict=True))
    right = [bool(words) and (words[0], words[-1]) == (true[0], true[-1]) for words, true in pairs]
    whole = [words[: len(true)] == true for words, true in pairs]
    hops = np.array([label[HOPS] for label in labels])
    columns = np.array([right, whole, tokens], dtype=float)
    parts = {str(each): _means(columns[:, hops == each]) for each in np.unique(hops)}
    return TaskLookUps(**vars(_means(columns)), by_hops=parts)


def _means(columns: NDArray[np.float64]) -> LookUps:
    return LookUps(columns.shape[1], *columns.mean(axis=1).tolist())
