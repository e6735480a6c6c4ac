"""Scripted workers of three characters: what they write of the mini suite's queries.

    precise   the label's rationale: "red circle square plus moving left"
    verbose   the same in filler: "start with the red circle then square then plus moving left and that is it"
    wrong     looks precise, but often wrong in the words that decide: "red circle bar ring moving right"

Workers that name classes end in the class of a picture or clip that is to be classified: "red circle opposite bar
red bar".

They work on words, so that one rule serves all 78 tasks. Whoever selects among them can be held against `right`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mmeb_tasks.mini.world import COLOURS, NUMBERS, SHAPES, Rng
from mmeb_tasks.mini.write import QueryLabel, WorkerRationale

#: Rationales of each worker a query.
SAMPLES = 2
#: Share of the wrong worker's rationales in which it is wrong, and sure of it.
WRONG_SHARE = 0.6
VERBOSE = "the query shows {} and that is it"
VERBOSE_CHAIN = "start with the {} and that is it"
VERBOSE_STEP = "then"

#: Tasks whose captions, and so rationales, name grey levels that the picture hardly shows.
TASKS_WITH_DETAILS = ("MSCOCO_i2t", "VisualNews_i2t")
#: Shapes of the shortest rationale that is a chain: the start and two steps.
SHORTEST_CHAIN = 3

_MANY = (COLOURS, SHAPES, NUMBERS)
_OPPOSITES = {
    one: other
    for pair in (("left", "right"), ("up", "down"), ("top", "bottom"), ("yes", "no"))
    for one, other in (pair, pair[::-1])
}


def work(task: str, labels: Sequence[QueryLabel], rng: Rng, names_classes: bool = False) -> list[WorkerRationale]:
    """All workers' samples of all of a task's queries.

    Args:
        names_classes: answers are classes, and each rationale ends in one.
    """
    details = task in TASKS_WITH_DETAILS
    classes = sorted({label.answer for label in labels}) if names_classes else []
    errs = rng.random((SAMPLES, len(labels))) < WRONG_SHARE
    offsets = rng.integers(1, len(SHAPES), (SAMPLES, len(labels)))
    written: list[WorkerRationale] = []
    for sample, index in itertools.product(range(SAMPLES), range(len(labels))):
        label, is_wrong, offset = labels[index], bool(errs[sample, index]), int(offsets[sample, index])
        precise, wordy, wrong = label.rationale, verbose(label.rationale), mistaken(label, offset)
        if classes:
            precise, wordy = named(precise, label.answer), named(wordy, label.answer)
            wrong = named(wrong, another_class(label.answer, classes, offset))
        wrong = wrong if is_wrong else precise
        written += [
            WorkerRationale(label.query_id, "query", "precise", sample, precise, True, details),
            WorkerRationale(label.query_id, "query", "verbose", sample, wordy, True, details),
            WorkerRationale(label.query_id, "query", "wrong", sample, wrong, not is_wrong, details),
        ]
    return written


def named(rationale: str, of_class: str) -> str:
    """The rationale with the class that it leads to as its last words."""
    return rationale if rationale.endswith(of_class) else f"{rationale} {of_class}"


def another_class(answer: str, classes: Sequence[str], offset: int) -> str:
    """What else it could be taken for: a thing for one in other words, an official class for one of the others."""
    words = answer.split()
    if all(word in COLOURS or word in SHAPES for word in words):
        return " ".join(_other(word, offset) for word in words)
    others = [name for name in classes if name != answer]
    return others[offset % len(others)] if others else ""


def verbose(rationale: str) -> str:
    """The rationale in filler, the steps of a chain joined by "then"."""
    if not _is_chain(rationale.split()):
        return VERBOSE.format(rationale)
    words: list[str] = []
    for word in rationale.split():
        if word in SHAPES and words and words[-1] in SHAPES:
            words.append(VERBOSE_STEP)
        words.append(word)
    return VERBOSE_CHAIN.format(" ".join(words))


def mistaken(label: QueryLabel, offset: int) -> str:
    """The rationale with other words where it matters, an equal word always replaced by the same.

    A chain leaves its way after the start. Of anything else the words that stand in the answer decide, or, where
    answers are official class labels and share no word, all of them.

    Args:
        offset: 1 to 7: by how much colours, shapes and numbers are off. Sides, directions and yes or no turn round.
    """
    words = label.rationale.split()
    wrong = _places_after_start(words) if _is_chain(words) else _places_that_decide(words, label.answer)
    return " ".join(_other(word, offset) if place in wrong else word for place, word in enumerate(words))


def _places_after_start(words: Sequence[str]) -> set[int]:
    start = next(place for place, word in enumerate(words) if word in SHAPES)
    return {place for place, word in enumerate(words) if place > start and word not in COLOURS}


def _places_that_decide(words: Sequence[str], answer: str) -> set[int]:
    in_answer = {place for place, word in enumerate(words) if word in answer.split()}
    return in_answer or set(range(len(words)))


def _is_chain(words: Sequence[str]) -> bool:
    return sum(word in SHAPES for word in words) >= SHORTEST_CHAIN


def _other(word: str, offset: int) -> str:
    for of_a_kind in _MANY:
        if word in of_a_kind:
            return of_a_kind[(of_a_kind.index(word) + offset) % len(of_a_kind)]
    return _OPPOSITES.get(word, word)
