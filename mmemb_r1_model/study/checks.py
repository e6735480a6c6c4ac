"""Four checks of a trained model that no scores show: does it read its rationale, and is it sound?

    swap     the vector of an item with another item's rationale: how far it moves, what it then finds
    leak     the rationale alone against the query alone, as retrieval
    batches  the same items in batches of other sizes
    format   generations that had to be closed by rule

Legend: Q queries, N candidates, D dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmeb_harness import Frames, Item, Row, Samples, Trace
from mmemb_r1_model.data.suite import HOPS, KIND, find_tasks, read_labels
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.rationales.leak import leak_test
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.student import Student, StudentConfig, open_student

BATCHES = (1, 7, 64)
_Vectors = NDArray[np.float32]


def check_model(model: Path, data: Path, tasks: Sequence[str], count: int, seed: int) -> dict[str, Any]:
    """task → check → figures, on the first `count` queries of each task."""
    labels = read_labels(data, KIND, HOPS)
    student = open_student(StudentConfig(checkpoint=str(model)), World())
    student.module.eval()
    return {
        task.name: _check(student, model, task.load(data, Frames()), labels[task.name], count, seed)
        for task in find_tasks()
        if task.name in tasks
    }


@dataclass(frozen=True)
class _Answers:
    """Queries of one task, and what the model makes of them if it always reasons.

    Attributes:
        own: rationale of each query.
        candidates_ND: their direct vectors.
    """

    student: Student
    samples: Samples
    queries: Sequence[Item]
    own: Sequence[str]
    candidates_ND: _Vectors


def _check(
    student: Student, model: Path, samples: Samples, labels: Mapping[str, Row], count: int, seed: int
) -> dict[str, Any]:
    queries = samples.queries[:count]
    embedder = load(path=str(model), reasoning="always")
    candidates_ND = encoded(load(path=str(model), reasoning="never"), samples.candidates, BATCHES[-1])[0]
    in_batches = {size: encoded(embedder, queries, size) for size in BATCHES}
    traces = in_batches[BATCHES[-1]][1]
    answers = _Answers(student, samples, queries, [trace.rationale or "" for trace in traces], candidates_ND)
    return {
        "swap": _swap(answers, [(labels[query.id][KIND], labels[query.id][HOPS]) for query in queries], seed),
        "leak": _leak(answers, seed),
        "batches": _compare_batches(in_batches),
        "format": {"queries": len(queries), "closed_by_rule": sum(trace.truncated for trace in traces)},
    }


def encoded(embedder: Any, items: Sequence[Item], size: int) -> tuple[_Vectors, tuple[Trace, ...]]:
    """Vectors (n, D) of items in batches of `size`, and how each came about."""
    role = "query"  # candidates too: their mode is set by the embedder
    parts = [embedder.encode(items[start : start + size], role) for start in range(0, len(items), size)]
    traces = tuple(trace for part in parts for trace in part.traces)
    return np.concatenate([part.vectors for part in parts]), traces


def _swap(answers: _Answers, groups: Sequence[tuple[str, int]], seed: int) -> dict[str, Any]:
    """Every query with the rationale of another one of its group: of its kind and hops."""
    student, own = answers.student, answers.own
    rng = np.random.default_rng(seed)
    others = list(range(len(own)))
    for group in sorted(set(groups)):
        members = [place for place, own_group in enumerate(groups) if own_group == group]
        shift = int(rng.integers(1, len(members))) if len(members) > 1 else 0
        for place, other in zip(members, members[shift:] + members[:shift], strict=True):
            others[place] = other
    kept = [place for place, other in enumerate(others) if own[other] != own[place]]
    tried = [answers.queries[place] for place in kept]
    with_own, swapped = (
        _read_out(student, tried, [student.completion(own[place]) for place in places])
        for places in (kept, [others[place] for place in kept])
    )
    hits_own, hits_swapped = _hits(answers, tried, with_own), _hits(answers, tried, swapped)
    is_hard = np.array([groups[place][1] > 0 for place in kept])
    cosine = (with_own * swapped).sum(axis=1)
    return {
        name: {
            "queries": int(which.sum()),
            "cosine": float(cosine[which].mean()),
            "own": float(hits_own[which].mean()),
            "swapped": float(hits_swapped[which].mean()),
        }
        for name, which in (("all", np.ones(len(kept), bool)), ("hard", is_hard), ("easy", ~is_hard))
        if which.any()
    }


@torch.no_grad()
def _read_out(student: Student, items: Sequence[Item], completions: Sequence[list[int]]) -> _Vectors:
    """Vectors (Q, D) at the end of each item's completion."""
    parts = []
    for start in range(0, len(items), BATCHES[-1]):
        some = slice(start, start + BATCHES[-1])
        prompts = [student.reader.read(item) for item in items[some]]
        packed = student.pack(prompts, [[completion] for completion in completions[some]])
        parts.append(student.encode(packed).vectors_RD.numpy())
    return np.concatenate(parts)


def _hits(answers: _Answers, queries: Sequence[Item], vectors_QD: _Vectors) -> NDArray[np.float64]:
    samples, best = answers.samples, (vectors_QD @ answers.candidates_ND.T).argmax(axis=1)
    return np.array(
        [float(samples.candidates[top].id in samples.gains[query.id]) for query, top in zip(queries, best, strict=True)]
    )


def _leak(answers: _Answers, seed: int) -> dict[str, Any]:
    """The rationale as a text of its own, without the picture and the question, against the query read directly."""
    student, samples, queries = answers.student, answers.samples, answers.queries
    texts = [
        Item(query.id, rationale, instruction=query.instruction)
        for query, rationale in zip(queries, answers.own, strict=True)
    ]
    alone, direct = (_read_out(student, items, [[student.emb]] * len(items)) for items in (texts, queries))
    place = {candidate.id: number for number, candidate in enumerate(samples.candidates)}
    positives = np.array([place[next(iter(samples.gains[query.id]))] for query in queries])
    return dataclasses.asdict(leak_test(alone, direct, answers.candidates_ND, positives, seed=seed))


def _compare_batches(in_batches: Mapping[int, tuple[_Vectors, tuple[Trace, ...]]]) -> dict[str, Any]:
    """Against the largest batches: the worst cosine, and how many rationales are other ones."""
    reference, reference_traces = in_batches[BATCHES[-1]]
    rows = {}
    for size in BATCHES[:-1]:
        vectors, traces = in_batches[size]
        cosine = (vectors * reference).sum(axis=1)
        pairs = zip(traces, reference_traces, strict=True)
        rows[f"{size} against {BATCHES[-1]}"] = {
            "least_cosine": float(cosine.min()),
            "greatest_difference": float(np.abs(vectors - reference).max()),
            "other_rationales": sum(trace.rationale != other.rationale for trace, other in pairs),
        }
    return rows
