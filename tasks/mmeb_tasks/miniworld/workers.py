"""Scripted workers of three characters, whose rationales the world itself can judge.

    precise   "red circle square plus"; of a caption "red circle three gamma", or just "red circle"
    verbose   the same in filler: "start with the red circle then square then plus so the answer is red plus"
    wrong     looks precise, but often reads the table backwards, or misnames the colour

Precise and verbose err, too, as often as the world says, and of hopeless sides whatever anybody writes is wrong.
The details (the strips' levels) are true, but a student's picture does not show them. A table read backwards may
lead to the right answer by accident (2 hops of 4): that counts as right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmeb_tasks.mini.workers import SAMPLES, WRONG_SHARE
from mmeb_tasks.mini.world import COLOURS, SHAPES, Rng
from mmeb_tasks.mini.write import Side, Worker, WorkerRationale
from mmeb_tasks.miniworld.tasks import NUM, World
from mmeb_tasks.miniworld.world import Queries, Targets, level_words

CAREFUL: tuple[Worker, ...] = ("precise", "verbose")
WRONG: Worker = "wrong"

VERBOSE_CAPTION = "the picture shows a {colour} {shape} with {first} and {second}"
VERBOSE_ANSWER = "the picture shows a {colour} {shape}"
VERBOSE_CHAIN = "start with the {colour} {walk} so the answer is {colour} {shape}"
VERBOSE_STEP = " then "


@dataclass(frozen=True, slots=True)
class Sight:
    """All that can be told of an item.

    Attributes:
        walk: shapes, the start first; of a thing that is no chain the one shape.
        backwards: the walk in the table read backwards; empty for what is no chain.
        details: level words of a caption, else "".
    """

    colour: int
    walk: tuple[int, ...]
    backwards: tuple[int, ...]
    details: str

    @property
    def answer(self) -> tuple[int, int]:
        """Colour and shape that it leads to."""
        return self.colour, self.walk[-1]


def query_sights(queries: Queries) -> list[Sight]:
    """What a careful worker who sees everything could tell of each query."""
    return [
        Sight(
            colour=int(queries.colours[index]),
            walk=tuple(queries.walk(index)),
            backwards=() if queries.looks[index] else tuple(queries.walk(index, -1)),
            details=level_words(queries.levels[index]) if queries.looks[index] else "",
        )
        for index in range(len(queries))
    ]


def target_sights(targets: Targets) -> list[Sight]:
    """What a worker sees of pictured candidates."""
    return [
        Sight(
            colour=int(targets.colours[index]),
            walk=(int(targets.shapes[index]),),
            backwards=(),
            details=level_words(targets.levels[index]) if targets.captions[index] else "",
        )
        for index in range(len(targets))
    ]


def work(
    side: Side, query_ids: Sequence[str], sights: Sequence[Sight], world: World, rng: Rng, slips: Rng
) -> list[WorkerRationale]:
    """All workers' samples of one side of pairs.

    Args:
        slips: of what careful workers never do, so that what they write depends on `rng` alone.
    """
    written: list[WorkerRationale] = []
    n = len(sights)
    is_hopeless = slips.random(n) < world.hopeless_share
    for sample in range(SAMPLES):
        names_details = (rng.random(n) < world.details_share).tolist()
        errs = {"wrong": rng.random(n) < WRONG_SHARE}
        offsets = {"wrong": rng.integers(1, NUM, n)}
        for worker in CAREFUL:
            errs[worker], offsets[worker] = slips.random(n) < world.err_share, slips.integers(1, NUM, n)
        for index, (query_id, sight) in enumerate(zip(query_ids, sights, strict=True)):
            for worker in (*CAREFUL, WRONG):
                offset, taken_for = int(offsets[worker][index]), sight
                if errs[worker][index] or is_hopeless[index]:
                    taken_for = mistaken(sight, offset)
                right = taken_for.answer == sight.answer
                if right and is_hopeless[index]:  # backwards to the right end
                    taken_for, right = misnamed(sight, offset), False
                details = bool(sight.details) and (worker == "verbose" or names_details[index])
                text = verbose(taken_for) if worker == "verbose" else precise(taken_for, details)
                written.append(WorkerRationale(query_id, side, worker, sample, text, right, details))
    return written


def precise(sight: Sight, details: bool) -> str:
    """E.g. "red circle square plus", "red circle three gamma"."""
    words = [COLOURS[sight.colour], *(SHAPES[shape] for shape in sight.walk)]
    return " ".join([*words, sight.details] if details else words)


def verbose(sight: Sight) -> str:
    """The rationale in filler, details always named."""
    colour, shape = COLOURS[sight.colour], SHAPES[sight.walk[-1]]
    if sight.backwards:
        steps = VERBOSE_STEP.join(SHAPES[passed] for passed in sight.walk)
        return VERBOSE_CHAIN.format(colour=colour, walk=steps, shape=shape)
    if not sight.details:
        return VERBOSE_ANSWER.format(colour=colour, shape=shape)
    first, second = sight.details.split()
    return VERBOSE_CAPTION.format(colour=colour, shape=shape, first=first, second=second)


def mistaken(sight: Sight, offset: int) -> Sight:
    """A chain read backwards, or without any hop another shape; of anything else another colour."""
    if len(sight.backwards) > 1:
        return replace(sight, walk=sight.backwards)
    if sight.backwards:
        return replace(sight, walk=((sight.walk[0] + offset) % NUM,))
    return misnamed(sight, offset)


def misnamed(sight: Sight, offset: int) -> Sight:
    """The same thing, taken to be of another colour."""
    return replace(sight, colour=(sight.colour + offset) % NUM)
